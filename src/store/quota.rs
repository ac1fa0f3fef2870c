//! Quota: what a user consumes and may consume (domain: quota).

use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};
use uuid::Uuid;

use super::{Error, Result, Text, Timestamp, input, query::Query as _, transaction};
use crate::{
    authz::{ListQuota, ReadQuota, RunJobs},
    model::{
        Entity, GroupQuota, JobId, JobStatus, Label, Page, PageRequest, Quota, QuotaCheck, QuotaCursor,
        QuotaExplanation, QuotaGroup, QuotaWorkspace, TemplateId, TemplateQuota, Transition, UserId, UserQuota,
    },
};

/// What became of a quota commit.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The build may go on, and its cost is recorded. Consumed includes it.
    Accepted(Quota),
    /// The build would exceed the owner's budget. Nothing was written.
    Rejected(RejectedCommit),
    /// The job has ended, by the reaper say. Nothing was written.
    JobEnded,
}

/// The proof that the quota commit of a job was rejected; only [`commit`] makes one.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct RejectedCommit {
    job: JobId,
    consumed: i64,
    budget: i64,
}

impl RejectedCommit {
    pub(crate) const fn new(job: JobId, consumed: i64, budget: i64) -> Self {
        Self { job, consumed, budget }
    }

    /// The job whose build may not go on.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }

    /// What the owner consumes without the build, in credits.
    #[must_use]
    pub const fn consumed(&self) -> i64 {
        self.consumed
    }

    /// What the owner may consume, in credits.
    #[must_use]
    pub const fn budget(&self) -> i64 {
        self.budget
    }
}

/// What the user consumes in the organization, and may consume, in credits. One round trip, one snapshot, no locks.
///
/// Consumed is the sum of the daily cost of the newest build of each workspace that the user owns there; budget is the
/// sum of the allowances of the user's groups there, the Everyone group included. Both are 0 for a user that does not
/// exist, and the budget is 0 for a deleted one.
///
/// Its cost grows with the number of the user's workspaces there, of each of which it reads the newest build.
#[tracing::instrument(name = "db.quota.usage", skip_all)]
pub async fn usage(conn: &mut PgConnection, permit: &ReadQuota) -> Result<Quota> {
    sqlx::query_file_as!(Quota, "queries/quota/usage.sql", permit.user().0, permit.organization().0)
        .fetch_one(conn)
        .of_query("quota/usage")
        .await
}

struct PartRow {
    is_group: bool,
    id: Uuid,
    name: Text,
    credits: i32,
    build_number: Option<i32>,
    transition: Option<Label<Transition>>,
    job_status: Option<JobStatus>,
    built_at: Option<Timestamp>,
    credits_before: Option<i32>,
}

/// What the numbers of [`usage`] are made of: the groups with their allowances, and the workspaces with what their
/// newest builds have committed; they add up to the same numbers. One round trip, one snapshot, no locks. Costs what
/// [`usage`] costs, and a look at the job of each newest build.
#[tracing::instrument(name = "db.quota.explain", skip_all)]
pub async fn explain(conn: &mut PgConnection, permit: &ReadQuota) -> Result<QuotaExplanation> {
    let rows = sqlx::query_file_as!(PartRow, "queries/quota/explain.sql", permit.user().0, permit.organization().0)
        .fetch_all(conn)
        .of_query("quota/explain")
        .await?;
    let (mut groups, mut workspaces) = (Vec::new(), Vec::new());
    for row in rows {
        match (row.is_group, row.build_number, row.transition, row.built_at) {
            (false, Some(build_number), Some(transition), Some(built_at)) => workspaces.push(QuotaWorkspace {
                id: row.id.into(),
                name: row.name.0,
                credits: row.credits,
                credits_before: row.credits_before,
                build_number,
                transition,
                job_status: row.job_status,
                built_at: built_at.0,
            }),
            _ => groups.push(QuotaGroup { id: row.id.into(), name: row.name.0, allowance: row.credits }),
        }
    }
    groups.sort_by(|a, b| b.allowance.cmp(&a.allowance).then_with(|| a.name.cmp(&b.name)));
    workspaces.sort_by(|a, b| b.credits.cmp(&a.credits).then_with(|| (&a.name, a.id).cmp(&(&b.name, b.id))));
    let quota = Quota {
        credits_consumed: workspaces.iter().map(|workspace| i64::from(workspace.credits)).sum(),
        budget: groups.iter().map(|group| i64::from(group.allowance)).sum(),
    };
    Ok(QuotaExplanation { quota, groups, workspaces })
}

