//! The reaper.

use std::collections::BTreeMap;

use coderdb::{
    authz::{Actor, ReapJobs, System},
    model::{ByWorker, Heartbeat, JobId, ReapOutcome, Stuck},
    store,
};
use sqlx::Connection;
use time::Duration;
use tokio::task::JoinSet;

use super::{OWN, taken};
use crate::support::rows::{NOW, Rows, daemon, id};

fn reaper() -> ReapJobs {
    ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper")
}

const RULE: &str = "================================================================================";

async fn lines(rows: &mut Rows, job: u128) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws('|', extract(milliseconds FROM created_at - '2026-05-07 12:00+00')::bigint, source, level, stage,
         output) FROM provisioner_job_logs WHERE job_id = u({job}) ORDER BY id"
    );
    rows.all(&sql).await
}

#[tokio::test]
async fn the_reaper_finds_jobs_that_are_strictly_silent_for_too_long_at_random() {
    let mut rows = Rows::new().await;
    let now = NOW + Duration::minutes(30);
    rows.run(
        "DELETE FROM provisioner_jobs;
         SELECT add_organization(2); SELECT add_job(n) FROM generate_series(10, 17) AS n;
         UPDATE provisioner_jobs SET updated_at = at_second(-0.001), organization_id = u(2) WHERE id = u(11);
         UPDATE provisioner_jobs SET updated_at = at_second(-1), completed_at = at_second(1) WHERE id = u(12);
         UPDATE provisioner_jobs SET updated_at = at_second(1500), started_at = at_second(0) WHERE id = u(13);
         UPDATE provisioner_jobs SET updated_at = at_second(1499.999), started_at = at_second(0) WHERE id = u(14);
         UPDATE provisioner_jobs SET updated_at = at_second(0), started_at = at_second(0), completed_at = at_second(9)
             WHERE id = u(15);
         UPDATE provisioner_jobs SET updated_at = at_second(-9), canceled_at = at_second(0) WHERE id = u(16);
         UPDATE provisioner_jobs SET updated_at = at_second(0), started_at = at_second(0), error = 'x' WHERE id = u(17)",
    )
    .await;
    let mut found: Vec<_> = store::jobs::reap_candidates(&mut rows.conn, &reaper(), now, 100)
        .await
        .expect("candidates")
        .into_iter()
        .map(|job| (job.id.0, job.organization_id.0, job.stuck))
        .collect();
    found.sort_by_key(|(job, ..)| *job);
    let expected = [
        (id(11), id(2), Stuck::Pending),
        (id(14), id(1), Stuck::Hung),
        (id(16), id(1), Stuck::Pending),
        (id(17), id(1), Stuck::Hung),
    ];
    assert_eq!(found, expected);
    // With room for one, each of the four has its turn.
    let mut turns = BTreeMap::new();
    for _ in 0..200 {
        let one = store::jobs::reap_candidates(&mut rows.conn, &reaper(), now, 1).await.expect("a candidate");
        assert_eq!(one.len(), 1);
        *turns.entry(one[0].id).or_insert(0) += 1;
    }
    assert_eq!(turns.len(), 4, "{turns:?}");
}

#[tokio::test]
async fn a_hung_build_is_reaped_with_five_lines_its_error_and_the_state_of_the_build_before() {
    let mut rows = taken().await;
    rows.run(
        "SELECT add_build(2, 1, 2), add_build(3, 1, 4);
         UPDATE workspace_builds SET provisioner_state = 'one' WHERE id = u(1);
         UPDATE workspace_builds SET provisioner_state = 'two' WHERE id = u(2);
         UPDATE workspace_builds SET provisioner_state = '' WHERE id = u(3);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(-9), error_code = 'MISSING_TEMPLATE_PARAMETER'
             WHERE id = u(3);
         INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         VALUES (u(3), at_second(-2), 'provisioner', 'info', 'Setting up', 'first'),
                (u(3), at_second(-3), 'provisioner', 'info', 'Planning Infrastructure', 'last'),
                (u(2), at_second(-3), 'provisioner', 'info', 'Other job', 'later')",
    )
    .await;
    let last = rows.one("SELECT max(id) FROM provisioner_job_logs").await;
    let others = "SELECT to_jsonb(j) FROM provisioner_jobs AS j WHERE id <> u(3)";
    let before = rows.all(others).await;
    let now = NOW + Duration::minutes(5) + Duration::milliseconds(1);
    let outcome = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(3)), now).await.expect("an answer");
    let logs_after = last.parse().expect("an id");
    assert_eq!(outcome, ReapOutcome::Reaped { stuck: Stuck::Hung, logs_after });
    let text = "Coder: Build has been detected as hung for 5 minutes and will be terminated.";
    let at = |ms| format!("{ms}|provisioner_daemon|error|Planning Infrastructure|");
    let seconds = |n: i64| at(n % 60_000);
    let expected =
        [seconds(300_001), seconds(300_002) + RULE, seconds(300_003) + text, seconds(300_004) + RULE, seconds(300_005)];
    assert_eq!(lines(&mut rows, 3).await[2..], expected);
    let job = "SELECT concat_ws('|', job_status, error, error_code IS NULL, started_at = at_second(-9),
               completed_at = at_second(300.001), updated_at = at_second(300.001)) FROM provisioner_jobs WHERE id = u(3)";
    let error = "Coder: Build has been detected as hung for 5 minutes and has been terminated by the reaper.";
    assert_eq!(rows.one(job).await, format!("failed|{error}|t|t|t|t"));
    let states = "SELECT convert_from(provisioner_state, 'UTF8') FROM workspace_builds ORDER BY id";
    assert_eq!(rows.all(states).await, ["one", "two", "two"]);
    assert_eq!(rows.all(others).await, before);
    let again = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(3)), now + Duration::days(1)).await;
    assert_eq!(again.expect("an answer"), ReapOutcome::AlreadyCompleted);
    assert_eq!(lines(&mut rows, 3).await.len(), 7);
}

