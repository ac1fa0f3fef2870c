//! Signs of life, ends and cancels in every state of a job.

use std::collections::{BTreeMap, HashMap};

use coderdb::{
    model::{
        ByWorker, CancelOutcome, End, ExpectedStatus, Failure, FailureCode, Heartbeat, JobErrorCode, JobId, JobStatus,
    },
    store,
};
use sqlx::Connection;
use time::Duration;
use tokio::task::JoinSet;

use super::{OWN, cancels_all};
use crate::support::rows::{NOW, Rows, daemon, id};

/// The four columns that make the status (domain: job status), and who works on the job.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "the domain has four independent columns")]
struct State {
    completed: bool,
    canceled: bool,
    started: bool,
    error: bool,
    worker: Option<u128>,
}

impl State {
    /// All 16 combinations, each without a worker, with our daemon and with another one; jobs 100 to 147.
    fn all() -> impl Iterator<Item = (u128, Self)> {
        (0..48_u32).map(|n| {
            let bit = |b: u32| n >> b & 1 == 1;
            let worker = [None, Some(OWN), Some(OWN + 1)][n as usize / 16];
            let state = Self { completed: bit(0), canceled: bit(1), started: bit(2), error: bit(3), worker };
            (u128::from(n) + 100, state)
        })
    }

    async fn fill(rows: &mut Rows) {
        for (n, state) in Self::all() {
            let time = |set| if set { "at_second(1)" } else { "NULL" };
            let worker = state.worker.map_or("NULL".to_owned(), |worker| format!("u({worker})"));
            rows.run(&format!(
                "SELECT add_job({n}); UPDATE provisioner_jobs SET completed_at = {}, canceled_at = {}, started_at = {},
                 error = {}, worker_id = {worker} WHERE id = u({n})",
                time(state.completed),
                time(state.canceled),
                time(state.started),
                if state.error { "'x'" } else { "NULL" },
            ))
            .await;
        }
    }

    fn status(self) -> JobStatus {
        match (self.error, self.completed, self.canceled, self.started) {
            (true, ..) => JobStatus::Failed,
            (_, true, true, _) => JobStatus::Canceled,
            (_, true, false, _) => JobStatus::Succeeded,
            (_, false, true, _) => JobStatus::Canceling,
            (_, _, _, false) => JobStatus::Pending,
            (_, _, _, true) => JobStatus::Running,
        }
    }
}

async fn row(rows: &mut Rows, n: u128) -> String {
    rows.one(&format!("SELECT to_jsonb(j) FROM provisioner_jobs AS j WHERE id = u({n})")).await
}

#[tokio::test]
async fn a_heartbeat_reaches_only_the_daemons_own_job_and_says_whether_to_stop() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    let later = NOW + Duration::minutes(1);
    for (n, state) in State::all() {
        let before = row(&mut rows, n).await;
        let outcome =
            store::jobs::heartbeat(&mut rows.conn, &daemon(1, OWN), JobId(id(n)), later).await.expect("a job");
        let expected = match state.worker {
            None => ByWorker::NotRunningYet,
            Some(OWN) if state.completed => ByWorker::Ended,
            Some(OWN) => ByWorker::Done(Heartbeat { cancel_requested: state.canceled }),
            Some(_) => ByWorker::OtherOwner,
        };
        assert_eq!(outcome, expected, "{state:?}");
        let is_alive = state.worker == Some(OWN) && !state.completed;
        assert_eq!(row(&mut rows, n).await != before, is_alive, "{state:?}");
        let updated = format!("SELECT (updated_at = at_second(60))::text FROM provisioner_jobs WHERE id = u({n})");
        assert_eq!(rows.one(&updated).await == "true", is_alive, "{state:?}");
    }
    // A clock that was set back does not take the sign of life back.
    let before = row(&mut rows, 116).await;
    let outcome = store::jobs::heartbeat(&mut rows.conn, &daemon(1, OWN), JobId(id(116)), NOW).await.expect("a job");
    assert_eq!(outcome, ByWorker::Done(Heartbeat { cancel_requested: false }));
    assert_eq!(row(&mut rows, 116).await, before);
}

