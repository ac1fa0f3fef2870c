//! Agents of workspaces (domain 4.19, 4.20, 7.3).

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, Timestamp};
use crate::{
    authz::{BuildWorkspaces, ReadWorkspaces},
    model::{
        AgentLifecycle, AgentLifecycleState, AgentLogLine, AppendOutcome, LogSourceId, WorkspaceAgent,
        WorkspaceAgentId, WorkspaceId,
    },
};

struct AgentRow {
    id: WorkspaceAgentId,
    parent_id: Option<WorkspaceAgentId>,
    name: String,
    created_at: Timestamp,
    first_connected_at: Option<Timestamp>,
    last_connected_at: Option<Timestamp>,
    disconnected_at: Option<Timestamp>,
    connection_timeout_seconds: i32,
    lifecycle_state: AgentLifecycle,
    started_at: Option<Timestamp>,
    ready_at: Option<Timestamp>,
    operating_system: String,
    architecture: String,
    expanded_directory: String,
    display_order: i32,
    logs_length: i32,
    logs_overflowed: bool,
}

impl From<AgentRow> for WorkspaceAgent {
    fn from(row: AgentRow) -> Self {
        Self {
            id: row.id,
            parent_id: row.parent_id,
            name: row.name,
            created_at: row.created_at.0,
            first_connected_at: row.first_connected_at.map(|at| at.0),
            last_connected_at: row.last_connected_at.map(|at| at.0),
            disconnected_at: row.disconnected_at.map(|at| at.0),
            connection_timeout_seconds: row.connection_timeout_seconds,
            lifecycle_state: row.lifecycle_state,
            started_at: row.started_at.map(|at| at.0),
            ready_at: row.ready_at.map(|at| at.0),
            operating_system: row.operating_system,
            architecture: row.architecture,
            expanded_directory: row.expanded_directory,
            display_order: row.display_order,
            logs_length: row.logs_length,
            logs_overflowed: row.logs_overflowed,
        }
    }
}

/// The agents of the workspace's newest build, sub-agents included and deleted ones left out, in the order in which one
/// of them is chosen (domain 15, decision 13); empty when there is none where the permit reaches. One round trip.
#[tracing::instrument(name = "db.agents.in_latest_build", skip_all)]
pub async fn in_latest_build(
    conn: &mut PgConnection,
    permit: &ReadWorkspaces,
    workspace: WorkspaceId,
) -> Result<Vec<WorkspaceAgent>> {
    let owner = permit.owner().map(|owner| owner.0);
    sqlx::query_file_as!(AgentRow, "queries/agents/in_latest_build.sql", permit.organization().0, owner, workspace.0)
        .fetch_all(conn)
        .await
        .map(|rows| rows.into_iter().map(Into::into).collect())
        .map_err(|e| Error::from_sqlx("agents/in_latest_build", e))
}

/// Where the start-up or the shutdown of the agent stands. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is no such agent where the permit reaches.
#[tracing::instrument(name = "db.agents.lifecycle", skip_all)]
pub async fn lifecycle(
    conn: &mut PgConnection,
    permit: &ReadWorkspaces,
    id: WorkspaceAgentId,
) -> Result<AgentLifecycleState> {
    let owner = permit.owner().map(|owner| owner.0);
    let row = sqlx::query_file!("queries/agents/lifecycle.sql", permit.organization().0, owner, id.0)
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("agents/lifecycle", e))?
        .ok_or_else(|| Error::not_found("workspace agent", id))?;
    Ok(AgentLifecycleState {
        state: row.lifecycle_state,
        started_at: row.started_at.map(|at| at.0),
        ready_at: row.ready_at.map(|at| at.0),
    })
}

/// Appends lines to the log of an agent, all or none. When they would make it longer than 1,048,576 bytes as stored,
/// they are dropped and the log counts as overflowed, now and for every later batch (domain 8.3).
///
/// Lines without a source are those of [`LogSourceId::EXTERNAL`]. Asked again, it appends again. One round trip, one
/// statement; waits for whoever appends to the same agent, and locks it.
///
/// # Errors
/// [`Error::NotFound`] when there is no such agent where the permit reaches; [`Error::Invalid`] for an output with a NUL
/// byte.
#[tracing::instrument(name = "db.agents.append_logs", skip_all)]
pub async fn append_logs(
    conn: &mut PgConnection,
    permit: &BuildWorkspaces,
    id: WorkspaceAgentId,
    lines: &[AgentLogLine],
    source: Option<LogSourceId>,
    now: OffsetDateTime,
) -> Result<AppendOutcome> {
    if lines.iter().any(|line| line.output.contains('\0')) {
        return Err(Error::Invalid { field: "output", expected: "a text without NUL bytes" });
    }
    let outputs: Vec<String> = lines.iter().map(|line| line.output.clone()).collect();
    let levels: Vec<String> = lines.iter().map(|line| line.level.to_string()).collect();
    let row = sqlx::query_file!(
        "queries/agents/append_logs.sql",
        permit.organization().0,
        permit.owner().map(|owner| owner.0),
        id.0,
        &outputs,
        &levels,
        source.unwrap_or(LogSourceId::EXTERNAL).0,
        Timestamp(now)
    )
    .fetch_optional(conn)
    .await
    .map_err(|e| Error::from_sqlx("agents/append_logs", e))?
    .ok_or_else(|| Error::not_found("workspace agent", id))?;
    Ok(if row.overflowed {
        AppendOutcome::Overflowed
    } else {
        AppendOutcome::Stored { after: row.first_id.map(|first| first - 1) }
    })
}

/// Says of the log of an agent whether it overflowed. One round trip; locks the agent.
///
/// # Errors
/// [`Error::NotFound`] when there is no such agent where the permit reaches.
#[tracing::instrument(name = "db.agents.update_logs_overflowed", skip_all)]
pub async fn update_logs_overflowed(
    conn: &mut PgConnection,
    permit: &BuildWorkspaces,
    id: WorkspaceAgentId,
    overflowed: bool,
) -> Result<()> {
    let (organization, owner) = (permit.organization().0, permit.owner().map(|owner| owner.0));
    let done = sqlx::query_file!("queries/agents/update_logs_overflowed.sql", organization, owner, id.0, overflowed)
        .execute(conn)
        .await
        .map_err(|e| Error::from_sqlx("agents/update_logs_overflowed", e))?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::not_found("workspace agent", id)) }
}
