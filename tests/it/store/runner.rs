//! The quota step of a runner (domain: quota step): what it logs, what it fails, and what it leaves alone.

use coderdb::{
    authz::{Actor, RunJobs, System},
    model::{ByWorker, DaemonId, End, JobErrorCode, JobId, JobStatus, OrganizationId, Quota, Transition},
    sqlx::{self, AssertSqlSafe, PgConnection},
    store::{
        self, Error,
        runner::{QuotaStep, commit_quota},
    },
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);
const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const JOB: JobId = JobId(Uuid::from_u128(1));
const DAEMON: DaemonId = DaemonId(Uuid::from_u128(0x99));

/// A running build of a user who may consume 10 credits.
async fn world() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let rows = include_str!("../golden/rows.sql").to_owned()
        + "SELECT add_member(1, 1);
           INSERT INTO groups (id, name, organization_id, quota_allowance) VALUES (u(1), 'Everyone', u(1), 10);
           UPDATE provisioner_jobs
           SET worker_id = '00000000-0000-0000-0000-000000000099', started_at = created_at, completed_at = NULL,
               error = NULL;";
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut conn).await.unwrap();
    (database, conn)
}

async fn step(
    conn: &mut PgConnection,
    daemon: DaemonId,
    transition: Transition,
    costs: &[i32],
) -> store::Result<QuotaStep> {
    let actor = Actor::system(System::ProvisionerDaemon);
    let run = RunJobs::check(&actor, ORGANIZATION, daemon).unwrap();
    commit_quota(conn, &run, JOB, transition, costs, NOW).await
}

async fn logs(conn: &mut PgConnection) -> Vec<String> {
    let lines = "SELECT concat_ws(' | ', level, source, stage, output) FROM provisioner_job_logs ORDER BY id";
    sqlx::query_scalar(lines).fetch_all(conn).await.unwrap()
}

async fn job(conn: &mut PgConnection) -> coderdb::model::Job {
    store::jobs::get(conn, &support::read_jobs(ORGANIZATION), JOB).await.unwrap().job
}

#[tokio::test]
async fn a_build_within_its_budget_goes_on_and_says_what_it_costs() {
    let (_database, mut conn) = world().await;
    let committed = step(&mut conn, DAEMON, Transition::Start, &[4, 0, 6]).await.unwrap();
    assert!(matches!(committed, QuotaStep::Committed(Quota { credits_consumed: 10, budget: 10 })), "{committed:?}");
    let stage = "info | provisioner | Commit quota | ";
    assert_eq!(
        logs(&mut conn).await,
        [
            format!("{stage}Build cost        — 10"),
            format!("{stage}Budget            — 10"),
            format!("{stage}Credits consumed  — 10"),
        ]
    );
    assert_eq!(job(&mut conn).await.status, JobStatus::Running);
}

#[tokio::test]
async fn a_build_over_its_budget_fails_with_the_code_and_says_why() {
    let (_database, mut conn) = world().await;
    let over = step(&mut conn, DAEMON, Transition::Start, &[11]).await.unwrap();
    let QuotaStep::OverQuota { quota, end: ByWorker::Done(End::Ended(ended)) } = over else { panic!("{over:?}") };
    assert_eq!(quota, Quota { credits_consumed: 0, budget: 10 });
    assert!(ended.job.error_code.as_ref().is_some_and(JobErrorCode::is_insufficient_quota), "{ended:?}");
    assert!(ended.notice().is_some());
    let lines = logs(&mut conn).await;
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3], "warn | provisioner | Commit quota | This build would exceed your quota. Failing.");
    let job = job(&mut conn).await;
    assert_eq!(job.status, JobStatus::Failed);
    assert_eq!(job.error.as_deref(), Some("insufficient quota"));
    assert_eq!(job.error_code, Some(JobErrorCode::InsufficientQuota));
    assert_eq!(job.completed_at, Some(NOW));
}

#[tokio::test]
async fn what_costs_nothing_and_what_deletes_commits_nothing_and_logs_nothing() {
    let (_database, mut conn) = world().await;
    for (transition, costs) in
        [(Transition::Start, &[][..]), (Transition::Stop, &[0, 0]), (Transition::Delete, &[1_000_000])]
    {
        let skipped = step(&mut conn, DAEMON, transition, costs).await.unwrap();
        assert!(matches!(skipped, QuotaStep::Skipped), "{skipped:?}");
    }
    assert_eq!(logs(&mut conn).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_commit_that_cannot_be_done_fails_the_job_without_the_code() {
    let (_database, mut conn) = world().await;
    let broken = "ALTER TABLE workspace_builds ADD CONSTRAINT broken CHECK (daily_cost < 5) NOT VALID";
    sqlx::raw_sql(broken).execute(&mut conn).await.unwrap();
    let failed = step(&mut conn, DAEMON, Transition::Start, &[7]).await.unwrap();
    assert!(matches!(failed, QuotaStep::Failed { end: ByWorker::Done(End::Ended(_)), .. }), "{failed:?}");
    assert!(logs(&mut conn).await[0].starts_with("error | provisioner | Commit quota | Failed to commit quota: "));
    let job = job(&mut conn).await;
    assert!(job.error.as_deref().is_some_and(|text| text.starts_with("commit quota: ")), "{:?}", job.error);
    assert_eq!(job.error_code, None);
}

#[tokio::test]
async fn the_job_of_another_daemon_is_left_alone() {
    let (_database, mut conn) = world().await;
    let refused = step(&mut conn, DaemonId(Uuid::from_u128(0x98)), Transition::Start, &[11]).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound { .. }), "{refused}");
    let refused = step(&mut conn, DAEMON, Transition::Start, &[12, -2]).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid { field: "daily_costs", .. }), "{refused}");
    assert_eq!(logs(&mut conn).await, Vec::<String>::new());
    assert_eq!(job(&mut conn).await.status, JobStatus::Running);
}
