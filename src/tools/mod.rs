//! The tools with which the agent of a chat creates its workspace and starts it: `create_workspace` and `start_workspace`.
//!
//! A [`Toolbox`] has the tools of one chat. A [`Tool`] says its name, what it is for, and what its arguments and replies
//! look like; [`Toolbox::call`] takes arguments as JSON and gives a [`Reply`], whatever happens. Nothing here depends on
//! how an agent is told of its tools.
//!
//! Both tools may be called again at any time, by several processes at once, and after one that was killed: a chat gets
//! one workspace, and a workspace one build. The chat daemon acts here, except where something is done in the name of
//! the owner; only then are the roles of the owner looked up.
//!
//! ```no_run
//! # async fn example(
//! #     pool: coderdb::pool::Pool,
//! #     chat: coderdb::model::Chat,
//! # ) {
//! use coderdb::{tools::{CancellationToken, Tool, Toolbox}, watch::{Settings, Watcher}};
//!
//! let watcher = Watcher::start(&pool, Settings::default());
//! let toolbox = Toolbox::new(pool, watcher, chat.id, chat.owner_id, chat.organization_id);
//! let reply = toolbox.call(Tool::StartWorkspace, serde_json::json!({}), &CancellationToken::new()).await;
//! println!("{} {}", reply.is_error(), reply.text());
//! # }
//! ```

mod agent;
mod arguments;
mod build;
mod create;
mod database;
mod name;
mod operations;
mod reply;
mod start;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    authz::{Actor, LoadActors, ReadUsers, ReadWorkspaces, System, UseChats},
    model::{
        Chat, ChatBinding, ChatId, Entity, OrganizationId, TemplateId, UserId, Workspace, WorkspaceAgentId,
        WorkspaceBuild, WorkspaceBuildId, WorkspaceId,
    },
    pool::{self, Pool},
    store,
    watch::Watcher,
};
pub use agent::{SelectionError, choose_agent};
pub use arguments::{CreateWorkspace, StartWorkspace};
pub use build::{BuildError, BuildFailed, error_code};
pub use database::DatabaseOperations;
pub use operations::{
    ApiError, Created, NewChatWorkspace, OperationError, Operations, Parameter, StartChatWorkspace, Started, Validation,
};
pub use reply::{
    AgentProblem, AgentReadiness, ApiFailure, BuildFailure, CreateWorkspaceReply, CreatedReply, ErrorCode, ExistsReply,
    ExistsStatus, QuotaFailure, Reply, StartWorkspaceReply, StartedReply, StartupScripts,
};
pub use tokio_util::sync::CancellationToken;

/// How often a tool looks again because somebody else changed the chat or its workspace in the same moment.
const MAX_LOOKS: usize = 10;

/// What to do where the owner of a chat may do nothing.
pub(crate) const INACTIVE: &str = "nobody can act for this user; activate the user, or use another chat";

const CANCELED: &str = "canceled before anything was begun";

/// What an agent may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tool {
    /// Creates the workspace of the chat, unless it has one that can be used.
    CreateWorkspace,
    /// Starts the workspace of the chat, unless it runs.
    StartWorkspace,
}

impl Tool {
    /// Every tool.
    pub const ALL: &[Self] = &[Self::CreateWorkspace, Self::StartWorkspace];

    /// The name by which an agent calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateWorkspace => "create_workspace",
            Self::StartWorkspace => "start_workspace",
        }
    }

    /// What it is for, in words for the agent.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::CreateWorkspace => {
                "Create a workspace for this chat from a template, wait for its build, and wait until its agent can be \
                 used. Safe to call again: a chat that has a workspace which runs or is being built keeps it. Use \
                 start_workspace for a workspace that is stopped."
            }
            Self::StartWorkspace => {
                "Start the workspace of this chat, wait for its build, and wait until its agent can be used. Safe to \
                 call again: a workspace that runs is left alone. Use create_workspace for a chat without a workspace."
            }
        }
    }

    /// The JSON schema of its arguments.
    #[must_use]
    pub fn arguments_schema(self) -> Map<String, Value> {
        match self {
            Self::CreateWorkspace => arguments::schema::<CreateWorkspace>(),
            Self::StartWorkspace => arguments::schema::<StartWorkspace>(),
        }
    }

    /// The JSON schema of its structured replies.
    #[must_use]
    pub fn reply_schema(self) -> Map<String, Value> {
        match self {
            Self::CreateWorkspace => reply::schema::<CreateWorkspaceReply>(),
            Self::StartWorkspace => reply::schema::<StartWorkspaceReply>(),
        }
    }
}

