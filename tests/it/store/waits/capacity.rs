//! How many daemons it takes, beside histories of a plain simulator (domain: capacity).

use std::{sync::Mutex, time::Duration};

use coderdb::model::{Capacity, FurtherDaemons, Tags};
use fastrand::Rng;

use super::expected::look;
use crate::support::{
    history::{Made, Worker, World, tag_set, tags},
    states::{Seed, all_seeds, compare},
};

/// How many histories; `CODERDB_TEST_CASES` multiplies it.
const HISTORIES: u64 = 12;

fn of(all: &[Capacity], set: usize) -> &Capacity {
    all.iter().find(|it| it.tags == Tags::from(tags(set))).expect("it has jobs")
}

/// The wait that 95 % of the jobs of people stay within, in seconds.
fn p95(world: &World, set: usize) -> f64 {
    let of_people = world.jobs.iter().filter(|job| tag_set(job.template) == set && !job.is_prebuild);
    let mut waits: Vec<i64> = of_people.map(|job| job.started.expect("it started") - job.created).collect();
    waits.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "days")]
    let wait = waits[(waits.len() * 95).div_ceil(100) - 1] as f64 / 1_000.0;
    wait
}

fn seconds(length: Option<Duration>) -> f64 {
    length.expect("a length").as_secs_f64()
}

#[test]
fn capacity_replays_recorded_days_within_a_tenth_and_names_the_fewest_daemons_that_are_enough() {
    let errors = Mutex::new(Vec::new());
    compare(HISTORIES, 1, async |conn, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let world = World::new(rng, 900, seed % 2 == 1);
            let moment = world.jobs.iter().filter_map(Made::ended).max().expect("jobs") + 1_000;
            world.store(conn, moment).await;
            let (view, history) = look(conn, moment).await;
            let target = Duration::from_secs(30);
            let more = FurtherDaemons { tags: tags(1).into(), count: 2 };
            let all = view.capacity(&history, target, std::slice::from_ref(&more));
            assert_eq!(all.len(), 3);
            assert!(all.is_sorted_by_key(|it| std::cmp::Reverse(it.jobs)));
            let mut worked = 0.0;
            for set in 0..3 {
                let it = of(&all, set);
                let jobs: Vec<_> = world.jobs.iter().filter(|job| tag_set(job.template) == set).collect();
                assert_eq!(it.jobs, jobs.len());
                assert_eq!(it.prebuilds, jobs.iter().filter(|job| job.is_prebuild).count());
                let able = world.workers.iter().filter(|worker| worker.serves.contains(&set)).count();
                assert_eq!(it.daemons, able);
                #[expect(clippy::cast_precision_loss, reason = "few")]
                let per_hour = jobs.len() as f64 / ((moment - world.jobs[0].created) as f64 / 3_600_000.0);
                assert!((it.jobs_per_hour / per_hour - 1.0).abs() < 1e-6, "{it:#?} {per_hour}");
                let recorded = p95(&world, set);
                assert!((seconds(it.recorded_wait_p95) - recorded).abs() < 0.01, "{it:#?} {recorded}");
                let replayed = seconds(it.wait_p95);
                if recorded > 10.0 {
                    errors.lock().expect("nobody panics").push((replayed - recorded).abs() / recorded);
                }
                // Elsewhere, who takes what changes, too.
                assert!(set != 1 || seconds(it.further_wait_p95) <= 1.2 * replayed + 5.0, "{it:#?}");
                classes.note("further daemons help", seconds(it.further_wait_p95) < replayed);
                if set == 0 {
                    worked = it.busy.expect("daemons");
                }
                // One daemon fewer is not enough, and as many are: by the plain simulator, with these jobs alone.
                for (daemons, is_enough) in [(it.needed, true), (it.needed - 1, false)] {
                    if daemons > 0 {
                        let mut alone = world.clone();
                        alone.jobs.retain(|job| tag_set(job.template) == set);
                        alone.jobs.iter_mut().for_each(|job| job.started = None);
                        alone.workers = vec![Worker { tags: tags(set), serves: vec![set] }; daemons];
                        alone.go_on(0, rng);
                        assert_eq!(p95(&alone, set) <= 30.0, is_enough, "{daemons} {it:#?}");
                    }
                }
                classes.note("too few daemons", it.needed > it.daemons);
                classes.note("enough daemons", it.needed <= it.daemons);
            }
            assert!(worked > 0.0 && worked <= 1.0, "{worked}");
        }
    });
    let mut errors = errors.into_inner().expect("nobody panics");
    errors.sort_by(f64::total_cmp);
    let within = errors.iter().filter(|error| **error <= 0.1).count();
    let exact = errors.iter().filter(|error| **error < 1e-3).count();
    println!(
        "{} tag sets: {exact} exact, {within} within a tenth, at worst {:.2}",
        errors.len(),
        errors[errors.len() - 1]
    );
    if all_seeds() {
        assert!(errors.len() > 10 && within * 10 >= errors.len() * 8, "{errors:?}");
    }
}
