//! Deleting old jobs (domain: pruning). `crate::prune` puts the steps together.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    authz::PruneJobs,
    model::{DeadRows, JobId, OldJob},
    store::{Result, Text, Timestamp, input, query::Query as _},
};

/// Looks at the jobs after one, up to another, of those that were created before `before`; a job is named by the time of its
/// creation and its id. Deletes those that ended before it and that nothing needs, with their builds, resources, agents,
/// timings and logs. One round trip; locks the jobs it deletes, and leaves a job alone whose lock another session holds.
#[tracing::instrument(name = "db.jobs.prune", skip_all)]
pub async fn prune(
    conn: &mut PgConnection,
    permit: &PruneJobs,
    after: (OffsetDateTime, JobId),
    until: (OffsetDateTime, JobId),
    before: OffsetDateTime,
) -> Result<Vec<OldJob>> {
    look(conn, permit, (after, until), i64::MAX, before, false, false).await
}

/// The first `limit` jobs after one, oldest first, of those that were created before `before`: which of them [`prune`] would
/// delete, or with `logs_only`, whose logs would go. One round trip, no locks.
#[tracing::instrument(name = "db.jobs.prune_candidates", skip_all)]
pub async fn prune_candidates(
    conn: &mut PgConnection,
    permit: &PruneJobs,
    after: (OffsetDateTime, JobId),
    limit: u32,
    before: OffsetDateTime,
    logs_only: bool,
) -> Result<Vec<OldJob>> {
    let until = (before, JobId(Uuid::max()));
    look(conn, permit, (after, until), i64::from(limit), before, true, logs_only).await
}

async fn look(
    conn: &mut PgConnection,
    permit: &PruneJobs,
    (after, until): ((OffsetDateTime, JobId), (OffsetDateTime, JobId)),
    limit: i64,
    before: OffsetDateTime,
    is_dry: bool,
    logs_only: bool,
) -> Result<Vec<OldJob>> {
    let before = input::time("before", before)?;
    let (after, after_id) = (input::time("after", after.0)?, after.1.0);
    let (until, until_id) = (input::time("until", until.0)?, until.1.0);
    let organization = permit.organization().0;
    let rows = sqlx::query_file!(
        "queries/jobs/prune.sql",
        organization,
        after,
        after_id,
        limit,
        before,
        is_dry,
        logs_only,
        until,
        until_id
    )
    .fetch_all(conn)
    .of_query("jobs/prune")
    .await?;
    let old = rows.into_iter().map(|row| {
        let Timestamp(created_at) = row.created_at;
        OldJob { id: row.id, created_at, logs_length: row.logs_length, is_deletable: row.is_deletable }
    });
    Ok(old.collect())
}

/// A table with more than twice the dead rows that start autovacuum there, if pruning deletes from it; `None` also where
/// autovacuum is off. One round trip, no locks.
#[tracing::instrument(name = "db.jobs.dead_rows", skip_all)]
pub async fn dead_rows(conn: &mut PgConnection, _permit: &PruneJobs) -> Result<Option<DeadRows>> {
    let row = sqlx::query_file!("queries/jobs/dead_rows.sql").fetch_optional(conn).of_query("jobs/dead_rows").await?;
    Ok(row.map(|row| DeadRows { table: row.table.into(), dead_rows: row.dead_rows }))
}
