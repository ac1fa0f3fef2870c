//! Locks, and operations on one job at once.

use std::collections::BTreeMap;

use coderdb::{
    model::{ByWorker, CancelOutcome, Capabilities, End, JobId, JobStatus},
    store,
};
use fastrand::Rng;
use sqlx::Connection;
use time::Duration;
use tokio::task::JoinSet;

use super::{BOTH, cancels_all, locks, tags, taken};
use crate::support::rows::{NOW, Rows, daemon, id};

#[tokio::test]
async fn a_locked_job_keeps_one_reader_waiting_and_looks_like_none_to_the_other() {
    let mut rows = Rows::new().await;
    // SET is for the session.
    let mut other = rows.database.connect_with_session().await;
    let job = JobId(id(1));
    sqlx::raw_sql("SET lock_timeout = '100ms'").execute(&mut other).await.expect("a setting");
    let mut transaction = rows.conn.begin().await.expect("a transaction");
    let held = store::jobs::get_with_lock(&mut transaction, &locks(1), job).await.expect("the job");
    assert_eq!(held.id, job);
    let skipped = store::jobs::get_for_update_skip_locked(&mut other, &locks(1), job).await.expect("an answer");
    assert_eq!(skipped, None);
    let error = store::jobs::get_with_lock(&mut other, &locks(1), job).await.expect_err("it waits");
    assert!(error.to_string().contains("55P03"), "{error}");
    transaction.commit().await.expect("the commit");
    assert_eq!(store::jobs::get_with_lock(&mut other, &locks(1), job).await.expect("the job"), held);
    let found = store::jobs::get_for_update_skip_locked(&mut other, &locks(1), job).await.expect("an answer");
    assert_eq!(found, Some(held));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_job_is_never_worked_on_while_others_acquire_and_complete() {
    const JOBS: u128 = 300;
    let mut rows = Rows::new().await;
    rows.run(&format!(
        "DELETE FROM provisioner_jobs; SELECT add_job(n) FROM generate_series(1001, {}) AS n",
        1000 + JOBS
    ))
    .await;
    let untagged = tags(&[("scope", "organization")]);
    let mut workers = JoinSet::new();
    for n in 1..=6 {
        let (mut conn, tags) = (rows.database.connect().await, untagged.clone());
        workers.spawn(async move {
            let (permit, offer) = (daemon(1, n), Capabilities { provisioners: BOTH, tags: &tags });
            let mut ended = Vec::new();
            while let Some(job) = store::jobs::acquire(&mut conn, &permit, offer, NOW).await.expect("an answer") {
                let end = store::jobs::complete(&mut conn, &permit, job.id, NOW, None).await.expect("the job");
                let ByWorker::Done(End::Ended(end)) = end else { panic!("{end:?}") };
                ended.push((end.job.id, end.job.status));
            }
            ended
        });
    }
    let mut cancelers = JoinSet::new();
    for n in 0..6 {
        let mut conn = rows.database.connect().await;
        cancelers.spawn(async move {
            let mut jobs: Vec<u128> = (1001..=1000 + JOBS).collect();
            Rng::with_seed(n).shuffle(&mut jobs);
            // Half of them one by one, and half in batches.
            let size = if n % 2 == 0 { 1 } else { 25 };
            let jobs: Vec<_> = jobs.into_iter().map(|job| JobId(id(job))).collect();
            let mut outcomes = Vec::new();
            for batch in jobs.chunks(size) {
                let answer = store::jobs::cancel_batch(&mut conn, &cancels_all(1), batch, None, NOW).await;
                outcomes.extend(answer.expect("an answer"));
            }
            outcomes
        });
    }
    let (cancels, ended) = tokio::join!(cancelers.join_all(), workers.join_all());
    let ended: BTreeMap<JobId, JobStatus> = ended.into_iter().flatten().collect();
    let mut won = BTreeMap::new();
    for (job, outcome) in cancels.into_iter().flatten() {
        match outcome {
            CancelOutcome::Canceled(_) => {
                assert_eq!(won.insert(job, "canceled"), None, "two cancels of {job} went through");
                assert_eq!(ended.get(&job), None, "{job} was canceled in the queue and worked on");
            }
            CancelOutcome::Canceling(_) => {
                assert_eq!(won.insert(job, "canceling"), None, "two cancels of {job} went through");
                assert_eq!(ended.get(&job), Some(&JobStatus::Canceled), "{job} was to be canceled");
            }
            CancelOutcome::AlreadyFinished(_) | CancelOutcome::AlreadyCanceled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for n in 1001..=1000 + JOBS {
        let job = JobId(id(n));
        let succeeded = ended.get(&job) == Some(&JobStatus::Succeeded);
        assert_eq!(won.contains_key(&job), !succeeded, "{job}");
    }
    assert!(ended.len() < JOBS as usize && !ended.is_empty(), "no race: {} of {JOBS} jobs were taken", ended.len());
}

#[tokio::test]
async fn heartbeat_and_complete_that_wait_for_the_end_of_their_job_say_that_it_has_ended() {
    for is_heartbeat in [true, false] {
        let mut rows = taken().await;
        let mut other = rows.database.connect().await;
        let mut watcher = rows.database.connect().await;
        let mut transaction = rows.conn.begin().await.expect("a transaction");
        sqlx::raw_sql(
            "UPDATE provisioner_jobs SET completed_at = at_second(5), updated_at = at_second(5) WHERE id = u(1)",
        )
        .execute(&mut *transaction)
        .await
        .expect("the end of the job");
        let message = async {
            let (permit, job, later) = (daemon(1, 7), JobId(id(1)), NOW + Duration::seconds(9));
            if is_heartbeat {
                matches!(store::jobs::heartbeat(&mut other, &permit, job, later).await, Ok(ByWorker::Ended))
            } else {
                let answer = store::jobs::complete(&mut other, &permit, job, later, None).await;
                matches!(answer, Ok(ByWorker::Done(End::AlreadyCompleted { .. })))
            }
        };
        let end = async {
            let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut watcher).await.expect("an answer") {}
            transaction.commit().await.expect("the commit");
        };
        let (has_ended, ()) = tokio::join!(message, end);
        assert!(has_ended, "heartbeat: {is_heartbeat}");
        let times =
            "SELECT completed_at = at_second(5) AND updated_at = at_second(5) FROM provisioner_jobs WHERE id = u(1)";
        assert_eq!(rows.one(times).await, "true");
    }
}
