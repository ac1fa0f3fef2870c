//! The steps of a job's life (domain: new jobs; claims; worker messages; ending a job; canceling).
//!
//! A statement that decides on a job locks its row, decides and writes at once, and returns the row also where it
//! refuses: no row can only mean that there is no such job in the scope of the permit.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::row::job_row;
use crate::{
    authz::{CancelJobs, InsertJobs, LockJobs, ReadJobs, RunJobs},
    model::{
        BuildReason, ByWorker, CancelOutcome, Capabilities, DaemonId, End, Ended, EndedBuild, Entity, ExpectedStatus,
        Failure, FileId, Heartbeat, Job, JobErrorCode, JobId, JobStatus, JobTarget, JobType, Label, NewJob,
        OrganizationId, ProvisionerType, StorageMethod, Transition, UserId, WorkspaceBuildId, WorkspaceId,
    },
    store::{Error, Result, StoredInput, StoredJson, Text, Timestamp, input, query::Query as _, quota::RejectedCommit},
};

job_row!(JobRow {});
job_row!(DecidedRow { outcome: String });
job_row!(EndedRow {
    outcome: String,
    state_kept: bool,
    build_id: Option<WorkspaceBuildId>,
    workspace_id: Option<WorkspaceId>,
    owner_id: Option<UserId>,
    reason: Option<Label<BuildReason>>,
    transition: Option<Label<Transition>>,
});

impl EndedRow {
    fn build(&self) -> Option<EndedBuild> {
        Some(EndedBuild {
            id: self.build_id?,
            workspace_id: self.workspace_id?,
            owner_id: self.owner_id?,
            reason: self.reason.clone()?,
            transition: self.transition.clone()?,
        })
    }
}

impl From<JobRow> for Job {
    fn from(mut row: JobRow) -> Self {
        row.job()
    }
}

/// Puts a job into the queue and returns it: pending, with the permit's organization, initiator and target
/// (domain: new jobs). The job of a build is put there by [`builds::create`](crate::store::builds::create). One round
/// trip.
///
/// # Errors
/// [`Error::NotFound`] when there is no such organization or it is deleted, when it has not the version to plan, or that may not be read, when the
/// version to import is another one's, or the initiator has not uploaded its source; [`Error::Conflict`] when the id is
/// taken; [`Error::Invalid`] for NUL characters, times that cannot be read again, and options that name a target.
#[tracing::instrument(name = "db.jobs.insert", skip_all)]
pub async fn insert(conn: &mut PgConnection, permit: &InsertJobs, job: NewJob) -> Result<Job> {
    let created_at = input::time("created_at", job.created_at)?;
    let version = permit.target().template_version_id();
    let (provisioner, file) = match permit.target() {
        JobTarget::Import { provisioner, file, .. } => (Some(provisioner), Some(file)),
        JobTarget::DryRun(_) => (None, None),
    };
    let input = input::job("template_version_id", version.0, &job.options)?;
    input::tags("tags", &job.tags)?;
    let tags = Value::from_iter(job.tags.0);
    job.trace_metadata.as_ref().map_or(Ok(()), |metadata| input::json("trace_metadata", metadata))?;
    sqlx::query_file_as!(
        JobRow,
        "queries/jobs/insert.sql",
        job.id.0,
        created_at,
        permit.organization().0,
        permit.initiator().0,
        provisioner.map(ProvisionerType::as_str),
        file.map(|file| file.0),
        permit.target().job_type().as_str(),
        input.to_string(),
        tags.to_string(),
        job.trace_metadata.map(|metadata| metadata.to_string()),
        version.0,
        permit.reader().map(|reader| reader.0),
    )
    .fetch_optional(conn)
    .in_span("jobs/insert")
    .await
    .map_err(|error| Error::conflict("jobs/insert", &["provisioner_jobs_pkey"], error))?
    .map(Job::from)
    .ok_or_else(|| Error::not_found(Entity::TemplateVersionOrSource, version))
}

/// The jobs of the organization with these ids, in any order, without what their queue looks like, which costs more;
/// ids that are not there are left out (domain: listings). One round trip, no locks.
#[tracing::instrument(name = "db.jobs.by_ids", skip_all)]
pub async fn by_ids(conn: &mut PgConnection, permit: &ReadJobs, ids: &[JobId]) -> Result<Vec<Job>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(JobRow, "queries/jobs/by_ids.sql", permit.organization().0, &ids)
        .fetch_all(conn)
        .of_query("jobs/by_ids")
        .await?;
    Ok(rows.into_iter().map(Job::from).collect())
}

