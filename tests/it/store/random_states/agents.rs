//! Random agents, and random jobs.

use std::{collections::BTreeMap, time::Duration};

use coderdb::{
    model::{AgentLifecycle, AgentStatus, WorkspaceAgent, WorkspaceAgentId},
    store,
};
use fastrand::Rng;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BIG, error, job, lived, store_queue};
use crate::support::{
    self,
    model::{JobRow, Model},
    random_database::one,
    rows::{NOW, id},
    states::{Classes, STATES, Seed, compare},
};

/// What decides on the status of an agent.
#[derive(Debug)]
struct Connection {
    created_at: OffsetDateTime,
    first_connected_at: Option<OffsetDateTime>,
    last_connected_at: Option<OffsetDateTime>,
    disconnected_at: Option<OffsetDateTime>,
    timeout_seconds: i32,
    now: OffsetDateTime,
    inactive_timeout: Duration,
}

/// What the row, the time and the tolerated silence say; what has connected has a last time, by default the first.
fn status(agent: &Connection, classes: &Classes) -> &'static str {
    let whole = |duration: time::Duration| duration.whole_microseconds();
    let timeout = i128::from(agent.timeout_seconds) * 1_000_000;
    let inactive = i128::try_from(agent.inactive_timeout.as_micros()).expect("less");
    let Some(first) = agent.first_connected_at else {
        let age = whole(agent.now - agent.created_at);
        classes.note("the agent is just in time", timeout > 0 && age == timeout);
        classes.note("the agent may take for ever", timeout == 0 && age > 0);
        classes.note("a negative time-out is none", timeout < 0 && age > 0);
        // 1. It never connected: has it had long enough?
        return if timeout > 0 && age > timeout { "timeout" } else { "connecting" };
    };
    let last = agent.last_connected_at.unwrap_or(first);
    classes.note("it hung up in the moment of its last sign", agent.disconnected_at == Some(last));
    classes.note("it came back after it hung up", agent.disconnected_at.is_some_and(|at| at < last));
    classes.note(
        "it was silent for just the time-out",
        agent.disconnected_at.is_none() && whole(agent.now - last) == inactive,
    );
    classes.note("its last sign is in the future", agent.now < last);
    classes.note("only its first sign is known", agent.last_connected_at.is_none());
    // 2. It hung up.
    if agent.disconnected_at.is_some_and(|at| at >= last) {
        return "disconnected";
    }
    // 3. It is silent.
    if whole(agent.now - last) > inactive { "disconnected" } else { "connected" }
}

#[test]
fn random_agents_are_connected_when_the_model_says_so() {
    compare(STATES, 1000, async |_, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let moment = |rng: &mut Rng| {
                let seconds = one(rng, &[0, 0, 1, 2, 60, 120, 120, -60]);
                NOW - time::Duration::seconds(seconds) + time::Duration::microseconds(rng.i64(-1..=1))
            };
            let maybe = |rng: &mut Rng| rng.bool().then(|| moment(rng));
            let row = Connection {
                created_at: moment(rng),
                first_connected_at: maybe(rng),
                last_connected_at: maybe(rng),
                disconnected_at: maybe(rng),
                timeout_seconds: one(rng, &[0, 1, 2, 60, 120, -1, BIG, i32::MIN]),
                now: one(rng, &[NOW, NOW, NOW + time::Duration::microseconds(1)]),
                inactive_timeout: one(
                    rng,
                    &[
                        Duration::ZERO,
                        Duration::from_mins(1),
                        Duration::from_mins(2),
                        Duration::from_micros(1),
                        Duration::MAX,
                    ],
                ),
            };
            let agent = WorkspaceAgent {
                id: WorkspaceAgentId(id(1)),
                parent_id: None,
                name: String::new(),
                created_at: row.created_at,
                first_connected_at: row.first_connected_at,
                last_connected_at: row.last_connected_at,
                disconnected_at: row.disconnected_at,
                connection_timeout_seconds: row.timeout_seconds,
                lifecycle_state: AgentLifecycle::Ready.into(),
                started_at: None,
                ready_at: None,
                operating_system: String::new(),
                architecture: String::new(),
                expanded_directory: String::new(),
                display_order: 0,
                logs_length: 0,
                logs_overflowed: false,
            };
            let actual = agent.status(row.now, row.inactive_timeout);
            assert_eq!(actual.as_str(), status(&row, classes), "{row:#?}");
            for status in AgentStatus::ALL {
                classes.note(status.as_str(), actual == *status);
            }
        }
    });
}

#[test]
fn random_jobs_have_the_status_that_the_model_says() {
    compare(STATES, 500, async |conn, seeds, classes| {
        let jobs: Vec<JobRow> = seeds
            .iter()
            .map(|seed| {
                let rng = &mut Rng::with_seed(*seed);
                let [started_at, canceled_at, completed_at] = lived(rng, 0.05);
                let (error, created_at) = (error(rng), NOW + time::Duration::seconds(1));
                JobRow { started_at, canceled_at, completed_at, error, organization_id: id(1), created_at, ..job(rng) }
            })
            .collect();
        let model = Model { provisioner_jobs: jobs, ..Model::default() };
        store_queue(conn, &model).await;
        let found = store::jobs::created_after(conn, &support::read_jobs(id(1)), NOW).await.expect("jobs");
        let found: BTreeMap<Uuid, &str> = found.iter().map(|job| (job.id.0, job.status.as_str())).collect();
        for (seed, job) in seeds.iter().zip(&model.provisioner_jobs) {
            let _seed = Seed(*seed);
            assert_eq!(found.get(&job.id), Some(&job.status()), "{job:#?}");
            for status in ["pending", "running", "succeeded", "canceling", "canceled", "failed"] {
                classes.note(status, job.status() == status);
            }
            classes.note("canceled before it started", job.status() == "canceled" && job.started_at.is_none());
            classes.note("failed and canceled", job.status() == "failed" && job.canceled_at.is_some());
            classes.note("failed and not completed", job.status() == "failed" && job.completed_at.is_none());
            classes.note("an empty error is none", job.status() != "failed" && job.error.is_some());
            classes.note("a space is an error", job.error.as_deref() == Some(" "));
        }
    });
}