#[tokio::test]
async fn a_job_ends_once_by_its_own_daemon_in_every_state() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    let later = NOW + Duration::minutes(1);
    let permit = daemon(1, OWN);
    for fails in [false, true] {
        for (n, state) in State::all() {
            let before = row(&mut rows, n).await;
            let mut transaction = rows.conn.begin().await.expect("a transaction");
            let outcome = if fails {
                let code = Some(FailureCode::RequiredTemplateVariables);
                let failure = Failure { error: "boom", code, ..Failure::default() };
                store::jobs::fail(&mut transaction, &permit, JobId(id(n)), later, failure).await
            } else {
                store::jobs::complete(&mut transaction, &permit, JobId(id(n)), later, None).await
            };
            match (state.worker, outcome.expect("a job")) {
                (None, ByWorker::NotRunningYet) => {}
                (Some(OWN), ByWorker::Done(End::AlreadyCompleted { .. })) => assert!(state.completed, "{state:?}"),
                (Some(OWN), ByWorker::Done(End::Ended(ended))) => {
                    let job = ended.job;
                    assert!(!state.completed, "{state:?}");
                    assert_eq!((job.completed_at, job.updated_at), (Some(later), later));
                    let status = State { completed: true, error: fails, ..state }.status();
                    assert_eq!(job.status, status, "{state:?}");
                    assert_eq!(job.error.as_deref(), fails.then_some("boom"));
                    assert_eq!(job.error_code, fails.then_some(JobErrorCode::RequiredTemplateVariables));
                    transaction.rollback().await.expect("the rollback");
                    continue;
                }
                (Some(worker), ByWorker::OtherOwner) => assert_ne!(worker, OWN),
                (_, outcome) => panic!("{state:?}: {outcome:?}"),
            }
            transaction.commit().await.expect("the commit");
            assert_eq!(row(&mut rows, n).await, before, "{state:?}");
        }
    }
}

