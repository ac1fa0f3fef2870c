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
mod error;
mod failure;
mod name;
mod operations;
mod reply;
mod schema;
mod settings;
mod start;
mod tool;
mod toolbox;

pub use agent::{SelectionError, choose_agent};
pub use arguments::{CreateWorkspace, StartWorkspace};
pub use database::DatabaseOperations;
pub use error::{BuildError, BuildFailed, ForeignError, TextError, error_code};
pub use operations::{
    ApiError, Created, NewChatWorkspace, OperationError, Operations, Parameter, StartChatWorkspace, Started, Validation,
};
pub use reply::{
    AgentProblem, AgentReadiness, ApiFailure, BuildFailure, CreateWorkspaceReply, CreatedReply, ErrorCode, ExistsReply,
    ExistsStatus, QuotaFailure, Reply, StartWorkspaceReply, StartedReply, StartupScripts,
};
pub use settings::Settings;
pub use tokio_util::sync::CancellationToken;
pub use tool::Tool;
pub(crate) use toolbox::INACTIVE;
pub use toolbox::{AllowedTemplates, Connector, OnChatUpdated, Toolbox};
