//! The interface for creating and starting workspaces.

use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;

use super::ForeignError;
use crate::{
    authz::{Actor, Denied},
    model::{
        Chat, ChatBinding, ChatId, OrganizationId, PresetId, TemplateId, TemplateVersionId, UserId, Workspace,
        WorkspaceBuildId, WorkspaceId, WorkspaceName,
    },
    pool, store,
};

/// Creates and starts the workspaces of chats, in the name of their owners.
/// [`DatabaseOperations`](super::DatabaseOperations) does it in the database; another one may ask a service.
pub trait Operations: Send + Sync {
    /// Creates a workspace and its first build, and may bind the chat to them.
    fn create<'a>(
        &'a self,
        owner: &'a Actor,
        new: &'a NewChatWorkspace,
    ) -> BoxFuture<'a, Result<Created, OperationError>>;

    /// Starts a workspace with a new build, and may bind the chat to it.
    fn start<'a>(
        &'a self,
        owner: &'a Actor,
        start: &'a StartChatWorkspace,
    ) -> BoxFuture<'a, Result<Started, OperationError>>;
}

/// A workspace to create for a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChatWorkspace {
    /// The chat.
    pub chat: ChatId,
    /// What the chat worked with when it was decided that it needs a new workspace.
    pub seen: ChatBinding,
    /// Whose it will be.
    pub owner: UserId,
    /// Where.
    pub organization: OrganizationId,
    /// What it is made from, in its active version.
    pub template: TemplateId,
    /// After how long it stops by itself; `None` for what the template says.
    pub ttl: Option<Duration>,
    /// A preset of that version.
    pub preset: Option<PresetId>,
    /// Its name.
    pub name: WorkspaceName,
    /// Values of parameters, in the order of their names.
    pub parameters: Vec<Parameter>,
}

/// A workspace to start for a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartChatWorkspace {
    /// The chat.
    pub chat: ChatId,
    /// Whose workspace it is.
    pub owner: UserId,
    /// Where.
    pub organization: OrganizationId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The newest build when it was decided that the workspace needs another one.
    pub seen: WorkspaceBuildId,
    /// Values of parameters, in the order of their names; others stay as they are.
    pub parameters: Vec<Parameter>,
}

/// A value for a parameter of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// The name of the parameter.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A workspace that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The workspace.
    pub workspace: Workspace,
    /// Its first build, if there is one by now.
    pub build: Option<WorkspaceBuildId>,
    /// The chat, if it was bound to both; else the tool binds it.
    pub chat: Option<Chat>,
}

/// A workspace that starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The build that starts it.
    pub build: WorkspaceBuildId,
    /// The version of the template that this build has.
    pub template_version: TemplateVersionId,
    /// The chat, if it was bound to the build; else the tool binds it.
    pub chat: Option<Chat>,
}

/// Why a workspace was not created or started.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// It may not be, and the agent may do something about it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The chat or the workspace may have changed meanwhile: the tool reads them again.
    #[error("the chat or its workspace has changed meanwhile")]
    Changed,
    /// It could not be done.
    #[error(transparent)]
    Other(ForeignError),
}

/// Where a connection or a race was lost, only another look can say what became of it.
impl From<store::Error> for OperationError {
    fn from(error: store::Error) -> Self {
        if error.is_retryable() { Self::Changed } else { Self::Other(error.into()) }
    }
}

impl From<pool::Error> for OperationError {
    fn from(error: pool::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<Denied> for OperationError {
    fn from(denied: Denied) -> Self {
        store::Error::from(denied).into()
    }
}

/// A refusal as an HTTP API gives it: a status, and a body for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status that it would have.
    pub status: u16,
    /// What is wrong, in a sentence; may be empty.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What is wrong with which field of the request.
    pub validations: Vec<Validation>,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Validation {
    /// The field of the request.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}
