//! `start_workspace` (domain: starting a workspace).

use super::{
    AgentReadiness, ApiFailure, BuildError, CancellationToken, OperationError, Operations, StartChatWorkspace,
    StartWorkspace, StartWorkspaceReply, StartedReply, TextError, Toolbox,
    agent::Agents,
    arguments::parameters,
    failure::Action,
    toolbox::{MAX_LOOKS, begin, chat_daemon},
};
use crate::{
    authz::Actor,
    model::{JobStatus, Transition, Workspace, WorkspaceBuild, WorkspaceBuildId},
};

const UPDATED: &str = "Workspace started and was updated to the active template version because the template requires \
                       active versions.";

impl Toolbox {
    /// `start_workspace`, with types; see [`Toolbox::call`].
    ///
    /// # Errors
    /// What the agent is told as an error, and not as a reply.
    pub async fn start_workspace(
        &self,
        arguments: &StartWorkspace,
        cancel: &CancellationToken,
    ) -> Result<StartWorkspaceReply, TextError> {
        let operations = self.operations.as_deref().ok_or("workspace starter is not configured")?;
        let _turn = self.take_turn(cancel).await?;
        let who = chat_daemon();
        let parameters = parameters(arguments.parameters.as_ref());
        for _ in 0..MAX_LOOKS {
            let chat = self.load_chat(&who).await.map_err(|error| format!("load chat: {error}"))?;
            let bound = chat.binding.workspace_id.ok_or("chat has no workspace; use create_workspace first")?;
            let workspace = self.load_workspace(&who, chat.organization_id, bound).await;
            let workspace = workspace.map_err(|error| format!("load workspace: {error}"))?;
            if workspace.deleted {
                return Err("workspace was deleted; use create_workspace to make a new one".into());
            }
            let build = self.latest_build(&who, &workspace).await;
            let build = build.map_err(|error| format!("get latest build: {error}"))?;
            match (build.job_status, build.transition.known()) {
                (JobStatus::Succeeded, Some(Transition::Start)) => {
                    return Ok(self.started(&who, &workspace, None, cancel).await);
                }
                (JobStatus::Pending | JobStatus::Running, Some(Transition::Start)) => {
                    return Ok(self.wait_for_start(&who, &workspace, &build, cancel).await);
                }
                // What stops the workspace, and what is being canceled, ends first; then it is started
                // (domain: waiting before a start).
                (JobStatus::Pending | JobStatus::Running | JobStatus::Canceling, _) => {
                    self.publish(&who, workspace.id, Some(build.id)).await;
                    match self.wait_for_build(&who, workspace.organization_id, build.id, cancel).await {
                        Ok(()) | Err(BuildError::Failed(_) | BuildError::Canceled) => {}
                        Err(error) => return Ok(self.in_progress_failed(&who, &workspace, &build, error).await),
                    }
                }
                _ => {
                    let start = StartChatWorkspace {
                        chat: self.chat,
                        owner: self.owner,
                        organization: workspace.organization_id,
                        workspace: workspace.id,
                        seen: build.id,
                        parameters: parameters.clone(),
                    };
                    if let Some(reply) = self.start(operations, &who, &workspace, &build, &start, cancel).await? {
                        return Ok(reply);
                    }
                }
            }
        }
        Err("start workspace: it changes all the time; try again later".into())
    }

    /// Waits for a start that is under way.
    async fn wait_for_start(
        &self,
        who: &Actor,
        workspace: &Workspace,
        build: &WorkspaceBuild,
        cancel: &CancellationToken,
    ) -> StartWorkspaceReply {
        self.publish(who, workspace.id, Some(build.id)).await;
        if let Err(error) = self.wait_for_build(who, workspace.organization_id, build.id, cancel).await {
            return self.in_progress_failed(who, workspace, build, error).await;
        }
        let reply = self.started(who, workspace, Some(build.id), cancel).await;
        self.refresh(who).await;
        reply
    }

    async fn in_progress_failed(
        &self,
        who: &Actor,
        workspace: &Workspace,
        build: &WorkspaceBuild,
        error: BuildError,
    ) -> StartWorkspaceReply {
        let context = "waiting for in-progress build";
        self.build_failure(who, workspace.organization_id, Action::Start, build.id, context, error).await.into()
    }

    /// Starts the workspace; `None` if another call changed it meanwhile.
    async fn start(
        &self,
        operations: &dyn Operations,
        who: &Actor,
        workspace: &Workspace,
        before: &WorkspaceBuild,
        start: &StartChatWorkspace,
        cancel: &CancellationToken,
    ) -> Result<Option<StartWorkspaceReply>, TextError> {
        let owner = self.load_owner().await?;
        begin(cancel)?;
        let started = match operations.start(&owner, start).await {
            Ok(started) => started,
            Err(OperationError::Changed) => return Ok(None),
            Err(OperationError::Api(error)) => {
                let template = (!error.validations.is_empty()).then_some(workspace.template_id);
                let template_id = template.filter(|id| !id.0.is_nil());
                return Ok(Some(StartWorkspaceReply::Refused(ApiFailure { template_id, ..error.into() })));
            }
            Err(OperationError::Other(error)) => return Err(format!("start workspace: {error}").into()),
        };
        match &started.chat {
            Some(chat) => self.tell(chat),
            None => self.publish(who, workspace.id, Some(started.build)).await,
        }
        if let Err(error) = self.wait_for_build(who, workspace.organization_id, started.build, cancel).await {
            let context = "workspace start build failed";
            let organization = workspace.organization_id;
            let failure = self.build_failure(who, organization, Action::Start, started.build, context, error).await;
            return Ok(Some(failure.into()));
        }
        let mut reply = self.started(who, workspace, Some(started.build), cancel).await;
        let (old, new) = (before.template_version_id, started.template_version);
        if let StartWorkspaceReply::Started(reply) = &mut reply
            && old != new
            && !old.0.is_nil()
            && !new.0.is_nil()
        {
            reply.updated_to_active_version = Some(true);
            reply.update_reason = Some("template requires active versions".to_owned());
            reply.message = Some(UPDATED.to_owned());
        }
        self.refresh(who).await;
        Ok(Some(reply))
    }

    /// The workspace runs, whatever is the matter with its agents.
    async fn started(
        &self,
        who: &Actor,
        workspace: &Workspace,
        build: Option<WorkspaceBuildId>,
        cancel: &CancellationToken,
    ) -> StartWorkspaceReply {
        let build_id = build.filter(|id| !id.0.is_nil());
        let agent: AgentReadiness = match self.wait_for_agents(who, workspace, cancel).await {
            Agents::Unknown => Agents::None.readiness(),
            agents => agents.readiness(),
        };
        StartWorkspaceReply::Started(StartedReply {
            started: true,
            workspace_name: workspace.name.clone(),
            build_id,
            no_build: build_id.is_none().then_some(true),
            agent,
            updated_to_active_version: None,
            update_reason: None,
            message: None,
        })
    }
}
