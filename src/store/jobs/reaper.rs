//! Ending jobs that hang, or that no daemon takes (domain: reaping).

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{
    authz::ReapJobs,
    model::{JobId, ReapOutcome, Stuck, StuckJob},
    store::{Error, Result, input, query::Query as _},
};

/// How long a job may wait for a daemon.
pub const PENDING_AFTER: Duration = Duration::from_mins(30);

/// How long the daemon of a job may be silent.
pub const HUNG_AFTER: Duration = Duration::from_mins(5);

/// How many jobs one run of the reaper takes on.
pub const REAPED_PER_RUN: u32 = 10;

/// Jobs without a sign of life for [`PENDING_AFTER`] or [`HUNG_AFTER`] before `now`, in any organization; at most
/// `limit` of them, at random, so that one that cannot be reaped does not keep others from it (domain: reaping). One
/// round trip, no locks: [`reap`] looks again.
#[tracing::instrument(name = "db.jobs.reap_candidates", skip_all)]
pub async fn reap_candidates(
    conn: &mut PgConnection,
    _permit: &ReapJobs,
    now: OffsetDateTime,
    limit: u32,
) -> Result<Vec<StuckJob>> {
    let (pending_since, hung_since) = (input::before(now, PENDING_AFTER)?, input::before(now, HUNG_AFTER)?);
    let rows = sqlx::query_file!("queries/jobs/reap_candidates.sql", pending_since, hung_since, i64::from(limit))
        .fetch_all(conn)
        .of_query("jobs/reap_candidates")
        .await?;
    let stuck = |is_pending| if is_pending { Stuck::Pending } else { Stuck::Hung };
    Ok(rows
        .into_iter()
        .map(|row| StuckJob { id: row.id, organization_id: row.organization_id, stuck: stuck(row.is_pending) })
        .collect())
}

/// Ends one job without a sign of life: five log lines, the error, and for a build without a state that of the build
/// before it, so that its resources can still be destroyed (domain: reaping). All or nothing. One round trip; locks the
/// job and its build, and never waits for the job.
#[tracing::instrument(name = "db.jobs.reap", skip_all)]
pub async fn reap(conn: &mut PgConnection, _permit: &ReapJobs, id: JobId, now: OffsetDateTime) -> Result<ReapOutcome> {
    let minutes = |threshold: Duration| i64::try_from(threshold.as_secs() / 60).unwrap_or(i64::MAX);
    let (pending_since, hung_since) = (input::before(now, PENDING_AFTER)?, input::before(now, HUNG_AFTER)?);
    let row = sqlx::query_file!(
        "queries/jobs/reap.sql",
        id.0,
        input::time("now", now)?,
        pending_since,
        minutes(PENDING_AFTER),
        hung_since,
        minutes(HUNG_AFTER),
    )
    .fetch_optional(conn)
    .of_query("jobs/reap")
    .await?;
    let Some(row) = row else { return Ok(ReapOutcome::Unavailable) };
    Ok(match (row.outcome.as_str(), row.first_log_id) {
        ("already_completed", _) => ReapOutcome::AlreadyCompleted,
        ("reaped", Some(first)) => {
            let stuck = if row.is_pending { Stuck::Pending } else { Stuck::Hung };
            ReapOutcome::Reaped { stuck, logs_after: first - 1 }
        }
        ("alive", _) => ReapOutcome::Alive,
        (other, _) => return Err(Error::unknown_outcome("jobs/reap", other)),
    })
}
