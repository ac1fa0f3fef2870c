//! Positions, sizes and workers of random queues.

use std::time::Duration;

use coderdb::{
    model::{DaemonId, JobFilter, JobId, PageRequest},
    store,
};
use fastrand::Rng;
use uuid::Uuid;

use super::job;
use super::store_queue;
use crate::support::{
    self,
    model::{Branch, DaemonRow, Model},
    random_database::{self as rows, STALE, often, one},
    rows::id,
    states::{SLOW_STATES, Seed, compare},
};

fn a_daemon(rng: &mut Rng, n: usize) -> DaemonRow {
    let provisioners: &[&str] = one(rng, &[&[] as &[&str], &["echo"], &["terraform"], &["terraform", "echo"]]);
    DaemonRow {
        id: rows::uuid(rng),
        created_at: rows::time(rng),
        name: format!("daemon-{n}"),
        provisioners: provisioners.iter().map(ToString::to_string).collect(),
        tags: rows::tags(rng),
        last_seen_at: rows::last_seen(rng),
        organization_id: id(if often(rng, 0.75) { 1 } else { 2 }),
    }
}

/// What a queue has to be like for a rule of the positions to matter.
const QUEUES: &[Branch] = &[
    Branch::UntaggedMatch,
    Branch::UntaggedRefused,
    Branch::TaggedMatch,
    Branch::TaggedMissing,
    Branch::EmptyTagsMatch,
    Branch::DefaultTagsMatch,
    Branch::OddTagsMatch,
    Branch::NotAnObjectTags,
    Branch::EmptyError,
    Branch::FailedNotCompleted,
    Branch::CancelingNeverStarted,
    Branch::Ranked,
    Branch::RankedBehindPerson,
    Branch::RankedTie,
    Branch::QueueSizeOfUnqueued,
    Branch::Workers,
    Branch::WorkersStale,
    Branch::WorkersTie,
    Branch::WorkersOfCompleted,
    Branch::WorkerOtherOrganization,
    Branch::WorkerOtherProvisioner,
    Branch::NoWorker,
    Branch::ListTie,
    Branch::BoundaryOnline,
    Branch::Offline,
    Branch::NeverSeen,
    Branch::SharedTags,
    Branch::IrrelevantTags,
    Branch::SeveralTagSets,
    Branch::PositionAndSizeDiffer,
    Branch::RankedForeign,
    Branch::RankedOtherProvisioner,
    Branch::NoTagSet,
    Branch::RankedNotListed,
    Branch::ByIdsBehindPerson,
];

#[test]
fn places_sizes_and_workers_in_random_queues_are_those_of_the_model() {
    compare(SLOW_STATES, 1, async |conn, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let model = Model {
                provisioner_jobs: (0..rng.usize(..=12)).map(|_| job(rng)).collect(),
                provisioner_daemons: (0..rng.usize(..=5)).map(|n| a_daemon(rng, n)).collect(),
                ..Model::default()
            };
            store_queue(conn, &model).await;
            let organization = id(if often(rng, 0.75) { 1 } else { 2 });
            let permit = support::read_jobs(organization);

            let expected = model.organization(organization);
            let page = store::jobs::list(conn, &permit, &JobFilter::default(), PageRequest::default()).await;
            let actual: Vec<_> = page
                .expect("a page")
                .rows
                .into_iter()
                .map(|row| (row.job.id.0, row.queue_position, row.queue_size, row.available_workers))
                .collect();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|row| {
                    let workers = row.available_workers.into_iter().map(DaemonId).collect::<Vec<_>>();
                    (row.job.id, row.queue_position, row.queue_size, workers)
                })
                .collect();
            assert_eq!(actual, expected, "5.4 of {model:#?}");

            let some = rng.f64();
            let mut ids: Vec<Uuid> = model
                .provisioner_jobs
                .iter()
                .filter(|job| job.organization_id == organization && rng.f64() <= some)
                .map(|job| job.id)
                .collect();
            let stale = one(rng, &[STALE.unsigned_abs(), STALE.unsigned_abs(), Duration::ZERO, Duration::MAX]);
            let expected: Vec<_> = model
                .by_ids_with_queue_position(&ids, rows::NOW, stale)
                .iter()
                .map(|row| (row.job.id, row.queue_position, row.queue_size))
                .collect();
            ids.extend([Uuid::nil(), ids.first().copied().unwrap_or_default()]);
            rng.shuffle(&mut ids);
            let ids: Vec<JobId> = ids.into_iter().map(JobId).collect();
            let rows = store::jobs::by_ids_with_queue_position(conn, &permit, &ids, rows::NOW, stale).await;
            let actual: Vec<_> =
                rows.expect("the rows").iter().map(|row| (row.job.id.0, row.queue_position, row.queue_size)).collect();
            assert_eq!(actual, expected, "5.3 of {ids:?} in {model:#?}");
            for branch in QUEUES {
                let (count, sentence) = model.reached.count(*branch);
                classes.note(sentence, count > 0);
            }
        }
    });
}