/// What users consume in the organization and may consume, as [`usage`] says of each, in the order of their names in
/// lower case, and of their ids: all members, and former members and deleted users who consume credits or have an
/// allowance. One round trip, one snapshot, no locks.
///
/// The cost of each page grows with the number of members and of workspaces there, which it reads all; the sums are
/// those of the page alone.
///
/// # Errors
/// [`Error::Invalid`] for a name with NUL characters.
#[tracing::instrument(name = "db.quota.list", skip_all)]
pub async fn list(
    conn: &mut PgConnection,
    permit: &ListQuota,
    page: PageRequest<QuotaCursor>,
) -> Result<Page<UserQuota, QuotaCursor>> {
    // No name is empty.
    let after = page.after.unwrap_or(QuotaCursor { username: String::new(), id: UserId(Uuid::nil()) });
    input::text("after", &after.username)?;
    // One more than asked for: is there a next page?
    let limit = page.limit.map(|limit| i64::from(limit) + 1);
    let (organization, after_name, after_id) = (permit.organization().0, after.username, after.id.0);
    let rows = sqlx::query_file_as!(UserQuota, "queries/quota/list.sql", organization, after_name, after_id, limit)
        .fetch_all(conn)
        .of_query("quota/list")
        .await?;
    Ok(Page::of(rows, page.limit, |last| QuotaCursor { username: last.username.clone(), id: last.id }))
}

/// What the workspaces of each template consume in the organization, the most expensive first: templates without a
/// workspace are left out, deleted ones are not. One round trip, one snapshot, no locks. Reads the newest build of every
/// workspace there.
#[tracing::instrument(name = "db.quota.by_template", skip_all)]
pub async fn by_template(conn: &mut PgConnection, permit: &ListQuota) -> Result<Vec<TemplateQuota>> {
    sqlx::query_file_as!(TemplateQuota, "queries/quota/by_template.sql", permit.organization().0)
        .fetch_all(conn)
        .of_query("quota/by_template")
        .await
}

/// The groups of the organization with their allowances, and what the workspaces of their members consume there, the most
/// expensive first. One round trip, one snapshot, no locks. Reads the newest build of every workspace there.
#[tracing::instrument(name = "db.quota.by_group", skip_all)]
pub async fn by_group(conn: &mut PgConnection, permit: &ListQuota) -> Result<Vec<GroupQuota>> {
    sqlx::query_file_as!(GroupQuota, "queries/quota/by_group.sql", permit.organization().0)
        .fetch_all(conn)
        .of_query("quota/by_group")
        .await
}

/// So many of the newest jobs of the organization are looked at.
const CHECKED_JOBS: i64 = 10_000;

/// So many successful starts are enough for the percentiles.
const SAMPLES: i64 = 50;

struct CheckRow {
    has_preset: bool,
    credits_consumed: i64,
    budget: i64,
    costs: Vec<i32>,
    claims: Vec<i32>,
}

/// Whether a new workspace of the template, from the preset if one is named, would fit into the user's budget in the
/// organization, judged by what starts of late have committed (domain: quota check). It promises nothing: what counts is
/// what the build commits. One round trip, one snapshot, no locks.
///
/// Costs what [`usage`] costs, a look at up to 10,000 jobs, the fewer the more often the template is started, and one at
/// each prebuilt workspace of it.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such template, or its active version no preset of this name;
/// [`Error::Invalid`] for a name with NUL characters.
#[tracing::instrument(name = "db.quota.check", skip_all)]
pub async fn check(
    conn: &mut PgConnection,
    permit: &ListQuota,
    user: UserId,
    template: TemplateId,
    preset: Option<&str>,
) -> Result<QuotaCheck> {
    input::text("preset", preset.unwrap_or_default())?;
    let organization = permit.organization().0;
    let row = sqlx::query_file_as!(
        CheckRow,
        "queries/quota/check.sql",
        user.0,
        organization,
        template.0,
        preset,
        CHECKED_JOBS,
        SAMPLES
    )
    .fetch_optional(conn)
    .of_query("quota/check")
    .await?
    .ok_or_else(|| Error::not_found(Entity::Template, template))?;
    match preset {
        Some(preset) if !row.has_preset => Err(Error::not_found(Entity::Preset, preset)),
        _ => {
            let quota = Quota { credits_consumed: row.credits_consumed, budget: row.budget };
            Ok(QuotaCheck::new(quota, row.costs, &row.claims))
        }
    }
}

#[derive(FromRow)]
struct CommitRow {
    #[sqlx(rename = "serializable!")]
    serializable: bool,
    #[sqlx(rename = "has_ended!")]
    has_ended: bool,
    #[sqlx(rename = "accepted!")]
    accepted: bool,
    #[sqlx(rename = "consumed!")]
    consumed: i64,
    #[sqlx(rename = "budget!")]
    budget: i64,
}

const COMMIT: &str = include_str!("../../queries/quota/commit.sql");

/// Waits for the lock of the owner of the workspace that the job $1 builds, for 5 s at most, and remembers it. No
/// rows.
const WAIT_FOR_TURN: &str = "
SET LOCAL lock_timeout = '5s';
WITH turn AS MATERIALIZED (
    SELECT coalesce((
        SELECT hashtextextended('quota ' || w.owner_id || w.organization_id, 0)
        FROM workspace_builds AS b
        INNER JOIN workspaces AS w ON w.id = b.workspace_id
        WHERE b.job_id = $1
    ), 0) AS key
)
SELECT FROM turn
WHERE set_config('coderdb.quota_turn', key::text, false) IS NULL OR pg_advisory_lock(key) IS NULL";

