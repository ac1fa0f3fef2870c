//! Chats, as far as their tools need them.

use serde::Serialize;
use time::OffsetDateTime;

use super::{ChatId, OrganizationId, UserId, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId};

/// A chat (domain: chats).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chat {
    /// The primary key.
    pub id: ChatId,
    /// Who talks; the tools of the chat act as this user.
    pub owner_id: UserId,
    /// Where.
    pub organization_id: OrganizationId,
    /// What it works with.
    #[serde(flatten)]
    pub binding: ChatBinding,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What a chat works with; the default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ChatBinding {
    /// The workspace; `None` before there is one, and after it was destroyed.
    pub workspace_id: Option<WorkspaceId>,
    /// The build that the chat waits for or works on.
    pub build_id: Option<WorkspaceBuildId>,
    /// The agent that runs the chat's commands.
    pub agent_id: Option<WorkspaceAgentId>,
}
