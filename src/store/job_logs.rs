//! The logs of jobs, and their cap (domain: job logs; log cap).

use sqlx::{Connection, PgConnection};

use super::{Error, Result, Text, Timestamp, input, query::Query as _};
use crate::{
    authz::{PruneJobs, ReadJobLogs, RunJobs},
    model::{Append, ByWorker, Entity, JobId, JobLog, Label, LogLevel, LogSource, NewJobLog},
};

/// How many bytes of output a job or an agent may log, the last line included.
pub const LIMIT: i32 = 1_048_576;

/// The last line of logs that overflow.
pub const OVERFLOW_MESSAGE: &str =
    "Provisioner logs exceeded the max size of 1MB. Will not continue to write provisioner logs for workspace build.";

/// Appends lines to the logs of a job of the daemon's, in their order, up to [`LIMIT`] bytes of output in all; the line
/// that would overflow becomes the warning [`OVERFLOW_MESSAGE`], and what follows is dropped (domain: log cap).
///
/// A NUL is stored as `\0`, and where the encoding of the database lacks a character, all that is not ASCII as `?`; what is
/// stored counts. A stage is cut off after 128 characters, an output after 1,024; all of its bytes count. Asked again, it
/// appends again. One round trip; locks the job, so that two appenders at the cap cannot both find room.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or it belongs to another organization; [`Error::Invalid`] for times that
/// cannot be read again.
#[tracing::instrument(name = "db.job_logs.append", skip_all)]
pub async fn append(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    lines: &[NewJobLog],
) -> Result<ByWorker<Append>> {
    for line in lines {
        input::time("created_at", line.created_at)?;
    }
    let mut answer = append_once(conn, permit, id, lines, input::visible).await;
    if answer.as_ref().is_err_and(input::is_untranslatable) && !conn.is_in_transaction() {
        answer = append_once(conn, permit, id, lines, input::visible_in_ascii).await;
    }
    let row =
        answer.map_err(|e| Error::from_sqlx("job_logs/append", e))?.ok_or_else(|| Error::not_found(Entity::Job, id))?;
    if matches!(row.outcome.as_str(), "appended" | "overflowed") {
        let stored = usize::try_from(row.lines).unwrap_or_default();
        super::count("coderdb_job_log_bytes_total", lines.iter().take(stored).map(|line| line.output.len()).sum());
    }
    Ok(match row.outcome.as_str() {
        "not_running_yet" => ByWorker::NotRunningYet,
        "other_owner" => ByWorker::OtherOwner,
        "ended" => ByWorker::Ended,
        outcome => ByWorker::Done(Append::from_row("job_logs/append", outcome, row.first_id, row.lines)?),
    })
}

struct AppendRow {
    outcome: String,
    first_id: Option<i64>,
    lines: i64,
}

async fn append_once(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    lines: &[NewJobLog],
    storable: fn(&str) -> String,
) -> sqlx::Result<Option<AppendRow>> {
    let created_at: Vec<_> = lines.iter().map(|line| line.created_at).collect();
    let texts = |text: fn(&NewJobLog) -> &str| lines.iter().map(|line| storable(text(line))).collect::<Vec<_>>();
    sqlx::query_file_as!(
        AppendRow,
        "queries/job_logs/append.sql",
        id.0,
        permit.organization().0,
        permit.daemon().0,
        &created_at as _,
        &texts(|line| line.source.as_str()),
        &texts(|line| line.level.as_str()),
        &texts(|line| &line.stage),
        &texts(|line| &line.output),
        OVERFLOW_MESSAGE,
        LIMIT,
    )
    .fetch_optional(conn)
    .in_span("job_logs/append")
    .await
}

impl Append {
    pub(super) fn from_row(query: &'static str, outcome: &str, first_id: Option<i64>, lines: i64) -> Result<Self> {
        let logs_after = first_id.map(|first| first - 1);
        Ok(match outcome {
            "dropped" => Self::Dropped,
            "refused" => Self::Full,
            "overflowed" => Self::Overflowed { logs_after: logs_after.unwrap_or_default(), lines },
            "appended" => Self::Stored { logs_after },
            other => return Err(Error::unknown_outcome(query, other)),
        })
    }
}

struct LogRow {
    id: Option<i64>,
    created_at: Option<Timestamp>,
    source: Option<Label<LogSource>>,
    level: Option<Label<LogLevel>>,
    stage: Option<Text>,
    output: Option<Text>,
}

impl LogRow {
    fn log(self) -> Option<JobLog> {
        Some(JobLog {
            id: self.id?,
            created_at: self.created_at?.0,
            source: self.source?,
            level: self.level?,
            stage: self.stage?.0,
            output: self.output?.0,
        })
    }
}

/// The log lines of a job with an id above `after`, oldest first; 0 for all of them (domain: job logs). One round trip,
/// no locks.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or the permit does not reach it.
#[tracing::instrument(name = "db.job_logs.after", skip_all)]
pub async fn after(conn: &mut PgConnection, permit: &ReadJobLogs, id: JobId, after: i64) -> Result<Vec<JobLog>> {
    let owner = permit.owner().map(|owner| owner.0);
    let (organization, imports) = (permit.organization().0, permit.imports());
    let rows = sqlx::query_file_as!(LogRow, "queries/job_logs/after.sql", id.0, organization, after, owner, imports)
        .fetch_all(conn)
        .of_query("job_logs/after")
        .await?;
    if rows.is_empty() {
        return Err(Error::not_found(Entity::Job, id));
    }
    Ok(rows.into_iter().filter_map(LogRow::log).collect())
}

/// Deletes at most `limit` lines of these jobs, of those that have ended (domain: pruning). Returns how many it deleted, and
/// whether there may be more. One round trip; locks the lines.
#[tracing::instrument(name = "db.job_logs.prune", skip_all)]
pub async fn prune(conn: &mut PgConnection, permit: &PruneJobs, jobs: &[JobId], limit: u32) -> Result<(u64, bool)> {
    let jobs: Vec<_> = jobs.iter().map(|job| job.0).collect();
    let row = sqlx::query_file!("queries/job_logs/prune.sql", permit.organization().0, &jobs, i64::from(limit))
        .fetch_optional(conn)
        .of_query("job_logs/prune")
        .await?;
    Ok(row.map_or((0, false), |row| (u64::try_from(row.deleted).unwrap_or_default(), row.is_full)))
}