/// The lock of the session becomes one of this transaction, which lets go of it by itself. No rows.
const TAKE_TURN: &str = "
WITH turn AS MATERIALIZED (SELECT current_setting('coderdb.quota_turn')::bigint AS key)
SELECT FROM turn
WHERE pg_advisory_xact_lock(key) IS NULL OR NOT pg_advisory_unlock(key)";

const NOT_SERIALIZABLE: Error =
    Error::Invalid { field: "transaction", expected: "none, or one with the isolation level SERIALIZABLE" };

/// Commits what the build of the job costs per day, in credits, and says whether the build may go on
/// (domain: quota commit). The step around it, which fails the job when it may not, is
/// [`runner::commit_quota`](super::runner::commit_quota).
///
/// The quota of the workspace's *owner* counts. Rejected is what would exceed the budget (equal is within), unless the
/// build does not cost more than the last one before it that committed a cost or succeeded. The cost is recorded only
/// when it is accepted, and then it is the same commit when it is repeated: what this build recorded before does not
/// count against it.
///
/// Serializable, so that no other commit, here or in another server, spends the same credits. Of commits of this
/// library for one owner, the second queues; one that lost a race against another server is tried again, see
/// [`transaction::retry`]. One round trip without contention. In a transaction of the caller, which must be
/// serializable, it neither queues nor is tried again. Locks the row of the build and an advisory lock for the owner
/// until it ends.
///
/// # Errors
/// [`Error::NotFound`] when the job builds no workspace of the organization, or is not assigned to the daemon;
/// [`Error::Invalid`] for a cost that is negative or beyond 2,147,483,647.
#[tracing::instrument(name = "db.quota.commit", skip_all)]
pub async fn commit(conn: &mut PgConnection, permit: &RunJobs, job: JobId, cost: i64) -> Result<CommitOutcome> {
    let cost = i32::try_from(cost)
        .ok()
        .filter(|cost| *cost >= 0)
        .ok_or(Error::Invalid { field: "cost", expected: "0 to 2147483647 credits" })?;
    let permit = *permit;
    let row = transaction::retry(conn, move |conn| {
        Box::pin(async move {
            let found = if conn.is_in_transaction() {
                let (daemon, organization) = (permit.daemon().0, permit.organization().0);
                sqlx::query_file_as!(CommitRow, "queries/quota/commit.sql", job.0, daemon, organization, cost)
                    .fetch_optional(conn)
                    .in_span("quota/commit")
                    .await
            } else {
                commit_in_turn(conn, permit, job, cost).await
            };
            found.map_err(|e| Error::from_sqlx("quota/commit", e))
        })
    })
    .await?
    .ok_or_else(|| Error::not_found(Entity::Job, job))?;
    match row {
        CommitRow { serializable: false, .. } => Err(NOT_SERIALIZABLE),
        CommitRow { has_ended: true, .. } => Ok(CommitOutcome::JobEnded),
        CommitRow { accepted: true, consumed, budget, .. } => {
            Ok(CommitOutcome::Accepted(Quota { credits_consumed: consumed, budget }))
        }
        CommitRow { consumed, budget, .. } => Ok(CommitOutcome::Rejected(RejectedCommit::new(job, consumed, budget))),
    }
}

/// Of two concurrent commits for one owner, one would fail to serialize and be repeated: they queue, in this process
/// and across processes. After a time-out a commit goes on without its turn: only SERIALIZABLE keeps the budget.
async fn commit_in_turn(
    conn: &mut PgConnection,
    permit: RunJobs,
    job: JobId,
    cost: i32,
) -> sqlx::Result<Option<CommitRow>> {
    match commit_alone(conn, permit, job, cost, true).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
            commit_alone(conn, permit, job, cost, false).await
        }
        result => result,
    }
}

/// The level and the statement in one message are one transaction, which the server ends by itself: no open transaction
/// is left behind if this future is dropped. Such a message takes no parameters, only UUIDs and a number.
///
/// The wait is a transaction before it, because a snapshot from before the wait would be out of date. That one ends by
/// itself, too: `BEGIN` makes it explicit when nothing is left to do but to commit it.
async fn commit_alone(
    conn: &mut PgConnection,
    permit: RunJobs,
    job: JobId,
    cost: i32,
    in_turn: bool,
) -> sqlx::Result<Option<CommitRow>> {
    let arguments = |statement: &str| {
        statement
            .replace("$1", &format!("'{job}'"))
            .replace("$2", &format!("'{}'", permit.daemon()))
            .replace("$3", &format!("'{}'", permit.organization()))
            .replace("$4", &cost.to_string())
    };
    let (wait, commit) = (arguments(WAIT_FOR_TURN), arguments(COMMIT));
    let serializable = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE";
    let message = if in_turn {
        format!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;{wait};\nBEGIN;\nCOMMIT;\n{serializable};{TAKE_TURN};\n{commit}"
        )
    } else {
        format!("{serializable};\n{commit}")
    };
    let rows = sqlx::raw_sql(AssertSqlSafe(message)).fetch_all(conn).in_span("quota/commit").await?;
    rows.first().map(CommitRow::from_row).transpose()
}