/// The jobs of the organization that were created strictly later, oldest first; for telemetry (domain: listings). One
/// round trip, no locks. There is no limit: ask for short times.
#[tracing::instrument(name = "db.jobs.created_after", skip_all)]
pub async fn created_after(conn: &mut PgConnection, permit: &ReadJobs, after: OffsetDateTime) -> Result<Vec<Job>> {
    let after = input::time("after", after)?;
    let rows = sqlx::query_file_as!(JobRow, "queries/jobs/created_after.sql", permit.organization().0, after)
        .fetch_all(conn)
        .of_query("jobs/created_after")
        .await?;
    Ok(rows.into_iter().map(Job::from).collect())
}

/// One job of the organization, locked until the caller's transaction ends (domain: listings). One round trip; waits
/// for the lock of the row.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.get_with_lock", skip_all)]
pub async fn get_with_lock(conn: &mut PgConnection, permit: &LockJobs, id: JobId) -> Result<Job> {
    sqlx::query_file_as!(JobRow, "queries/jobs/get_with_lock.sql", id.0, permit.organization().0)
        .fetch_optional(conn)
        .of_query("jobs/get_with_lock")
        .await?
        .map(Job::from)
        .ok_or_else(|| Error::not_found(Entity::Job, id))
}

/// One job of the organization, locked until the caller's transaction ends; `None` if the row is locked, or does not
/// exist (domain: listings). One round trip; never waits.
#[tracing::instrument(name = "db.jobs.get_for_update_skip_locked", skip_all)]
pub async fn get_for_update_skip_locked(conn: &mut PgConnection, permit: &LockJobs, id: JobId) -> Result<Option<Job>> {
    let row =
        sqlx::query_file_as!(JobRow, "queries/jobs/get_for_update_skip_locked.sql", id.0, permit.organization().0)
            .fetch_optional(conn)
            .of_query("jobs/get_for_update_skip_locked")
            .await?;
    Ok(row.map(Job::from))
}

/// The first job that the daemon can take, now its own: jobs of people before those of the prebuilds user, then the
/// oldest; `None` when there is nothing to do (domain: claims). Asked again, it takes another one: a job whose taker
/// never learned of it is left to the [reaper](super::reap). One round trip, which costs the same however many jobs
/// wait; locks only the job that it takes, and passes over those that others are taking.
#[tracing::instrument(name = "db.jobs.acquire", skip_all)]
pub async fn acquire(
    conn: &mut PgConnection,
    permit: &RunJobs,
    daemon: Capabilities<'_>,
    now: OffsetDateTime,
) -> Result<Option<Job>> {
    Ok(acquire_batch(conn, permit, daemon, now, 1).await?.pop())
}

/// The first `limit` jobs that the daemon can take, now its own, in the order in which [`acquire`] would have taken
/// them. Asked again, it takes others, too. One round trip; locks only the jobs that it takes.
#[tracing::instrument(name = "db.jobs.acquire_batch", skip_all)]
pub async fn acquire_batch(
    conn: &mut PgConnection,
    permit: &RunJobs,
    daemon: Capabilities<'_>,
    now: OffsetDateTime,
    limit: u32,
) -> Result<Vec<Job>> {
    let now = input::time("now", now)?;
    input::tags("tags", daemon.tags)?;
    let tags = Value::from_iter(daemon.tags.0.clone());
    let provisioners: Vec<_> = daemon.provisioners.iter().map(ToString::to_string).collect();
    let parts: Option<Vec<String>> =
        daemon.tags.parts().map(|parts| parts.into_iter().map(|part| Value::from_iter(part.0).to_string()).collect());
    let rows = sqlx::query_file_as!(
        JobRow,
        "queries/jobs/acquire_batch.sql",
        now,
        permit.daemon().0,
        permit.organization().0,
        &provisioners,
        tags as _,
        i64::from(limit),
        parts as _,
    )
    .fetch_all(conn)
    .of_query("jobs/acquire_batch")
    .await?;
    crate::store::count("coderdb_jobs_claimed_total", rows.len());
    let mut jobs: Vec<Job> = rows.into_iter().map(Job::from).collect();
    // An UPDATE returns its rows in no order.
    jobs.sort_by_key(|job| (job.initiator_id == UserId::PREBUILDS, job.created_at, job.id));
    Ok(jobs)
}

