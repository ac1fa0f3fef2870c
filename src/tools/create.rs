//! `create_workspace` (domain: creating a workspace), and the check whether the chat has a workspace already.

use std::time::Duration;

use time::OffsetDateTime;

use super::{
    AgentReadiness, CancellationToken, CreateWorkspace, CreateWorkspaceReply, Created, CreatedReply, ExistsReply,
    ExistsStatus, NewChatWorkspace, OperationError, Operations, TextError, Toolbox,
    agent::{Dial, choose_agent},
    arguments::parameters,
    error::{Unavailable, twice},
    failure::Action,
    name,
    toolbox::{MAX_LOOKS, begin, chat_daemon},
};
use crate::{
    authz::{Actor, FindTemplates, ReadChatSettings, ReadTemplates, TemplateRight},
    duration,
    model::{
        AgentStatus, ChatBinding, JobStatus, PresetId, TemplateId, TemplateRules, Transition, Workspace,
        WorkspaceAgent, WorkspaceBuild,
    },
    store,
};

/// What the check found.
enum Existing {
    /// A workspace that the chat keeps, or whose build failed while the call waited.
    Answer(CreateWorkspaceReply),
    /// Nothing that can be used: this is what the chat works with.
    Nothing(ChatBinding),
}

impl Toolbox {
    /// `create_workspace`, with types; see [`Toolbox::call`].
    ///
    /// # Errors
    /// What the agent is told as an error, and not as a reply.
    pub async fn create_workspace(
        &self,
        arguments: &CreateWorkspace,
        cancel: &CancellationToken,
    ) -> Result<CreateWorkspaceReply, TextError> {
        let operations = self.operations.as_deref().ok_or("workspace creator is not configured")?;
        let template = arguments.template_id.as_deref().unwrap_or_default().trim();
        if template.is_empty() {
            return Err("template_id is required; use list_templates to find one".into());
        }
        let template: TemplateId =
            template.parse().map_err(|error| format!("invalid template_id: {error}; expected a UUID"))?;
        let allowed = self.allowed_templates.as_ref().map(|allowed| allowed()).unwrap_or_default();
        if !allowed.is_empty() && !allowed.contains(&template) {
            return Err(
                "template not available for chat workspaces; use list_templates to find allowed templates".into()
            );
        }
        let _turn = self.take_turn(cancel).await?;
        for _ in 0..MAX_LOOKS {
            match self.check_existing(&chat_daemon(), cancel).await? {
                Existing::Answer(reply) => return Ok(reply),
                Existing::Nothing(seen) => {
                    if let Some(reply) = self.create(operations, seen, template, arguments, cancel).await? {
                        return Ok(reply);
                    }
                }
            }
        }
        Err("the workspace of the chat changes all the time; try again later".into())
    }

