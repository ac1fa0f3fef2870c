//! What a provisioner daemon does around a job, in more than one operation.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, input, job_logs, jobs, quota};
use crate::{
    authz::RunJobs,
    model::{ByWorker, End, Failure, FailureCode, JobId, Label, LogLevel, LogSource, NewJobLog, Quota, Transition},
};

/// The stage of the log lines around a quota commit.
pub const COMMIT_QUOTA_STAGE: &str = "Commit quota";

/// How the quota step of a build went.
#[derive(Debug)]
#[must_use]
pub enum QuotaStep {
    /// There was nothing to commit: the build goes on.
    Skipped,
    /// The cost is committed: the build goes on. Consumed includes it.
    Committed(Quota),
    /// The job has ended, by the reaper say: nothing is committed, and nothing is to be built.
    JobEnded,
    /// The build would exceed its owner's budget: its job has failed, with the code `INSUFFICIENT_QUOTA`.
    OverQuota {
        /// What the owner consumes without the build, and may consume.
        quota: Quota,
        /// How the job ended.
        end: ByWorker<End>,
    },
    /// The commit could not be done: the job has failed, without that code.
    Failed {
        /// Why it could not.
        error: Error,
        /// How the job ended.
        end: ByWorker<End>,
    },
}

/// Commits what the planned resources of a build cost, after the plan and before anything is built
/// (domain: quota step).
///
/// A delete and a plan that costs nothing commit nothing and log nothing. An answer is logged in three lines; a rejected
/// commit also in a warning, and it fails the job. One round trip for the commit, one for the lines, and one more when
/// the job fails; each is atomic by itself, and the whole may be repeated, which only repeats the lines.
///
/// # Errors
/// [`Error::NotFound`] when the job is not one of the daemon's; [`Error::Invalid`] for costs that are negative; others
/// when not even the failure could be recorded.
#[tracing::instrument(name = "db.runner.commit_quota", skip_all)]
pub async fn commit_quota(
    conn: &mut PgConnection,
    permit: &RunJobs,
    job: JobId,
    transition: impl Into<Label<Transition>>,
    daily_costs: &[i32],
    now: OffsetDateTime,
) -> Result<QuotaStep> {
    if daily_costs.iter().any(|cost| *cost < 0) {
        return Err(Error::Invalid { field: "daily_costs", expected: "0 or more credits" });
    }
    // Before the commit, because the lines of the log that come after it would be refused.
    input::time("now", now)?;
    let cost = daily_costs.iter().copied().map(i64::from).sum();
    if transition.into() == Transition::Delete || cost == 0 {
        return Ok(QuotaStep::Skipped);
    }
    let line = |level, output: String| NewJobLog {
        created_at: now,
        source: LogSource::Provisioner,
        level,
        stage: COMMIT_QUOTA_STAGE.to_owned(),
        output,
    };
    let (quota, rejected) = match quota::commit(conn, permit, job, cost).await {
        Ok(quota::CommitOutcome::Accepted(quota)) => (quota, None),
        Ok(quota::CommitOutcome::Rejected(rejected)) => {
            (Quota { credits_consumed: rejected.consumed(), budget: rejected.budget() }, Some(rejected))
        }
        Ok(quota::CommitOutcome::JobEnded) => return Ok(QuotaStep::JobEnded),
        Err(error @ Error::NotFound { .. }) => return Err(error),
        // A cost beyond what can be stored is a plan that cannot be built; any other argument is the caller's mistake.
        Err(error @ Error::Invalid { field, .. }) if field != "cost" => return Err(error),
        Err(error) => {
            let lines = [line(LogLevel::Error, format!("Failed to commit quota: {error}"))];
            let _ = job_logs::append(conn, permit, job, &lines).await?;
            let text = format!("commit quota: {error}");
            let failure = Failure { error: &text, code: FailureCode::classify(&text), ..Failure::default() };
            let end = jobs::fail(conn, permit, job, now, failure).await?;
            return Ok(QuotaStep::Failed { error, end });
        }
    };
    let number = |what: &str, credits: i64| line(LogLevel::Info, format!("{what:<18}— {credits}"));
    let mut lines = vec![
        number("Build cost", cost),
        number("Budget", quota.budget),
        number("Credits consumed", quota.credits_consumed),
    ];
    if rejected.is_some() {
        lines.push(line(LogLevel::Warn, "This build would exceed your quota. Failing.".to_owned()));
    }
    // What the log's cap drops changes nothing for the build.
    let _ = job_logs::append(conn, permit, job, &lines).await?;
    let Some(rejected) = rejected else { return Ok(QuotaStep::Committed(quota)) };
    let end = jobs::fail_insufficient_quota(conn, permit, &rejected, now).await?;
    Ok(QuotaStep::OverQuota { quota, end })
}
