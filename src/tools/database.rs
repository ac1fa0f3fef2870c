//! Creating and starting workspaces in the database itself: workspace, build, job and binding in one transaction.

use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::{Map, Value, json};
use sqlx::Connection as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ApiError, Created, NewChatWorkspace, OperationError, Operations, Parameter, StartChatWorkspace, Started, Validation,
};
use crate::{
    authz::{
        Actor, BuildWorkspaces, CreateWorkspaces, FindTemplates, ReadTemplates, ReadWorkspaces, TemplateRight, UseChats,
    },
    model::{
        BuildReason, ChatBinding, Entity, JobId, JobStatus, NewBuild, NewWorkspace, PresetId, Tags, TemplateId,
        TemplateRules, TemplateVersion, TemplateVersionId, Transition, UserId, Workspace, WorkspaceBuildId,
        WorkspaceId,
    },
    pool::Pool,
    store::{self, Error, PgConnection},
    watch::{Change, Watcher},
};

/// Where the input of a job has the values of parameters.
const PARAMETERS: &str = "rich_parameter_values";

type Result<T> = std::result::Result<T, OperationError>;

/// Creates and starts workspaces in the database.
///
/// A transaction locks the chat, or the workspace, looks whether all is as it was when the tool decided, and binds the
/// chat before it commits. So of several processes that do the same at once, one does it, and after one that was killed
/// either nothing has happened or the chat knows of it.
#[derive(Debug, Clone)]
pub struct DatabaseOperations {
    pool: Pool,
    watcher: Watcher,
}

impl DatabaseOperations {
    /// In the database of the pool; the watcher tells others of new jobs.
    #[must_use]
    pub const fn new(pool: Pool, watcher: Watcher) -> Self {
        Self { pool, watcher }
    }
}

impl Operations for DatabaseOperations {
    fn create<'a>(&'a self, owner: &'a Actor, new: &'a NewChatWorkspace) -> BoxFuture<'a, Result<Created>> {
        let ids = Ids::new();
        async move {
            let mut connection = self.pool.get().await?;
            let mut transaction = connection.begin().await.map_err(|e| Error::from_sqlx("tools/begin", e))?;
            let created = create(&mut transaction, owner, new, ids, OffsetDateTime::now_utc()).await?;
            transaction.commit().await.map_err(|e| Error::from_sqlx("tools/commit", e))?;
            self.watcher.announce(Change { job: ids.job, organization: new.organization });
            Ok(created)
        }
        .boxed()
    }

    fn start<'a>(&'a self, owner: &'a Actor, start: &'a StartChatWorkspace) -> BoxFuture<'a, Result<Started>> {
        let ids = Ids::new();
        async move {
            let mut connection = self.pool.get().await?;
            let mut transaction = connection.begin().await.map_err(|e| Error::from_sqlx("tools/begin", e))?;
            let started = self::start(&mut transaction, owner, start, ids, OffsetDateTime::now_utc()).await?;
            transaction.commit().await.map_err(|e| Error::from_sqlx("tools/commit", e))?;
            self.watcher.announce(Change { job: ids.job, organization: start.organization });
            Ok(started)
        }
        .boxed()
    }
}

/// The ids of what is created.
#[derive(Clone, Copy)]
struct Ids {
    build: WorkspaceBuildId,
    job: JobId,
    workspace: WorkspaceId,
}

impl Ids {
    fn new() -> Self {
        Self {
            build: WorkspaceBuildId(Uuid::new_v4()),
            job: JobId(Uuid::new_v4()),
            workspace: WorkspaceId(Uuid::new_v4()),
        }
    }
}