    /// Creates a workspace; `None` if another call bound the chat to one meanwhile.
    async fn create(
        &self,
        operations: &dyn Operations,
        seen: ChatBinding,
        template: TemplateId,
        arguments: &CreateWorkspace,
        cancel: &CancellationToken,
    ) -> Result<Option<CreateWorkspaceReply>, TextError> {
        // From here on the owner acts.
        let owner = self.load_owner().await?;
        let rules = self.find_template(&owner, template).await;
        let rules = rules.map_err(|error| format!("look up template: {error}"))?;
        if rules.template.organization_id != self.organization {
            return Err("template belongs to a different organization than this chat; use list_templates to find \
                        templates in the correct organization"
                .into());
        }
        if self.has_external_agent(&owner, &rules).await {
            return Err(
                "template has external agents, which somebody must start by hand, so chats cannot use it; use \
                        list_templates to find another one"
                    .into(),
            );
        }
        let ttl = self.chat_workspace_ttl().await;
        let preset = match arguments.preset_id.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => {
                let preset = text.parse::<PresetId>();
                Some(preset.map_err(|error| format!("invalid preset_id: {error}; expected a UUID"))?)
            }
        };
        let given = arguments.name.as_deref().unwrap_or_default().trim();
        let base = if given.is_empty() { rules.template.name.as_str() } else { given };
        let mut new = NewChatWorkspace {
            chat: self.chat,
            seen,
            owner: self.owner,
            organization: self.organization,
            template,
            ttl,
            preset,
            name: given.parse().unwrap_or_else(|_| name::generate(base)),
            parameters: parameters(arguments.parameters.as_ref()),
        };
        begin(cancel)?;
        let mut created = operations.create(&owner, &new).await;
        if let Err(OperationError::Api(error)) = &created
            && error.status == 409
            && error.validations.iter().any(|validation| validation.field == "name")
        {
            new.name = name::generate(base);
            created = operations.create(&owner, &new).await;
        }
        match created {
            Ok(created) => self.finish(&owner, created, cancel).await.map(Some),
            Err(OperationError::Changed) => Ok(None),
            Err(OperationError::Api(error)) => Ok(Some(CreateWorkspaceReply::Refused(error.into()))),
            Err(OperationError::Other(error)) => Err(error.to_string().into()),
        }
    }

    /// Binds the chat to the new workspace, and waits until that can be used.
    async fn finish(
        &self,
        owner: &Actor,
        created: Created,
        cancel: &CancellationToken,
    ) -> Result<CreateWorkspaceReply, TextError> {
        let Created { workspace, build, chat } = created;
        let build = build.filter(|id| !id.0.is_nil());
        match &chat {
            Some(chat) => self.tell(chat),
            None => self.publish(owner, workspace.id, build).await,
        }
        if let Some(build) = build
            && let Err(error) = self.wait_for_build(owner, self.organization, build, cancel).await
        {
            let context = "workspace build failed";
            let failure = self.build_failure(owner, self.organization, Action::Create, build, context, error).await;
            return Ok(failure.into());
        }
        let agent = self.wait_for_agents(owner, &workspace, cancel).await.readiness();
        self.refresh(owner).await;
        Ok(CreateWorkspaceReply::Created(CreatedReply {
            created: true,
            workspace_name: format!("{}/{}", workspace.owner_name, workspace.name),
            build_id: build,
            agent,
        }))
    }

    async fn find_template(&self, owner: &Actor, template: TemplateId) -> Result<TemplateRules, Unavailable> {
        let permit = FindTemplates::check(owner, TemplateRight::Use);
        twice(|| async { Ok(store::templates::find(&mut *self.pool.get().await?, &permit, template).await?) }).await
    }

    /// Whether the active version is known to have agents that do not start by themselves.
    async fn has_external_agent(&self, owner: &Actor, rules: &TemplateRules) -> bool {
        let look = || async {
            let permit = ReadTemplates::check(owner, self.organization, TemplateRight::Use)?;
            let (template, version) = (rules.template.id, rules.active_version_id);
            Ok::<_, Unavailable>(
                store::templates::version(&mut *self.pool.get().await?, &permit, template, version).await?,
            )
        };
        twice(look).await.is_ok_and(|version| version.has_external_agent == Some(true))
    }

    /// After how long the workspaces of chats stop by themselves; `None` for what their templates say. A setting of the
    /// site, which owners of chats may not read: the chat daemon does.
    async fn chat_workspace_ttl(&self) -> Option<Duration> {
        let look = || async {
            let permit = ReadChatSettings::check(&chat_daemon())?;
            Ok::<_, Unavailable>(store::settings::chat_workspace_ttl(&mut *self.pool.get().await?, &permit).await?)
        };
        let stored = match twice(look).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(name: "tools.no_ttl", error = %error, "cannot read how long workspaces of chats live");
                return None;
            }
        };
        let ttl = duration::parse(&stored);
        if ttl.is_none() {
            tracing::warn!(name: "tools.bad_ttl", "how long workspaces of chats live is not a duration such as 8h");
        }
        // The API counts milliseconds.
        ttl.map(|ttl| Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
            .filter(|ttl| !ttl.is_zero())
    }

    /// Looks whether the chat has a workspace that can be used, or will have in a moment.
    async fn check_existing(&self, who: &Actor, cancel: &CancellationToken) -> Result<Existing, TextError> {
        let chat = self.load_chat(who).await.map_err(|error| format!("load chat: {error}"))?;
        let nothing = Existing::Nothing(chat.binding);
        let Some(bound) = chat.binding.workspace_id else { return Ok(nothing) };
        let workspace = self.load_workspace(who, chat.organization_id, bound).await;
        let workspace = workspace.map_err(|error| format!("load workspace: {error}"))?;
        if workspace.deleted {
            return Ok(nothing);
        }
        let Ok(build) = self.latest_build(who, &workspace).await else { return Ok(nothing) };
        Ok(match (build.job_status, build.transition.known()) {
            (JobStatus::Pending | JobStatus::Running, _) => {
                Existing::Answer(self.wait_for_existing(who, &workspace, &build, cancel).await)
            }
            (JobStatus::Succeeded, Some(Transition::Stop)) => {
                let message = "workspace is stopped; use start_workspace to start it";
                let agent = AgentReadiness::default();
                Existing::Answer(exists(&workspace, ExistsStatus::Stopped, message, None, agent))
            }
            (JobStatus::Succeeded, _) => match self.running(who, &workspace, cancel).await {
                Some(reply) => Existing::Answer(reply),
                None => nothing,
            },
            _ => nothing,
        })
    }

    /// Waits for the build of the existing workspace that is under way.
    async fn wait_for_existing(
        &self,
        who: &Actor,
        workspace: &Workspace,
        build: &WorkspaceBuild,
        cancel: &CancellationToken,
    ) -> CreateWorkspaceReply {
        self.publish(who, workspace.id, Some(build.id)).await;
        if let Err(error) = self.wait_for_build(who, workspace.organization_id, build.id, cancel).await {
            let action = if build.transition == Transition::Start { Action::Start } else { Action::Create };
            let context = "existing workspace build failed";
            return self.build_failure(who, self.organization, action, build.id, context, error).await.into();
        }
        let agents = self.agents(who, workspace).await.unwrap_or_default();
        let agent = match chosen_or_first(&agents) {
            Some(agent) => self.wait_for_agent(who, workspace.organization_id, agent, Dial::Yes, cancel).await,
            None => AgentReadiness::default(),
        };
        let message = "workspace build completed";
        exists(workspace, ExistsStatus::AlreadyExists, message, Some(build), agent)
    }

    /// The reply for a workspace that runs, if its agent is there or comes up.
    async fn running(
        &self,
        who: &Actor,
        workspace: &Workspace,
        cancel: &CancellationToken,
    ) -> Option<CreateWorkspaceReply> {
        let agents = self.agents(who, workspace).await.unwrap_or_default();
        let agent = chosen_or_first(&agents)?;
        let (message, dial) = match agent.status(OffsetDateTime::now_utc(), self.settings.agent_inactive_timeout) {
            AgentStatus::Connected => ("workspace is already running and recently connected", Dial::No),
            AgentStatus::Connecting => ("workspace exists and the agent is still connecting", Dial::Yes),
            AgentStatus::Disconnected | AgentStatus::Timeout => return None,
        };
        let agent = self.wait_for_agent(who, workspace.organization_id, agent, dial, cancel).await;
        Some(exists(workspace, ExistsStatus::AlreadyExists, message, None, agent))
    }
}

fn chosen_or_first(agents: &[WorkspaceAgent]) -> Option<&WorkspaceAgent> {
    choose_agent(agents).ok().or_else(|| agents.first())
}

fn exists(
    workspace: &Workspace,
    status: ExistsStatus,
    message: &str,
    build: Option<&WorkspaceBuild>,
    agent: AgentReadiness,
) -> CreateWorkspaceReply {
    CreateWorkspaceReply::Exists(ExistsReply {
        created: false,
        workspace_name: workspace.name.clone(),
        status,
        message: message.to_owned(),
        build_id: build.map(|build| build.id),
        agent,
    })
}
