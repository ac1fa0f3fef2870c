//! Agents of workspaces (domain: agents; log cap).

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Result, Text, Timestamp, input, job_logs::LIMIT, query::Query as _};
use crate::{
    authz::{ActAsAgent, ReadWorkspaces},
    model::{
        AgentLifecycle, AgentLifecycleState, AgentLog, AgentLogLine, Append, Entity, Label, LogLevel, LogSourceId,
        WorkspaceAgent, WorkspaceAgentId, WorkspaceId,
    },
};

struct AgentRow {
    id: WorkspaceAgentId,
    parent_id: Option<WorkspaceAgentId>,
    name: Text,
    created_at: Timestamp,
    first_connected_at: Option<Timestamp>,
    last_connected_at: Option<Timestamp>,
    disconnected_at: Option<Timestamp>,
    connection_timeout_seconds: i32,
    lifecycle_state: Label<AgentLifecycle>,
    started_at: Option<Timestamp>,
    ready_at: Option<Timestamp>,
    operating_system: Text,
    architecture: Text,
    expanded_directory: Text,
    display_order: i32,
    logs_length: i32,
    logs_overflowed: bool,
}

impl From<AgentRow> for WorkspaceAgent {
    fn from(row: AgentRow) -> Self {
        Self {
            id: row.id,
            parent_id: row.parent_id,
            name: row.name.0,
            created_at: row.created_at.0,
            first_connected_at: row.first_connected_at.map(|at| at.0),
            last_connected_at: row.last_connected_at.map(|at| at.0),
            disconnected_at: row.disconnected_at.map(|at| at.0),
            connection_timeout_seconds: row.connection_timeout_seconds,
            lifecycle_state: row.lifecycle_state,
            started_at: row.started_at.map(|at| at.0),
            ready_at: row.ready_at.map(|at| at.0),
            operating_system: row.operating_system.0,
            architecture: row.architecture.0,
            expanded_directory: row.expanded_directory.0,
            display_order: row.display_order,
            logs_length: row.logs_length,
            logs_overflowed: row.logs_overflowed,
        }
    }
}

/// The agents of the workspace's newest build, sub-agents included and deleted ones left out, in the order in which one
/// of them is chosen (domain: agent choice); empty when there is none where the permit reaches. One round trip.
#[tracing::instrument(name = "db.agents.in_latest_build", skip_all)]
pub async fn in_latest_build(
    conn: &mut PgConnection,
    permit: &ReadWorkspaces,
    workspace: WorkspaceId,
) -> Result<Vec<WorkspaceAgent>> {
    let owner = permit.owner().map(|owner| owner.0);
    sqlx::query_file_as!(AgentRow, "queries/agents/in_latest_build.sql", permit.organization().0, owner, workspace.0)
        .fetch_all(conn)
        .of_query("agents/in_latest_build")
        .await
        .map(|rows| rows.into_iter().map(Into::into).collect())
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
        .of_query("agents/lifecycle")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Agent, id))?;
    Ok(AgentLifecycleState {
        state: row.lifecycle_state,
        started_at: row.started_at.map(|at| at.0),
        ready_at: row.ready_at.map(|at| at.0),
    })
}

/// The last line of logs of an agent that overflow.
pub const OVERFLOW_MESSAGE: &str = "Startup logs exceeded the max size of 1MB, and will not continue to be written to the database! Logs will \
     continue to be written to the /tmp/coder-startup-script.log file in the workspace.";