async fn create(
    conn: &mut PgConnection,
    owner: &Actor,
    new: &NewChatWorkspace,
    ids: Ids,
    now: OffsetDateTime,
) -> Result<Created> {
    let use_chats = UseChats::check(owner)?;
    let seen = store::chats::get_with_lock(conn, &use_chats, new.chat).await?.binding;
    if (seen.workspace_id, seen.build_id) != (new.seen.workspace_id, new.seen.build_id) {
        return Err(OperationError::Changed);
    }
    let Ok(may_create) = CreateWorkspaces::check(owner, new.owner, new.organization) else {
        return Err(refused(403, "You may not create workspaces in this organization.").into());
    };
    let template = template_for_new(conn, owner, new).await?;
    let version =
        version(conn, owner, TemplateRight::Use, &template, template.active_version_id, "template_id").await?;
    if version.archived {
        return Err(invalid("template_id", "The active version of the template is archived.").into());
    }
    let workspace = NewWorkspace {
        id: ids.workspace,
        name: new.name.clone(),
        template_id: new.template,
        autostart_schedule: None,
        ttl: new.ttl.filter(|_| template.allow_user_autostop).or(template.default_ttl),
    };
    store::workspaces::create(conn, &may_create, &workspace, now).await.map_err(|error| match error {
        Error::Conflict { constraint: "workspaces_owner_id_lower_idx" } => name_taken(new),
        Error::NotFound { .. } => {
            refused(404, "The template is gone, or the owner is suspended, deleted or no member of its organization.")
                .into()
        }
        error => as_refusal(error),
    })?;
    let build = Build {
        ids,
        workspace: ids.workspace,
        owner: new.owner,
        preset: new.preset,
        parameters: parameters(Map::new(), &new.parameters),
    };
    build.create(conn, owner, &template, &version, now).await?;
    let chat = ChatBinding { workspace_id: Some(ids.workspace), build_id: Some(ids.build), agent_id: None };
    let chat = store::chats::bind(conn, &use_chats, new.chat, chat).await?;
    let permit = ReadWorkspaces::check(owner, new.organization)?;
    let workspace = store::workspaces::get(conn, &permit, ids.workspace).await?;
    Ok(Created { workspace, build: Some(ids.build), chat: Some(chat) })
}

async fn start(
    conn: &mut PgConnection,
    owner: &Actor,
    start: &StartChatWorkspace,
    ids: Ids,
    now: OffsetDateTime,
) -> Result<Started> {
    let Ok(may_build) = BuildWorkspaces::check(owner, start.organization) else {
        return Err(refused(403, "You may not build workspaces in this organization.").into());
    };
    let workspace = store::workspaces::get_with_lock(conn, &may_build, start.workspace).await?;
    let may_read = ReadWorkspaces::check(owner, start.organization)?;
    // In a statement of its own, which sees what was committed while the lock was waited for.
    let latest = store::builds::latest(conn, &may_read, start.workspace).await?;
    let Some(latest) = latest.filter(|latest| latest.id == start.seen && !workspace.deleted) else {
        return Err(OperationError::Changed);
    };
    if matches!(latest.job_status, JobStatus::Pending | JobStatus::Running | JobStatus::Canceling) {
        return Err(refused(409, "A build of the workspace is under way.").into());
    }
    let use_chats = UseChats::check(owner)?;
    let chat = store::chats::get_with_lock(conn, &use_chats, start.chat).await?;
    if chat.binding.workspace_id != Some(start.workspace) {
        return Err(OperationError::Changed);
    }
    let Workspace { template_id, .. } = workspace;
    let template = store::templates::find(conn, &FindTemplates::check(owner, TemplateRight::Read), template_id).await?;
    let version_id =
        if template.require_active_version { template.active_version_id } else { latest.template_version_id };
    let version = version(conn, owner, TemplateRight::Read, &template, version_id, "template_version_id").await?;
    let before = store::builds::options(conn, &may_build, latest.id).await?;
    let build = Build {
        ids,
        workspace: start.workspace,
        owner: workspace.owner_id,
        // A preset belongs to one version.
        preset: latest.preset_id.filter(|_| version_id == latest.template_version_id),
        parameters: parameters(before, &start.parameters),
    };
    build.create(conn, owner, &template, &version, now).await?;
    let binding = ChatBinding { workspace_id: Some(start.workspace), build_id: Some(ids.build), agent_id: None };
    let chat = store::chats::bind(conn, &use_chats, start.chat, binding).await?;
    Ok(Started { build: ids.build, template_version: version_id, chat: Some(chat) })
}

/// A build that starts a workspace.
struct Build {
    ids: Ids,
    workspace: WorkspaceId,
    owner: UserId,
    preset: Option<PresetId>,
    parameters: Vec<Value>,
}