/// A sign of life of the daemon that works on the job; it learns whether the job is to be canceled
/// (domain: worker messages). One round trip; locks the job. The sign of life never goes backwards.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.heartbeat", skip_all)]
pub async fn heartbeat(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    now: OffsetDateTime,
) -> Result<ByWorker<Heartbeat>> {
    let now = input::time("now", now)?;
    let row = sqlx::query_file!("queries/jobs/heartbeat.sql", id.0, permit.organization().0, permit.daemon().0, now)
        .fetch_optional(conn)
        .of_query("jobs/heartbeat")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Job, id))?;
    Ok(match row.outcome.as_str() {
        "not_running_yet" => ByWorker::NotRunningYet,
        "other_owner" => ByWorker::OtherOwner,
        "ended" => ByWorker::Ended,
        "done" => ByWorker::Done(Heartbeat { cancel_requested: row.cancel_requested }),
        other => return Err(Error::unknown_outcome("jobs/heartbeat", other)),
    })
}

/// Ends a job of the daemon's without an error: it has succeeded, or is canceled if that was requested
/// (domain: ending a job). A delete that has succeeded deletes its workspace. With what Terraform knows of what a build
/// did; `None` leaves what is stored, and a job that is not for a build stores nothing. One round trip; locks the job,
/// and its build when that changes.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.complete", skip_all)]
pub async fn complete(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    now: OffsetDateTime,
    provisioner_state: Option<&[u8]>,
) -> Result<ByWorker<End>> {
    end(conn, permit, id, now, Failure { provisioner_state, ..Failure::default() }, None).await
}

/// Ends a job of the daemon's with an error (domain: ending a job). A NUL in it is stored as `\0`, and where the
/// encoding of the database lacks a character, all that is not ASCII as `?`. An empty error is none: the job ends as by
/// [`complete`]. The build of a prebuilt workspace loses its deadline, which it has only once it is claimed. One round
/// trip; locks the job, and its build when that changes.
///
/// [`Ended::notice`] says who is to be notified. `INSUFFICIENT_QUOTA` is not among the codes:
/// [`fail_insufficient_quota`] sets it.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.fail", skip_all)]
pub async fn fail(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    now: OffsetDateTime,
    failure: Failure<'_>,
) -> Result<ByWorker<End>> {
    end(conn, permit, id, now, failure, failure.code.map(JobErrorCode::from)).await
}

/// Ends the job of a build whose quota commit was rejected, with the error text `insufficient quota` and the code
/// `INSUFFICIENT_QUOTA` (domain: quota step). Nothing else sets that code. One round trip; locks the job.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.fail_insufficient_quota", skip_all)]
pub async fn fail_insufficient_quota(
    conn: &mut PgConnection,
    permit: &RunJobs,
    rejected: &RejectedCommit,
    now: OffsetDateTime,
) -> Result<ByWorker<End>> {
    let failure = Failure { error: "insufficient quota", ..Failure::default() };
    end(conn, permit, rejected.job(), now, failure, Some(JobErrorCode::InsufficientQuota)).await
}

async fn end(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    now: OffsetDateTime,
    failure: Failure<'_>,
    code: Option<JobErrorCode>,
) -> Result<ByWorker<End>> {
    let now = input::time("now", now)?;
    let code = code.as_ref().map(JobErrorCode::as_str);
    let state = failure.provisioner_state;
    let mut answer = end_once(conn, permit, id, now, &input::visible(failure.error), code, state).await;
    if answer.as_ref().is_err_and(input::is_untranslatable) && !conn.is_in_transaction() {
        answer = end_once(conn, permit, id, now, &input::visible_in_ascii(failure.error), code, state).await;
    }
    let mut row =
        answer.map_err(|e| Error::from_sqlx("jobs/complete", e))?.ok_or_else(|| Error::not_found(Entity::Job, id))?;
    Ok(match row.outcome.as_str() {
        "not_running_yet" => ByWorker::NotRunningYet,
        "other_owner" => ByWorker::OtherOwner,
        "already_completed" => ByWorker::Done(End::AlreadyCompleted { state_kept: row.state_kept }),
        "done" => ByWorker::Done(End::Ended(Box::new(Ended { build: row.build(), job: row.job() }))),
        other => return Err(Error::unknown_outcome("jobs/complete", other)),
    })
}