#[tokio::test]
async fn a_pending_job_is_reaped_as_started_now_in_an_unknown_stage() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE workspace_builds SET provisioner_state = 'own'").await;
    let now = NOW + Duration::minutes(30);
    let outcome = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(1)), now).await.expect("an answer");
    assert_eq!(outcome, ReapOutcome::Alive, "exactly thirty minutes are not too long");
    assert!(lines(&mut rows, 1).await.is_empty());
    let now = now + Duration::SECOND;
    let outcome = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(1)), now).await.expect("an answer");
    assert!(matches!(outcome, ReapOutcome::Reaped { stuck: Stuck::Pending, .. }), "{outcome:?}");
    let stored = lines(&mut rows, 1).await;
    assert_eq!(stored.len(), 5);
    let text = "Coder: Build has been detected as pending for 30 minutes and will be terminated.";
    assert_eq!(stored[2], format!("1002|provisioner_daemon|error|Unknown|{text}"));
    let job = "SELECT concat_ws('|', job_status, started_at = at_second(1801), completed_at = at_second(1801), error)
               FROM provisioner_jobs WHERE id = u(1)";
    let error = "Coder: Build has been detected as pending for 30 minutes and has been terminated by the reaper.";
    assert_eq!(rows.one(job).await, format!("failed|t|t|{error}"));
    assert_eq!(rows.one("SELECT convert_from(provisioner_state, 'UTF8') FROM workspace_builds").await, "own");
}

#[tokio::test]
async fn a_job_that_somebody_holds_or_that_is_gone_or_that_reports_again_is_left_alone() {
    let mut rows = taken().await;
    let mut other = rows.database.connect().await;
    let later = NOW + Duration::minutes(10);
    let job = JobId(id(1));
    let before = rows.everything().await;
    let mut transaction = other.begin().await.expect("a transaction");
    let beat = store::jobs::heartbeat(&mut transaction, &daemon(1, OWN), job, later).await.expect("the job");
    assert_eq!(beat, ByWorker::Done(Heartbeat { cancel_requested: false }));
    let reap = store::jobs::reap(&mut rows.conn, &reaper(), job, later).await.expect("an answer");
    assert_eq!(reap, ReapOutcome::Unavailable);
    assert_eq!(rows.everything().await, before);
    transaction.commit().await.expect("the commit");
    let before = rows.everything().await;
    let reap = store::jobs::reap(&mut rows.conn, &reaper(), job, later).await.expect("an answer");
    assert_eq!(reap, ReapOutcome::Alive);
    let reap = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(404)), later).await.expect("an answer");
    assert_eq!(reap, ReapOutcome::Unavailable);
    assert_eq!(rows.everything().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_reapers_on_one_job_reap_it_once() {
    let mut rows = Rows::new().await;
    rows.run("DELETE FROM provisioner_jobs; SELECT add_job(n) FROM generate_series(1001, 1100) AS n").await;
    let later = NOW + Duration::hours(1);
    let mut reapers = JoinSet::new();
    for _ in 0..4 {
        let mut conn = rows.database.connect().await;
        reapers.spawn(async move {
            let mut outcomes = Vec::new();
            for n in 1001..=1100 {
                outcomes.push(store::jobs::reap(&mut conn, &reaper(), JobId(id(n)), later).await.expect("an answer"));
            }
            outcomes
        });
    }
    let outcomes: Vec<ReapOutcome> = reapers.join_all().await.into_iter().flatten().collect();
    let reaped = outcomes.iter().filter(|outcome| matches!(outcome, ReapOutcome::Reaped { .. })).count();
    assert_eq!(reaped, 100);
    let others = [ReapOutcome::Unavailable, ReapOutcome::AlreadyCompleted];
    assert_eq!(outcomes.iter().filter(|outcome| others.contains(outcome)).count(), 300);
    let lines = "SELECT DISTINCT count(*) FROM provisioner_job_logs GROUP BY job_id";
    assert_eq!(rows.one(lines).await, "5");
    assert_eq!(rows.one("SELECT count(*) FROM provisioner_jobs WHERE job_status = 'failed'").await, "100");
}
