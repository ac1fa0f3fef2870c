//! The tools of one chat, and what both do.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    CancellationToken, DatabaseOperations, ForeignError, Operations, Reply, Settings, TextError, Tool, arguments,
    error::{Unavailable, twice},
};
use crate::{
    authz::{Actor, LoadActors, ReadUsers, ReadWorkspaces, System, UseChats},
    model::{
        Chat, ChatBinding, ChatId, Entity, OrganizationId, TemplateId, UserId, Workspace, WorkspaceAgentId,
        WorkspaceBuild, WorkspaceBuildId, WorkspaceId,
    },
    pool::Pool,
    store,
    watch::Watcher,
};

/// What to do where the owner of a chat may do nothing.
pub(crate) const INACTIVE: &str = "nobody can act for this user; activate the user, or use another chat";

/// How often a tool reads again because the chat or its workspace changed meanwhile.
pub(super) const MAX_LOOKS: usize = 10;

const CANCELED: &str = "canceled before anything was begun";

/// How to connect to an agent.
pub trait Connector: Send + Sync {
    /// Connects to the agent. The connection is dropped at once: that there is one is all that matters.
    fn connect(&self, agent: WorkspaceAgentId) -> BoxFuture<'_, Result<Box<dyn Send>, ForeignError>>;
}

/// Called when the chat has changed.
pub type OnChatUpdated = Arc<dyn Fn(&Chat) + Send + Sync>;

/// The templates that chats may use at the moment; none for all of them.
pub type AllowedTemplates = Arc<dyn Fn() -> Vec<TemplateId> + Send + Sync>;

/// The tools of one chat.
pub struct Toolbox {
    pub(super) pool: Pool,
    pub(super) watcher: Watcher,
    pub(super) chat: ChatId,
    pub(super) owner: UserId,
    pub(super) organization: OrganizationId,
    pub(super) operations: Option<Arc<dyn Operations>>,
    pub(super) connector: Option<Arc<dyn Connector>>,
    pub(super) on_chat_updated: Option<OnChatUpdated>,
    pub(super) allowed_templates: Option<AllowedTemplates>,
    pub(super) settings: Settings,
    /// Two calls of one chat in this process take turns.
    pub(super) turn: Mutex<()>,
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

    /// With a callback for changes of the chat.
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
    /// A call that is canceled stops waiting and says how far it came. What it began goes on: a build is not canceled,
    /// and the next call finds it. The same holds for a call that is dropped.
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

/// For a caller who is gone already, nothing is begun.
pub(super) fn begin(cancel: &CancellationToken) -> Result<(), TextError> {
    if cancel.is_cancelled() { Err(CANCELED.into()) } else { Ok(()) }
}

/// Who acts where nothing is done in the name of the owner.
pub(super) fn chat_daemon() -> Actor {
    Actor::system(System::ChatDaemon)
}

/// What both tools do. No connection is held from one of these to the next.
impl Toolbox {
    pub(super) async fn take_turn(&self, cancel: &CancellationToken) -> Result<MutexGuard<'_, ()>, TextError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CANCELED.into()),
            turn = self.turn.lock() => Ok(turn),
        }
    }

    /// The owner, with the roles of the moment.
    pub(super) async fn load_owner(&self) -> Result<Actor, TextError> {
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

    /// Why the owner cannot act, if it is because of the owner's state.
    pub(super) async fn why_inactive(&self) -> Option<String> {
        let look = || async {
            let permit = ReadUsers::check(&chat_daemon())?;
            Ok::<_, Unavailable>(store::users::get(&mut *self.pool.get().await?, &permit, self.owner).await?)
        };
        let owner = look().await.ok()?;
        let why = owner.inactive()?;
        Some(format!("{}, who owns this chat, is {why}: {INACTIVE}", owner.username))
    }

    pub(super) async fn load_chat(&self, who: &Actor) -> Result<Chat, Unavailable> {
        let permit = UseChats::check(who)?;
        twice(|| async { Ok(store::chats::get(&mut *self.pool.get().await?, &permit, self.chat).await?) }).await
    }

    pub(super) async fn load_workspace(
        &self,
        who: &Actor,
        organization: OrganizationId,
        id: WorkspaceId,
    ) -> Result<Workspace, Unavailable> {
        let permit = ReadWorkspaces::check(who, organization)?;
        twice(|| async { Ok(store::workspaces::get(&mut *self.pool.get().await?, &permit, id).await?) }).await
    }

    pub(super) async fn latest_build(&self, who: &Actor, workspace: &Workspace) -> Result<WorkspaceBuild, Unavailable> {
        let permit = ReadWorkspaces::check(who, workspace.organization_id)?;
        let look = || async { Ok(store::builds::latest(&mut *self.pool.get().await?, &permit, workspace.id).await?) };
        let build = twice(look).await?;
        Ok(build.ok_or_else(|| store::Error::not_found(Entity::BuildOfWorkspace, workspace.id))?)
    }

    /// Binds the chat to the workspace and its build, as well as it can.
    pub(super) async fn publish(&self, who: &Actor, workspace: WorkspaceId, build: Option<WorkspaceBuildId>) {
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

    /// Reads the chat and passes it to the callback, if there is one and the chat can be read.
    pub(super) async fn refresh(&self, who: &Actor) {
        if self.on_chat_updated.is_some()
            && let Ok(chat) = self.load_chat(who).await
        {
            self.tell(&chat);
        }
    }

    pub(super) fn tell(&self, chat: &Chat) {
        if let Some(on_chat_updated) = &self.on_chat_updated {
            on_chat_updated(chat);
        }
    }
}
