//! Canceling many jobs with the library: what is chosen, previewed, done, told and reported.

use std::time::Duration;

use coderdb::{
    authz::CancelJobs,
    cancel::{Outcome, Plan, Run, preview, tally},
    model::{ExpectedStatus, JobFilter, JobId, JobStatus, OrganizationId, UserId},
    pool,
    sqlx::{self, Connection},
    watch::{Settings, Watcher},
};
use tokio::time::timeout;

use crate::support::{
    self,
    rows::{NOW, Rows, id},
};

fn permit() -> CancelJobs {
    CancelJobs::check(&support::operator(), OrganizationId(id(1))).expect("an operator")
}

/// Jobs 1 to `n` wait, every third of them for the prebuilds user; every fourth runs, and every fifth has ended.
async fn many(n: u32) -> Rows {
    let mut rows = Rows::new().await;
    rows.run(&format!(
        "SELECT add_job(n) FROM generate_series(2, {n}) AS n;
         UPDATE provisioner_jobs SET created_at = at_second(n), initiator_id = CASE WHEN n % 3 = 0 THEN prebuilds() ELSE u(1) END,
            started_at = CASE WHEN n % 4 = 0 THEN at_second(n) END, worker_id = CASE WHEN n % 4 = 0 THEN u(7) END,
            completed_at = CASE WHEN n % 5 = 0 THEN at_second(n) END
         FROM generate_series(1, {n}) AS n WHERE id = u(n)"
    ))
    .await;
    rows
}

async fn run(rows: &mut Rows, plan: &Plan) -> Vec<(JobId, Outcome)> {
    let (mut run, mut decided, jobs) = (Run::new(plan), 0, plan.len());
    while let Some(batch) = run.next(&mut rows.conn, &permit(), NOW).await {
        decided += batch.expect("an answer");
    }
    assert_eq!(decided, jobs);
    run.into_reports().into_iter().map(|report| (report.id, report.outcome)).collect()
}

#[tokio::test]
async fn preview_and_run_decide_alike_and_only_one_of_them_does_anything() {
    let mut rows = many(1_200).await;
    let read = support::read_jobs(id(1));
    let all = Plan::named((1..=1_300).map(|n| JobId(id(n))).collect(), None);
    let prebuilds = JobFilter { initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
    let pending = JobFilter { status: vec![JobStatus::Pending, JobStatus::Succeeded], ..JobFilter::default() };
    for (plan, expected) in [
        (all, "{WouldBeCanceled: 960, AlreadyFinished: 240, NotFound: 100}"),
        (
            Plan::named([4, 1, 4].map(|n| JobId(id(n))).to_vec(), Some(ExpectedStatus::Pending)),
            "{WouldBeCanceled: 1, NotInExpectedState: 1}",
        ),
        (Plan::chosen(&mut rows.conn, &read, &prebuilds, None).await.expect("a plan"), "{WouldBeCanceled: 320}"),
        // What has ended is among what the filter asks for, and is reported as that.
        (
            Plan::chosen(&mut rows.conn, &read, &pending, None).await.expect("a plan"),
            "{WouldBeCanceled: 720, AlreadyFinished: 240}",
        ),
        (
            Plan::chosen(&mut rows.conn, &read, &JobFilter::default(), Some(ExpectedStatus::Running))
                .await
                .expect("a plan"),
            "{WouldBeCanceled: 240}",
        ),
        (Plan::default(), "{}"),
    ] {
        let before = rows.everything().await;
        let previewed = preview(&mut rows.conn, &permit(), &plan).await.expect("an answer");
        assert_eq!(format!("{:?}", tally(&previewed)), expected);
        assert_eq!(rows.everything().await, before);
        rows.run("BEGIN").await;
        let done = run(&mut rows, &plan).await;
        let would = |outcome| match outcome {
            Outcome::Canceled | Outcome::Canceling => Outcome::WouldBeCanceled,
            outcome => outcome,
        };
        let done: Vec<_> = done.into_iter().map(|(job, outcome)| (job, would(outcome))).collect();
        let previewed: Vec<_> = previewed.into_iter().map(|report| (report.id, report.outcome)).collect();
        assert_eq!(done, previewed);
        rows.run("ROLLBACK").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_tells_those_who_watch() {
    let mut rows = many(3).await;
    let pool = rows.database.pool_with_sessions(pool::Settings::default());
    let watcher = Watcher::start(
        &pool,
        Settings { poll: Duration::from_hours(1), poll_organizations: Duration::from_hours(1), ..Settings::default() },
    );
    let listening = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'";
    while rows.one(listening).await != "1" {
        tokio::task::yield_now().await;
    }
    let waiter =
        tokio::spawn(
            async move { watcher.wait(&support::read_jobs(id(1)), JobId(id(2)), Duration::from_secs(30)).await },
        );
    // The waiter may come before or after: it learns of it in both cases.
    let done = run(&mut rows, &Plan::named(vec![JobId(id(2))], None)).await;
    assert_eq!(done, [(JobId(id(2)), Outcome::Canceled)]);
    assert_eq!(waiter.await.expect("the task").expect("the job").status, JobStatus::Canceled);
}

#[tokio::test]
async fn run_that_is_given_up_in_a_batch_reports_it_as_unknown_and_the_rest_as_not_tried() {
    let mut rows = many(1_200).await;
    let mut blocker = rows.database.connect_with_session().await;
    let mut lock = blocker.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM provisioner_jobs WHERE id = $1 FOR UPDATE")
        .bind(id(700))
        .execute(&mut *lock)
        .await
        .expect("the lock");
    let mut given_up = Run::new(&Plan::named((1..=1_200).map(|n| JobId(id(n))).collect(), None));
    assert_eq!(given_up.next(&mut rows.conn, &permit(), NOW).await.expect("a batch").expect("an answer"), 500);
    let answer = timeout(Duration::from_millis(100), given_up.next(&mut rows.conn, &permit(), NOW)).await;
    assert!(answer.is_err(), "a batch behind a lock");
    lock.rollback().await.expect("the end");
    let mut conn = rows.database.connect().await;
    assert!(given_up.next(&mut conn, &permit(), NOW).await.is_none(), "it is over");
    let reports = given_up.into_reports();
    assert_eq!(
        reports.iter().map(|report| report.id).collect::<Vec<_>>(),
        (1..=1_200).map(|n| JobId(id(n))).collect::<Vec<_>>()
    );
    assert!(
        reports[..500].iter().all(|report| report.outcome.is_as_wanted() || report.outcome == Outcome::AlreadyFinished)
    );
    assert!(reports[500..1_000].iter().all(|report| report.outcome == Outcome::Unknown));
    assert!(reports[1_000..].iter().all(|report| report.outcome == Outcome::NotTried));
}

#[tokio::test]
async fn run_ends_with_an_error_and_says_that_nothing_of_its_batch_was_done() {
    let mut rows = many(600).await;
    let mut failing = Run::new(&Plan::named((1..=600).map(|n| JobId(id(n))).collect(), None));
    rows.run("BEGIN; SET TRANSACTION READ ONLY").await;
    let error = failing.next(&mut rows.conn, &permit(), NOW).await.expect("a batch").expect_err("read only");
    assert_eq!(error.code(), "sql");
    rows.run("ROLLBACK").await;
    assert!(failing.next(&mut rows.conn, &permit(), NOW).await.is_none(), "it is over");
    assert_eq!(format!("{:?}", tally(&failing.into_reports())), "{NotTried: 600}");
}
