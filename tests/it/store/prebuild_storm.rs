//! What a storm of prebuilds does to the jobs of people, and what the guard gives them back: real claims on a clock of the
//! test's own, so that nothing waits for real.

use std::{cmp::Reverse, collections::BinaryHeap};

use coderdb::{
    authz::{Actor, CancelJobs, ReadJobs, RunJobs, System},
    cancel::{Plan, Run},
    model::{
        ByWorker, Capabilities, DaemonId, ExpectedStatus, JobFilter, JobId, OrganizationId, ProvisionerType, Tags,
        UserId,
    },
    store,
};
use fastrand::Rng;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::rows::{NOW, Rows, id};

const DAEMONS: u128 = 4;
const HOURS: i64 = 6;
/// Jobs of people take so long, in seconds, and come so often: the daemons are busy three quarters of the time.
const PERSON: i64 = 60;
const PERSON_EVERY: i64 = 20;
/// Prebuilds take so long, and the reconciler asks for so many at once, again and again, unless it is paused.
const PREBUILD: i64 = 120;
const WAVE: u128 = 60;
const WAVE_EVERY: i64 = 600;
/// How often the guard looks, and how many may wait.
const INTERVAL: i64 = 30;
const MAX_WAITING: usize = 0;
const RESUME_AFTER: i64 = 3_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Person,
    Wave,
    Guard,
    Ended(u128, JobId),
}

/// How long each person's job waited, in seconds.
async fn waits(prebuilds: bool, guard: bool) -> Vec<i64> {
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM provisioner_jobs; INSERT INTO files (id, hash, created_at, created_by, mimetype, data)
              VALUES (u(9), 'h', now(), u(1), 'application/x-tar', '')",
    )
    .await;
    let organization = OrganizationId(id(1));
    let operator = Actor::system(System::Operator);
    let read = ReadJobs::check(&operator, organization).expect("an operator");
    let cancel = CancelJobs::check(&operator, organization).expect("an operator");
    let filter = JobFilter { initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
    let tags = Tags::untagged();
    let able = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    let (mut rng, mut waits) = (Rng::with_seed(7), Vec::new());
    let mut events = BinaryHeap::from([Reverse((0, Event::Person))]);
    if prebuilds {
        events.push(Reverse((1_000, Event::Wave)));
    }
    if guard {
        events.push(Reverse((INTERVAL, Event::Guard)));
    }
    let (mut idle, mut next) = ((0..DAEMONS).collect::<Vec<_>>(), 0_u128);
    let (mut is_paused, mut flooded_at) = (false, 0);
    while let Some(Reverse((second, event))) = events.pop() {
        if second > HOURS * 3_600 {
            break;
        }
        let now = NOW + Duration::seconds(second);
        let mut come = Vec::new();
        match event {
            Event::Person => {
                come.push((false, next));
                next += 1;
                events.push(Reverse((second + rng.i64(1..2 * PERSON_EVERY), Event::Person)));
            }
            Event::Wave => {
                if !is_paused {
                    come.extend((next..next + WAVE).map(|n| (true, n)));
                    next += WAVE;
                }
                events.push(Reverse((second + WAVE_EVERY, Event::Wave)));
            }
            Event::Guard => {
                let mut plan =
                    Plan::chosen(&mut rows.conn, &read, &filter, Some(ExpectedStatus::Pending)).await.expect("jobs");
                let waiting = plan.len();
                // As `coderdb prebuilds guard --pause --cancel` decides.
                if waiting > MAX_WAITING {
                    (is_paused, flooded_at) = (true, second);
                } else if second >= flooded_at + RESUME_AFTER {
                    is_paused = false;
                }
                plan.truncate(waiting.saturating_sub(MAX_WAITING));
                let mut run = Run::new(&plan);
                while let Some(batch) = run.next(&mut rows.conn, &cancel, now).await {
                    batch.expect("canceled");
                }
                events.push(Reverse((second + INTERVAL, Event::Guard)));
            }
            Event::Ended(daemon, job) => {
                let permit = permit(organization, daemon);
                let ended = store::jobs::complete(&mut rows.conn, &permit, job, now, None).await.expect("an answer");
                assert!(matches!(ended, ByWorker::Done(_)));
                idle.push(daemon);
            }
        }
        for (is_prebuild, n) in come {
            insert(&mut rows, is_prebuild, n, now).await;
        }
        while let Some(daemon) = idle.pop() {
            let permit = permit(organization, daemon);
            let Some(job) = store::jobs::acquire(&mut rows.conn, &permit, able, now).await.expect("an answer") else {
                idle.push(daemon);
                break;
            };
            let is_prebuild = job.initiator_id == UserId::PREBUILDS;
            if !is_prebuild {
                waits.push((now - job.created_at).whole_seconds());
            }
            let takes = if is_prebuild { PREBUILD } else { PERSON };
            events.push(Reverse((second + rng.i64(takes / 2..takes * 3 / 2), Event::Ended(daemon, job.id))));
        }
    }
    waits
}

fn permit(organization: OrganizationId, daemon: u128) -> RunJobs {
    RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(Uuid::from_u128(100 + daemon)))
        .expect("a daemon")
}

async fn insert(rows: &mut Rows, is_prebuild: bool, n: u128, now: OffsetDateTime) {
    let initiator = if is_prebuild { UserId::PREBUILDS.0 } else { id(1) };
    coderdb::sqlx::query(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method,
             file_id, type, input, tags)
         VALUES ($1, $2, $2, u(1), $3, 'echo', 'file', u(9), 'template_version_import', '{}', $4)",
    )
    .bind(Uuid::from_u128(0x1000 + n))
    .bind(now)
    .bind(initiator)
    .bind(coderdb::sqlx::types::Json(serde_json::json!({"scope": "organization", "owner": ""})))
    .execute(&mut rows.conn)
    .await
    .expect("a job");
}

fn mean(waits: &[i64]) -> f64 {
    let count = u32::try_from(waits.len()).expect("few");
    f64::from(i32::try_from(waits.iter().sum::<i64>()).expect("few seconds")) / f64::from(count)
}

#[tokio::test]
async fn guard_keeps_people_from_waiting_longer_in_a_storm_of_prebuilds() {
    let (calm, storm, guarded) = (waits(false, false).await, waits(true, false).await, waits(true, true).await);
    let [calm, storm, guarded] = [calm, storm, guarded].map(|waits| {
        assert!(waits.len() > 500, "{}", waits.len());
        mean(&waits)
    });
    println!("people wait {calm:.1} s without prebuilds, {storm:.1} s in the storm, {guarded:.1} s with the guard");
    assert!(storm > 2.0 * calm, "the storm delays people: {storm} {calm}");
    assert!(guarded < 1.2 * calm, "the guard lets them wait as without prebuilds: {guarded} {calm}");
}