/// How long the tools wait for what (domain: chat tools).
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For a build.
    pub build_timeout: Duration,
    /// For the first connection to an agent, in all.
    pub agent_connect_timeout: Duration,
    /// From one attempt to connect to the next.
    pub agent_retry_interval: Duration,
    /// For one attempt to connect.
    pub agent_attempt_timeout: Duration,
    /// For the start-up scripts of an agent.
    pub startup_timeout: Duration,
    /// From one look at the start-up scripts to the next: nobody announces how they stand.
    pub startup_poll_interval: Duration,
    /// After so much silence an agent no longer counts as connected (domain: agents).
    pub agent_inactive_timeout: Duration,
    /// For the numbers in the reply of a build that was over quota; without them the reply goes out then.
    pub quota_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            build_timeout: Duration::from_mins(10),
            agent_connect_timeout: Duration::from_mins(2),
            agent_retry_interval: Duration::from_secs(2),
            agent_attempt_timeout: Duration::from_secs(5),
            startup_timeout: Duration::from_mins(10),
            startup_poll_interval: Duration::from_secs(2),
            agent_inactive_timeout: Duration::from_secs(30),
            quota_timeout: Duration::from_secs(5),
        }
    }
}

/// An error of somebody else.
pub type ForeignError = Box<dyn std::error::Error + Send + Sync>;

/// How to connect to an agent.
pub trait Connector: Send + Sync {
    /// Connects to the agent. The connection is dropped at once: that there is one is all that matters.
    fn connect(&self, agent: WorkspaceAgentId) -> BoxFuture<'_, Result<Box<dyn Send>, ForeignError>>;
}

/// Whom to tell that the chat has changed.
pub type OnChatUpdated = Arc<dyn Fn(&Chat) + Send + Sync>;

/// The templates that chats may use at the moment; none for all of them.
pub type AllowedTemplates = Arc<dyn Fn() -> Vec<TemplateId> + Send + Sync>;

/// The tools of one chat.
pub struct Toolbox {
    pool: Pool,
    watcher: Watcher,
    chat: ChatId,
    owner: UserId,
    organization: OrganizationId,
    operations: Option<Arc<dyn Operations>>,
    connector: Option<Arc<dyn Connector>>,
    on_chat_updated: Option<OnChatUpdated>,
    allowed_templates: Option<AllowedTemplates>,
    settings: Settings,
    /// Two calls of one chat in this process take turns.
    turn: Mutex<()>,
}

impl Toolbox {
    /// The tools of the chat, which belongs to the owner in the organization. They create and start workspaces in the
    /// database of the pool; the watcher must watch the same one.
    #[must_use]
    pub fn new(pool: Pool, watcher: Watcher, chat: ChatId, owner: UserId, organization: OrganizationId) -> Self {
        let operations = DatabaseOperations::new(pool.clone(), watcher.clone());
        Self {
            pool,
            watcher,
            chat,
            owner,
            organization,
            operations: Some(Arc::new(operations)),
            connector: None,
            on_chat_updated: None,
            allowed_templates: None,
            settings: Settings::default(),
            turn: Mutex::new(()),
        }
    }

    /// With another way to create and start workspaces; `None` for no way at all.
    #[must_use]
    pub fn operations(self, operations: Option<Arc<dyn Operations>>) -> Self {
        Self { operations, ..self }
    }

    /// With a way to connect to agents. Without one, an agent need not be reached.
    #[must_use]
    pub fn connector(self, connector: Arc<dyn Connector>) -> Self {
        Self { connector: Some(connector), ..self }
    }

    /// With somebody who is told of changes of the chat.
    #[must_use]
    pub fn on_chat_updated(self, on_chat_updated: OnChatUpdated) -> Self {
        Self { on_chat_updated: Some(on_chat_updated), ..self }
    }

    /// With a list of templates that chats may use.
    #[must_use]
    pub fn allowed_templates(self, allowed_templates: AllowedTemplates) -> Self {
        Self { allowed_templates: Some(allowed_templates), ..self }
    }

    /// With other times to wait.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Calls the tool. Waits, up to the times in [`Settings`], until the workspace can be used.
    ///
    /// A call that is canceled stops waiting and says how far it came. What it began goes on: a build is not canceled, and
    /// the next call finds it. The same holds for a call that is dropped.
    pub async fn call(&self, tool: Tool, arguments: Value, cancel: &CancellationToken) -> Reply {
        match tool {
            Tool::CreateWorkspace => match arguments::parse(arguments) {
                Ok(arguments) => Reply::from_typed(self.create_workspace(&arguments, cancel).await),
                Err(error) => Reply::Error(error),
            },
            Tool::StartWorkspace => match arguments::parse(arguments) {
                Ok(arguments) => Reply::from_typed(self.start_workspace(&arguments, cancel).await),
                Err(error) => Reply::Error(error),
            },
        }
    }
}