impl Build {
    async fn create(
        self,
        conn: &mut PgConnection,
        owner: &Actor,
        template: &TemplateRules,
        version: &TemplateVersion,
        now: OffsetDateTime,
    ) -> Result<()> {
        let permit = BuildWorkspaces::check(owner, template.template.organization_id)?;
        let mut options = Map::new();
        if !self.parameters.is_empty() {
            options.insert(PARAMETERS.to_owned(), Value::Array(self.parameters));
        }
        let new = NewBuild {
            id: self.ids.build,
            job_id: self.ids.job,
            workspace_id: self.workspace,
            template_version_id: version.id,
            preset_id: self.preset,
            transition: Transition::Start,
            reason: BuildReason::Initiator,
            provisioner_state: None,
            deadline: None,
            max_deadline: None,
            tags: tags(&version.tags, self.owner),
            options,
            trace_metadata: None,
        };
        match store::builds::create(conn, &permit, &new, now).await {
            Ok(_number) => Ok(()),
            // The workspace and the version are there: what is not is the preset.
            Err(Error::NotFound { entity: Entity::Workspace, .. }) if self.preset.is_some() => {
                Err(invalid("preset_id", "It is no preset of the template's active version.").into())
            }
            Err(error) => Err(as_refusal(error)),
        }
    }
}

/// Those of the version; a version of one user's own daemons is built by those of the workspace's owner (domain: tags).
fn tags(version: &Tags, owner: UserId) -> Tags {
    let mut tags = version.clone();
    if tags.0.get("scope").is_some_and(|scope| scope == "user") {
        tags.0.insert("owner".to_owned(), owner.to_string());
    }
    tags
}

/// The values that the build before had, as far as there are no new ones.
fn parameters(mut before: Map<String, Value>, given: &[Parameter]) -> Vec<Value> {
    let mut values = match before.remove(PARAMETERS) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    };
    values.retain(|value| !given.iter().any(|given| value["name"] == given.name.as_str()));
    values.extend(given.iter().map(|given| json!(given)));
    values
}

/// The template, if new workspaces may be made from it.
async fn template_for_new(conn: &mut PgConnection, owner: &Actor, new: &NewChatWorkspace) -> Result<TemplateRules> {
    let unknown = |id: TemplateId| {
        let detail = format!("The organization has no template {id}.");
        ApiError { status: 404, ..invalid("template_id", &detail) }
    };
    let permit = FindTemplates::check(owner, TemplateRight::Use);
    let template = match store::templates::find(conn, &permit, new.template).await {
        Ok(template) if template.template.organization_id == new.organization => template,
        Ok(_) | Err(Error::NotFound { .. }) => return Err(unknown(new.template).into()),
        Err(error) => return Err(error.into()),
    };
    let name = &template.template.name;
    if template.deleted {
        return Err(refused(404, &format!("The template {name:?} was deleted.")).into());
    }
    if let Some(reason) = &template.deprecated {
        let refused =
            refused(400, &format!("The template {name:?} is deprecated: no new workspaces can be made from it."));
        return Err(ApiError { detail: Some(reason.clone()), ..refused }.into());
    }
    Ok(template)
}

/// The version, if it can be built.
async fn version(
    conn: &mut PgConnection,
    owner: &Actor,
    right: TemplateRight,
    template: &TemplateRules,
    id: TemplateVersionId,
    field: &str,
) -> Result<TemplateVersion> {
    let permit = ReadTemplates::check(owner, template.template.organization_id, right)?;
    let version = match store::templates::version(conn, &permit, template.template.id, id).await {
        Ok(version) => version,
        Err(Error::NotFound { .. }) => return Err(invalid(field, "The template has no such version.").into()),
        Err(error) => return Err(error.into()),
    };
    match version.job_status {
        JobStatus::Succeeded => Ok(version),
        status => {
            let detail = format!("The version {:?} cannot be built: its import is {status}.", version.name);
            Err(invalid(field, &detail).into())
        }
    }
}

fn refused(status: u16, message: &str) -> ApiError {
    ApiError { status, message: message.to_owned(), detail: None, validations: Vec::new() }
}

fn invalid(field: &str, detail: &str) -> ApiError {
    let validations = vec![Validation { field: field.to_owned(), detail: detail.to_owned() }];
    ApiError { validations, ..refused(400, &format!("The {} is not valid.", field.replace('_', " "))) }
}

fn name_taken(new: &NewChatWorkspace) -> OperationError {
    let message = format!("There is a workspace with the name {:?} already.", new.name.as_str());
    let detail = "It is taken by another workspace of the same owner.";
    ApiError { status: 409, message, ..invalid("name", detail) }.into()
}

/// What the agent could change, as a refusal.
fn as_refusal(error: Error) -> OperationError {
    match error {
        Error::Invalid { field: "options", expected } => invalid("parameters", &format!("Expected {expected}.")).into(),
        error => error.into(),
    }
}
