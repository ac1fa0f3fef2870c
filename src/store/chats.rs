//! Chats (domain: chats), as far as their tools need them.

use sqlx::PgConnection;

use super::{Error, Result, Timestamp, input, query::Query as _};
use crate::{
    authz::UseChats,
    model::{
        Chat, ChatBinding, ChatId, Entity, OrganizationId, UserId, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId,
    },
};

/// The chat with this id (domain: chats). One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach its owner.
#[tracing::instrument(name = "db.chats.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &UseChats, id: ChatId) -> Result<Chat> {
    sqlx::query_file_as!(ChatRow, "queries/chats/get.sql", id.0, permit.owner().map(|owner| owner.0))
        .fetch_optional(conn)
        .of_query("chats/get")
        .await?
        .map(Chat::from)
        .ok_or_else(|| Error::not_found(Entity::Chat, id))
}

/// The chat with this id, locked until the caller's transaction ends, so that its workspace cannot be changed
/// meanwhile. One round trip; waits for the lock of the row.
///
/// # Errors
/// As [`get`].
#[tracing::instrument(name = "db.chats.get_with_lock", skip_all)]
pub async fn get_with_lock(conn: &mut PgConnection, permit: &UseChats, id: ChatId) -> Result<Chat> {
    sqlx::query_file_as!(ChatRow, "queries/chats/get_with_lock.sql", id.0, permit.owner().map(|owner| owner.0))
        .fetch_optional(conn)
        .of_query("chats/get_with_lock")
        .await?
        .map(Chat::from)
        .ok_or_else(|| Error::not_found(Entity::Chat, id))
}

/// Overwrites what the chat works with, workspace, build and agent at once; `None` clears (domain: chats). Returns the
/// chat as it is now; `updated_at` is the time of the database. One round trip; locks the row of the chat.
///
/// # Errors
/// [`Error::NotFound`] when there is no such chat, the permit does not reach its owner, or the workspace, build or agent
/// is not there or belongs to another owner or organization than the chat.
#[tracing::instrument(name = "db.chats.bind", skip_all)]
pub async fn bind(conn: &mut PgConnection, permit: &UseChats, id: ChatId, binding: ChatBinding) -> Result<Chat> {
    sqlx::query_file_as!(
        ChatRow,
        "queries/chats/bind.sql",
        id.0,
        permit.owner().map(|owner| owner.0),
        binding.workspace_id.map(|workspace| workspace.0),
        binding.build_id.map(|build| build.0),
        binding.agent_id.map(|agent| agent.0)
    )
    .fetch_optional(conn)
    .in_span("chats/bind")
    .await
    .or_else(gone_meanwhile)
    .map_err(|e| Error::from_sqlx("chats/bind", e))?
    .map(Chat::from)
    .ok_or_else(|| not_bound(id))
}

/// Overwrites which build and agent the chat works with, once the agent is known; `None` clears (domain: chats).
/// Returns the chat as it is now; `updated_at` is the time of the database. One round trip; locks the row of the chat.
///
/// # Errors
/// [`Error::NotFound`] when there is no such chat, the permit does not reach its owner, or the build or agent is not
/// there or belongs to another owner or organization than the chat.
#[tracing::instrument(name = "db.chats.bind_build_agent", skip_all)]
pub async fn bind_build_agent(
    conn: &mut PgConnection,
    permit: &UseChats,
    id: ChatId,
    build: Option<WorkspaceBuildId>,
    agent: Option<WorkspaceAgentId>,
) -> Result<Chat> {
    sqlx::query_file_as!(
        ChatRow,
        "queries/chats/bind_build_agent.sql",
        id.0,
        permit.owner().map(|owner| owner.0),
        build.map(|build| build.0),
        agent.map(|agent| agent.0)
    )
    .fetch_optional(conn)
    .in_span("chats/bind_build_agent")
    .await
    .or_else(gone_meanwhile)
    .map_err(|e| Error::from_sqlx("chats/bind_build_agent", e))?
    .map(Chat::from)
    .ok_or_else(|| not_bound(id))
}

/// What is bound may be deleted between the look at it and the write; then it is not there.
fn gone_meanwhile(error: sqlx::Error) -> sqlx::Result<Option<ChatRow>> {
    match input::constraint(&error) {
        Some("chats_workspace_id_fkey" | "chats_build_id_fkey" | "chats_agent_id_fkey") => Ok(None),
        _ => Err(error),
    }
}

/// One text for all reasons: it must not tell which of the ids belongs to another user.
fn not_bound(id: ChatId) -> Error {
    Error::not_found(Entity::ChatOrItsWork, id)
}

struct ChatRow {
    id: ChatId,
    owner_id: UserId,
    organization_id: OrganizationId,
    workspace_id: Option<WorkspaceId>,
    build_id: Option<WorkspaceBuildId>,
    agent_id: Option<WorkspaceAgentId>,
    updated_at: Timestamp,
}

impl From<ChatRow> for Chat {
    fn from(row: ChatRow) -> Self {
        Self {
            id: row.id,
            owner_id: row.owner_id,
            organization_id: row.organization_id,
            binding: ChatBinding { workspace_id: row.workspace_id, build_id: row.build_id, agent_id: row.agent_id },
            updated_at: row.updated_at.0,
        }
    }
}