/// Without the pool, which knows how to connect.
impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolbox").field("chat", &self.chat).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a reply says that is flagged as an error: what the call needs is not there, or something is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

impl From<String> for TextError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for TextError {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
enum Unavailable {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

impl From<crate::authz::Denied> for Unavailable {
    fn from(denied: crate::authz::Denied) -> Self {
        Self::Store(denied.into())
    }
}

/// Does it again if the first time the connection was lost, or the server was about to go: what is then taken for not
/// there is replaced.
async fn twice<T, F: Future<Output = Result<T, Unavailable>>>(once: impl Fn() -> F) -> Result<T, Unavailable> {
    match once().await {
        Err(Unavailable::Store(error)) if error.is_retryable() => once().await,
        done => done,
    }
}

/// For a caller who is gone already, nothing is begun.
fn begin(cancel: &CancellationToken) -> Result<(), TextError> {
    if cancel.is_cancelled() { Err(CANCELED.into()) } else { Ok(()) }
}

/// Who acts where nothing is done in the name of the owner.
fn chat_daemon() -> Actor {
    Actor::system(System::ChatDaemon)
}

/// What both tools do. No connection is held from one of these to the next.
impl Toolbox {
    async fn take_turn(&self, cancel: &CancellationToken) -> Result<MutexGuard<'_, ()>, TextError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CANCELED.into()),
            turn = self.turn.lock() => Ok(turn),
        }
    }

    /// The owner, with the roles of the moment.
    async fn load_owner(&self) -> Result<Actor, TextError> {
        let load = || async {
            let permit = LoadActors::check(&chat_daemon())?;
            Ok::<_, Unavailable>(store::actors::load(&mut *self.pool.get().await?, &permit, self.owner).await?)
        };
        match twice(load).await {
            Ok(owner) => Ok(owner),
            Err(error) => Err(match self.why_inactive().await {
                Some(why) => why,
                None => format!("load user authorization: {error}"),
            }
            .into()),
        }
    }

    /// Why nobody can act for the owner, if it is the owner's state.
    async fn why_inactive(&self) -> Option<String> {
        let look = || async {
            let permit = ReadUsers::check(&chat_daemon())?;
            Ok::<_, Unavailable>(store::users::get(&mut *self.pool.get().await?, &permit, self.owner).await?)
        };
        let owner = look().await.ok()?;
        let why = owner.inactive()?;
        Some(format!("{}, who owns this chat, is {why}: {INACTIVE}", owner.username))
    }

    async fn load_chat(&self, who: &Actor) -> Result<Chat, Unavailable> {
        let permit = UseChats::check(who)?;
        twice(|| async { Ok(store::chats::get(&mut *self.pool.get().await?, &permit, self.chat).await?) }).await
    }

    async fn load_workspace(
        &self,
        who: &Actor,
        organization: OrganizationId,
        id: WorkspaceId,
    ) -> Result<Workspace, Unavailable> {
        let permit = ReadWorkspaces::check(who, organization)?;
        twice(|| async { Ok(store::workspaces::get(&mut *self.pool.get().await?, &permit, id).await?) }).await
    }

    async fn latest_build(&self, who: &Actor, workspace: &Workspace) -> Result<WorkspaceBuild, Unavailable> {
        let permit = ReadWorkspaces::check(who, workspace.organization_id)?;
        let look = || async { Ok(store::builds::latest(&mut *self.pool.get().await?, &permit, workspace.id).await?) };
        let build = twice(look).await?;
        Ok(build.ok_or_else(|| store::Error::not_found(Entity::BuildOfWorkspace, workspace.id))?)
    }

    /// Binds the chat to the workspace and its build, as well as it can.
    async fn publish(&self, who: &Actor, workspace: WorkspaceId, build: Option<WorkspaceBuildId>) {
        let binding = ChatBinding { workspace_id: Some(workspace), build_id: build, agent_id: None };
        let bind = || async {
            let permit = UseChats::check(who)?;
            Ok::<_, Unavailable>(store::chats::bind(&mut *self.pool.get().await?, &permit, self.chat, binding).await?)
        };
        match twice(bind).await {
            Ok(chat) => self.tell(&chat),
            Err(error) => {
                tracing::warn!(name: "tools.bind_failed", chat = %self.chat, error = %error, "cannot bind the chat");
            }
        }
    }

    /// Tells of the chat as it is now, if it can be read and there is somebody to tell.
    async fn refresh(&self, who: &Actor) {
        if self.on_chat_updated.is_some()
            && let Ok(chat) = self.load_chat(who).await
        {
            self.tell(&chat);
        }
    }

    fn tell(&self, chat: &Chat) {
        if let Some(on_chat_updated) = &self.on_chat_updated {
            on_chat_updated(chat);
        }
    }
}