/// Appends lines to the logs of the agent, in their order, up to [`LIMIT`] bytes of output in all, as
/// [`job_logs::append`](super::job_logs::append) does; the line that would overflow becomes the warning
/// [`OVERFLOW_MESSAGE`], and what follows is dropped (domain: log cap; last line of agent logs).
///
/// A NUL is stored as `\0`, and where the encoding of the database lacks a character, all that is not ASCII as `?`;
/// what is stored counts. An output is cut off after 1,024 characters; all of its bytes count. Lines without a source
/// are those of [`LogSourceId::EXTERNAL`]. Asked again, it appends again. One round trip; locks the agent, and waits
/// for another append to it.
///
/// # Errors
/// [`Error::NotFound`] when there is no such agent, or it is deleted; [`Error::Invalid`] for a time that cannot be read
/// again.
#[tracing::instrument(name = "db.agents.append_logs", skip_all)]
pub async fn append_logs(
    conn: &mut PgConnection,
    permit: &ActAsAgent,
    lines: &[AgentLogLine],
    source: Option<LogSourceId>,
    now: OffsetDateTime,
) -> Result<Append> {
    let now = input::time("now", now)?;
    let mut answer = append_logs_once(conn, permit, lines, source, now, input::visible).await;
    if answer.as_ref().is_err_and(input::is_untranslatable) && !conn.is_in_transaction() {
        answer = append_logs_once(conn, permit, lines, source, now, input::visible_in_ascii).await;
    }
    let row = answer
        .map_err(|e| Error::from_sqlx("agents/append_logs", e))?
        .ok_or_else(|| Error::not_found(Entity::Agent, permit.agent()))?;
    Append::from_row("agents/append_logs", &row.outcome, row.first_id, row.lines)
}

struct AppendRow {
    outcome: String,
    first_id: Option<i64>,
    lines: i64,
}

async fn append_logs_once(
    conn: &mut PgConnection,
    permit: &ActAsAgent,
    lines: &[AgentLogLine],
    source: Option<LogSourceId>,
    now: Timestamp,
    storable: fn(&str) -> String,
) -> sqlx::Result<Option<AppendRow>> {
    let outputs: Vec<String> = lines.iter().map(|line| storable(&line.output)).collect();
    let levels: Vec<String> = lines.iter().map(|line| line.level.to_string()).collect();
    sqlx::query_file_as!(
        AppendRow,
        "queries/agents/append_logs.sql",
        permit.agent().0,
        &outputs,
        &levels,
        source.unwrap_or(LogSourceId::EXTERNAL).0,
        now as _,
        OVERFLOW_MESSAGE,
        LIMIT,
    )
    .fetch_optional(conn)
    .in_span("agents/append_logs")
    .await
}

/// Says of the log of an agent whether it overflowed. One round trip; locks the agent.
///
/// # Errors
/// [`Error::NotFound`] when there is no such agent, or it is deleted.
#[tracing::instrument(name = "db.agents.update_logs_overflowed", skip_all)]
pub async fn update_logs_overflowed(conn: &mut PgConnection, permit: &ActAsAgent, overflowed: bool) -> Result<()> {
    let done = sqlx::query_file!("queries/agents/update_logs_overflowed.sql", permit.agent().0, overflowed)
        .execute(conn)
        .of_query("agents/update_logs_overflowed")
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::not_found(Entity::Agent, permit.agent())) }
}

struct LogRow {
    id: Option<i64>,
    created_at: Option<Timestamp>,
    level: Option<Label<LogLevel>>,
    output: Option<Text>,
    log_source_id: Option<Uuid>,
}

impl LogRow {
    fn log(self) -> Option<AgentLog> {
        Some(AgentLog {
            id: self.id?,
            created_at: self.created_at?.0,
            line: AgentLogLine { level: self.level?, output: self.output?.0 },
            source: LogSourceId(self.log_source_id?),
        })
    }
}

/// The log lines of an agent with an id above `after`, oldest first; 0 for all of them. One round trip, no locks.
///
/// # Errors
/// [`Error::NotFound`] when there is no such agent where the permit reaches.
#[tracing::instrument(name = "db.agents.logs_after", skip_all)]
pub async fn logs_after(
    conn: &mut PgConnection,
    permit: &ReadWorkspaces,
    id: WorkspaceAgentId,
    after: i64,
) -> Result<Vec<AgentLog>> {
    let (organization, owner) = (permit.organization().0, permit.owner().map(|owner| owner.0));
    let rows = sqlx::query_file_as!(LogRow, "queries/agents/logs_after.sql", organization, owner, id.0, after)
        .fetch_all(conn)
        .of_query("agents/logs_after")
        .await?;
    if rows.is_empty() {
        return Err(Error::not_found(Entity::Agent, id));
    }
    Ok(rows.into_iter().filter_map(LogRow::log).collect())
}
