//! One reason for each job that waits, in many states (domain: why a job waits).

use std::time::Duration;

use coderdb::{
    model::{JobId, WhyWaiting},
    store::queue,
};
use fastrand::Rng;

use crate::{
    store::queue_snapshot::a_state_of,
    support::{
        self,
        random_database::{NOW, STALE},
        rows::id,
        snapshot::{At, alike_why, note, snapshot},
        states::{Seed, compare},
    },
};

/// 50 states with 500 jobs each: 25,000 pairs, and 125,000 by `./test --all`.
#[test]
fn why_has_one_reason_for_each_job_in_many_states_and_it_is_that_of_a_brute_force() {
    compare(50, 1, async |conn, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            // With so many jobs, few daemons are all busy.
            let daemons = if rng.bool() { rng.usize(..=12) } else { rng.usize(40..150) };
            let model = a_state_of(conn, rng, 500, daemons).await;
            let at = At::new(&model, NOW, STALE.unsigned_abs());
            let view = snapshot(conn, NOW, STALE.unsigned_abs()).await.everywhere();
            for job in &model.provisioner_jobs {
                let (said, expected) = (view.why(JobId(job.id)), at.why(job));
                note(classes, job, expected.as_ref());
                assert_eq!(said.clone().map(alike_why), expected.map(alike_why), "{job:#?}");
                // Whoever waits for somebody to do something is told what, and is not promised a time.
                if let Some(why) = said {
                    assert!(!why.next_step().is_empty());
                    let ranked =
                        matches!(why, WhyWaiting::AllBusy { .. } | WhyWaiting::Ranked(_) | WhyWaiting::Canceling);
                    assert_eq!(why.is_stuck(), !ranked);
                }
            }
            let (read, window) = (support::read_jobs(id(1)), Duration::from_hours(1));
            let history = queue::history(conn, &read, NOW, window, 100).await.expect("a history");
            let ids: Vec<JobId> = model.provisioner_jobs.iter().map(|job| JobId(job.id)).collect();
            for (id, _) in view.expected_waits(&ids, &history) {
                let why = view.why(id);
                assert!(matches!(why, Some(WhyWaiting::AllBusy { .. } | WhyWaiting::Ranked(_))), "{why:?}");
            }
        }
    });
}
