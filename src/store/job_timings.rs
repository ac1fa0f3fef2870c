//! How long the steps of jobs took (domain: timings).

use sqlx::{Connection, PgConnection};

use super::{Error, Result, Text, Timestamp, input, query::Query as _};
use crate::{
    authz::{ReadJobLogs, RunJobs},
    model::{ByWorker, Entity, JobId, JobTiming, Label, TimingStage},
};

/// Stores timings of a job of the daemon's, but for those that are stored already, and says how many; also when the job has
/// ended by now. What their texts have that cannot be stored is replaced as by
/// [`job_logs::append`](super::job_logs::append). One round trip; keeps the job from being deleted.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or it belongs to another organization; [`Error::Invalid`] for
/// times that cannot be read again, and a step that ends before it begins.
#[tracing::instrument(name = "db.job_timings.insert", skip_all)]
pub async fn insert(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    timings: &[JobTiming],
) -> Result<ByWorker<i64>> {
    for timing in timings {
        input::time("started_at", timing.started_at)?;
        input::time("ended_at", timing.ended_at)?;
        if timing.ended_at < timing.started_at {
            return Err(Error::Invalid { field: "ended_at", expected: "a time that is not before started_at" });
        }
    }
    let mut answer = insert_once(conn, permit, id, timings, input::visible).await;
    if answer.as_ref().is_err_and(input::is_untranslatable) && !conn.is_in_transaction() {
        answer = insert_once(conn, permit, id, timings, input::visible_in_ascii).await;
    }
    let row = answer
        .map_err(|e| Error::from_sqlx("job_timings/insert", e))?
        .ok_or_else(|| Error::not_found(Entity::Job, id))?;
    Ok(match row.outcome.as_str() {
        "not_running_yet" => ByWorker::NotRunningYet,
        "other_owner" => ByWorker::OtherOwner,
        "done" => ByWorker::Done(row.inserted),
        other => return Err(Error::unknown_outcome("job_timings/insert", other)),
    })
}

struct InsertRow {
    outcome: String,
    inserted: i64,
}

async fn insert_once(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    timings: &[JobTiming],
    storable: fn(&str) -> String,
) -> sqlx::Result<Option<InsertRow>> {
    let started_at: Vec<_> = timings.iter().map(|timing| timing.started_at).collect();
    let ended_at: Vec<_> = timings.iter().map(|timing| timing.ended_at).collect();
    let texts = |text: fn(&JobTiming) -> &str| timings.iter().map(|t| storable(text(t))).collect::<Vec<_>>();
    sqlx::query_file_as!(
        InsertRow,
        "queries/job_timings/insert.sql",
        id.0,
        permit.organization().0,
        permit.daemon().0,
        &started_at as _,
        &ended_at as _,
        &texts(|timing| timing.stage.as_str()),
        &texts(|timing| &timing.source),
        &texts(|timing| &timing.action),
        &texts(|timing| &timing.resource),
    )
    .fetch_optional(conn)
    .in_span("job_timings/insert")
    .await
}

struct TimingRow {
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    stage: Option<Label<TimingStage>>,
    source: Option<Text>,
    action: Option<Text>,
    resource: Option<Text>,
}

impl TimingRow {
    fn timing(self) -> Option<JobTiming<Label<TimingStage>>> {
        Some(JobTiming {
            started_at: self.started_at?.0,
            ended_at: self.ended_at?.0,
            stage: self.stage?,
            source: self.source?.0,
            action: self.action?.0,
            resource: self.resource?.0,
        })
    }
}

/// The timings of a job, by their start. One round trip, no locks.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or the permit does not reach it.
#[tracing::instrument(name = "db.job_timings.list", skip_all)]
pub async fn list(
    conn: &mut PgConnection,
    permit: &ReadJobLogs,
    id: JobId,
) -> Result<Vec<JobTiming<Label<TimingStage>>>> {
    let owner = permit.owner().map(|owner| owner.0);
    let (organization, imports) = (permit.organization().0, permit.imports());
    let rows = sqlx::query_file_as!(TimingRow, "queries/job_timings/list.sql", id.0, organization, owner, imports)
        .fetch_all(conn)
        .of_query("job_timings/list")
        .await?;
    if rows.is_empty() {
        return Err(Error::not_found(Entity::Job, id));
    }
    Ok(rows.into_iter().filter_map(TimingRow::timing).collect())
}