async fn end_once(
    conn: &mut PgConnection,
    permit: &RunJobs,
    id: JobId,
    now: Timestamp,
    error: &str,
    code: Option<&str>,
    provisioner_state: Option<&[u8]>,
) -> sqlx::Result<Option<EndedRow>> {
    sqlx::query_file_as!(
        EndedRow,
        "queries/jobs/complete.sql",
        id.0,
        permit.organization().0,
        permit.daemon().0,
        now as _,
        Some(error).filter(|error| !error.is_empty()),
        code,
        provisioner_state,
    )
    .fetch_optional(conn)
    .in_span("jobs/complete")
    .await
}

/// Requests the cancellation of a job: a waiting job ends at once, a running one when its daemon notices (domain:
/// canceling). With `expected`, only if that is its status. One round trip; locks the job, and waits for other locks on
/// it.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, or the permit does not reach it.
#[tracing::instrument(name = "db.jobs.cancel", skip_all)]
pub async fn cancel(
    conn: &mut PgConnection,
    permit: &CancelJobs,
    id: JobId,
    expected: Option<ExpectedStatus>,
    now: OffsetDateTime,
) -> Result<CancelOutcome> {
    let mut canceled = cancel_batch(conn, permit, &[id], expected, now).await?;
    canceled.remove(&id).ok_or_else(|| Error::not_found(Entity::Job, id))
}

/// Asks for many jobs to be canceled, each as [`cancel`] does; those that are not there, or that the permit does not
/// reach, are left out. One round trip; locks the jobs in the order of their ids, and waits for other locks on them.
///
/// All of them or none. A few hundred at once delay others by milliseconds; split more into several calls.
#[tracing::instrument(name = "db.jobs.cancel_batch", skip_all)]
pub async fn cancel_batch(
    conn: &mut PgConnection,
    permit: &CancelJobs,
    ids: &[JobId],
    expected: Option<ExpectedStatus>,
    now: OffsetDateTime,
) -> Result<HashMap<JobId, CancelOutcome>> {
    let now = input::time("now", now)?;
    decide(conn, permit, ids, expected, Some(now)).await
}

/// What [`cancel_batch`] would answer now, with the jobs as they are. One round trip; locks and writes nothing.
#[tracing::instrument(name = "db.jobs.would_cancel_batch", skip_all)]
pub async fn would_cancel_batch(
    conn: &mut PgConnection,
    permit: &CancelJobs,
    ids: &[JobId],
    expected: Option<ExpectedStatus>,
) -> Result<HashMap<JobId, CancelOutcome>> {
    decide(conn, permit, ids, expected, None).await
}

/// Without a time, nothing is written.
async fn decide(
    conn: &mut PgConnection,
    permit: &CancelJobs,
    ids: &[JobId],
    expected: Option<ExpectedStatus>,
    now: Option<Timestamp>,
) -> Result<HashMap<JobId, CancelOutcome>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(
        DecidedRow,
        "queries/jobs/cancel_batch.sql",
        &ids,
        now as _,
        expected.map(ExpectedStatus::as_str),
        permit.organization().0,
        permit.owner().map(|owner| owner.0),
        permit.imports(),
        permit.regardless(),
    )
    .fetch_all(conn)
    .of_query("jobs/cancel_batch")
    .await?;
    rows.into_iter().map(|row| Ok((row.id, row.outcome()?))).collect()
}

impl DecidedRow {
    fn outcome(mut self) -> Result<CancelOutcome> {
        let job = Box::new(self.job());
        Ok(match self.outcome.as_str() {
            "not_allowed" => CancelOutcome::NotAllowed,
            "already_finished" => CancelOutcome::AlreadyFinished(job),
            "already_canceled" => CancelOutcome::AlreadyCanceled(job),
            "not_in_expected_state" => CancelOutcome::NotInExpectedState(job),
            "canceled" => CancelOutcome::Canceled(job),
            "canceling" => CancelOutcome::Canceling(job),
            other => return Err(Error::unknown_outcome("jobs/cancel_batch", other)),
        })
    }
}