#[tokio::test]
async fn a_cancel_obeys_the_rules_in_their_order_in_every_state() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    let later = NOW + Duration::minutes(1);
    let mut seen = BTreeMap::new();
    for expected in [None, Some(ExpectedStatus::Pending), Some(ExpectedStatus::Running)] {
        for (n, state) in State::all() {
            let before = row(&mut rows, n).await;
            let mut transaction = rows.conn.begin().await.expect("a transaction");
            let outcome = store::jobs::cancel(&mut transaction, &cancels_all(1), JobId(id(n)), expected, later)
                .await
                .expect("a job");
            let (name, job) = match outcome {
                CancelOutcome::AlreadyFinished(job) => ("finished", job),
                CancelOutcome::AlreadyCanceled(job) => ("canceled before", job),
                CancelOutcome::NotInExpectedState(job) => ("unexpected", job),
                CancelOutcome::Canceled(job) => ("canceled", job),
                CancelOutcome::Canceling(job) => ("canceling", job),
                CancelOutcome::NotAllowed => panic!("an operator may"),
            };
            *seen.entry(name).or_insert(0) += 1;
            let is_expected = expected.is_none_or(|expected| expected.as_str() == state.status().as_str());
            let rule = if state.completed {
                "finished"
            } else if state.canceled {
                "canceled before"
            } else if !is_expected {
                "unexpected"
            } else if state.worker.is_none() {
                "canceled"
            } else {
                "canceling"
            };
            assert_eq!(name, rule, "{state:?} {expected:?}");
            let writes = ["canceled", "canceling"].contains(&name);
            let after =
                State { canceled: state.canceled || writes, completed: state.completed || name == "canceled", ..state };
            assert_eq!(job.status, after.status(), "{state:?}");
            if writes {
                assert_eq!(job.canceled_at, Some(later));
                assert_eq!(job.completed_at, (name == "canceled").then_some(later));
                assert_eq!(job.updated_at, NOW, "the sign of life is the daemon's alone");
                transaction.rollback().await.expect("the rollback");
            } else {
                transaction.commit().await.expect("the commit");
                assert_eq!(row(&mut rows, n).await, before, "{state:?}");
            }
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

/// Where each job lies, and who has locked it last.
const VERSIONS: &str = "SELECT concat_ws(' ', ctid, xmax) FROM provisioner_jobs ORDER BY id";

/// Whether a job lies where it lay, whoever has locked it since.
fn written_as(old: &str, new: &str) -> bool {
    old.split(' ').next() == new.split(' ').next()
}

#[tokio::test]
async fn a_batch_decides_on_each_job_as_a_cancel_of_one_does_and_leaves_out_what_is_not_there() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    rows.run("SELECT add_organization(2)").await;
    let later = NOW + Duration::minutes(1);
    let jobs: Vec<_> = State::all().map(|(n, _)| JobId(id(n))).collect();
    for expected in [None, Some(ExpectedStatus::Pending), Some(ExpectedStatus::Running)] {
        let (mut one_by_one, before) = (HashMap::new(), rows.everything().await);
        rows.run("BEGIN").await;
        for job in &jobs {
            let outcome = store::jobs::cancel(&mut rows.conn, &cancels_all(1), *job, expected, later).await;
            one_by_one.insert(*job, outcome.expect("a job"));
        }
        let after = rows.everything().await;
        rows.run("ROLLBACK; BEGIN").await;
        let asked: Vec<_> = jobs.iter().rev().chain(&jobs).copied().chain([JobId(id(404))]).collect();
        let elsewhere = store::jobs::cancel_batch(&mut rows.conn, &cancels_all(2), &asked, expected, later).await;
        assert_eq!(elsewhere.expect("an answer"), HashMap::new());
        assert_eq!(rows.everything().await, before);
        let versions = rows.all(VERSIONS).await;
        let would = store::jobs::would_cancel_batch(&mut rows.conn, &cancels_all(1), &asked, expected).await;
        let kinds = |outcomes: &HashMap<JobId, CancelOutcome>| -> BTreeMap<JobId, _> {
            outcomes.iter().map(|(job, outcome)| (*job, std::mem::discriminant(outcome))).collect()
        };
        let would = would.expect("an answer");
        assert_eq!(kinds(&would), kinds(&one_by_one), "{expected:?}");
        for outcome in would.values() {
            if let CancelOutcome::Canceled(job) | CancelOutcome::Canceling(job) = outcome {
                assert_eq!((job.canceled_at, job.completed_at), (None, None), "as it is");
            }
        }
        assert_eq!(rows.all(VERSIONS).await, versions, "neither written nor locked");
        let batch = store::jobs::cancel_batch(&mut rows.conn, &cancels_all(1), &asked, expected, later).await;
        assert_eq!(batch.expect("an answer"), one_by_one, "{expected:?}");
        assert_eq!(rows.everything().await, after, "{expected:?}");
        let written =
            rows.all(VERSIONS).await.into_iter().filter(|version| !versions.iter().any(|old| written_as(old, version)));
        let canceled =
            one_by_one.values().filter(|it| matches!(it, CancelOutcome::Canceled(_) | CancelOutcome::Canceling(_)));
        assert_eq!(written.count(), canceled.count(), "what is refused is not written");
        rows.run("ROLLBACK").await;
    }
}

#[tokio::test]
async fn two_batches_in_opposite_orders_wait_for_each_other_only_once() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(n) FROM generate_series(1001, 1300) AS n").await;
    let mut jobs: Vec<_> = (1001..=1300).map(|n| JobId(id(n))).collect();
    for _ in 0..10 {
        let mut batches = JoinSet::new();
        for _ in 0..4 {
            jobs.reverse();
            let (mut conn, jobs) = (rows.database.connect().await, jobs.clone());
            batches.spawn(async move { store::jobs::cancel_batch(&mut conn, &cancels_all(1), &jobs, None, NOW).await });
        }
        let mut canceled = 0;
        for answer in batches.join_all().await {
            let outcomes = answer.expect("no deadlock");
            assert_eq!(outcomes.len(), jobs.len());
            canceled += outcomes.values().filter(|outcome| matches!(outcome, CancelOutcome::Canceled(_))).count();
        }
        assert_eq!(canceled, jobs.len(), "each job once");
        rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL").await;
    }
}
