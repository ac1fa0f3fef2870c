//! Expected waits beside when jobs really started (domain: expected wait).

use std::{sync::Mutex, time::Duration};

use coderdb::{
    authz::{Actor, ReadQueue, System},
    model::{ExpectedWait, JobId, Tags, WhyWaiting},
    sqlx::PgConnection,
    store::queue::{self, History, View},
};
use fastrand::Rng;

use crate::support::{
    self,
    history::{World, tag_set, tags, time},
    random_database::STALE,
    rows::id,
    states::{Seed, all_seeds, compare},
};

const WEEK: Duration = Duration::from_hours(7 * 24);

pub async fn look(conn: &mut PgConnection, moment: i64) -> (View, History) {
    let (whole, read) =
        (ReadQueue::check(&Actor::system(System::Watcher)).expect("the watcher"), support::read_jobs(id(1)));
    let snapshot = queue::snapshot(conn, &whole, time(moment), STALE.unsigned_abs()).await.expect("a snapshot");
    let history = queue::history(conn, &read, time(moment), WEEK, 5_000).await.expect("a history");
    (snapshot.of(&read), history)
}

/// What was said of a job, and what became of it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    is_storm: bool,
    is_prebuild: bool,
    said: ExpectedWait,
    /// In seconds.
    waited: f64,
}

/// The share of the jobs whose wait lay in the span that was said, and the median of the relative error of those that
/// waited for more than 10 seconds.
fn measured(asked: &[&Asked]) -> (f64, f64) {
    let within = asked.iter().filter(|it| {
        let (low, high) = (it.said.p10.as_secs_f64(), it.said.p90.as_secs_f64());
        (low - 1e-3..=high + 1e-3).contains(&it.waited)
    });
    let long = asked.iter().filter(|it| it.waited > 10.0);
    let mut errors: Vec<f64> = long.map(|it| (it.said.p50.as_secs_f64() - it.waited).abs() / it.waited).collect();
    errors.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let share = within.count() as f64 / asked.len() as f64;
    (share, errors.get(errors.len() / 2).copied().unwrap_or(0.0))
}

/// How many histories; `CODERDB_TEST_CASES` multiplies it.
const HISTORIES: u64 = 24;

#[test]
fn expected_waits_have_the_error_that_the_page_says() {
    let all = Mutex::new(Vec::new());
    compare(HISTORIES, 1, async |conn, seeds, _| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let is_storm = seed % 2 == 1;
            let world = World::new(rng, 900, is_storm);
            // A moment at which somebody waits; chosen by what is known by then, because long waits have more moments.
            // Long before the end, so that people go on asking.
            let middle = world.jobs[world.jobs.len() / 2].created..world.jobs[world.jobs.len() * 2 / 3].created;
            let waits = |moment: &i64| {
                world.jobs.iter().any(|job| job.created < *moment && job.started.is_some_and(|at| at > *moment))
            };
            let Some(moment) = (0..100).map(|_| rng.i64(middle.clone())).find(waits) else { continue };
            world.at(moment).store(conn, moment).await;
            let (view, history) = look(conn, moment).await;
            let ids: Vec<JobId> = view.jobs().collect();
            let expected = view.expected_waits(&ids, &history);
            assert_eq!(view.expected_waits(&ids, &history), expected, "the same for the same");
            // The last of each tag set is behind all others of it.
            for queue in view.by_tags() {
                let last = view.last(&queue).expect("a job");
                let (_, behind) = ids.split_at(ids.iter().position(|id| *id == last).expect("it waits") + 1);
                let same = |id: &JobId| {
                    let job = world.jobs.iter().find(|job| job.id == id.0).expect("it is there");
                    Tags::from(tags(tag_set(job.template))) == queue.tags
                };
                assert!(same(&last) && !behind.iter().any(same), "{queue:?}");
            }
            let mut waiting: Vec<_> = ids.clone();
            rng.shuffle(&mut waiting);
            for id in waiting.iter().take(4) {
                assert!(
                    view.why(*id).is_some_and(|why| matches!(why, WhyWaiting::AllBusy { .. } | WhyWaiting::Ranked(_)))
                );
                let job = world.jobs.iter().find(|job| job.id == id.0).expect("it is there");
                #[expect(clippy::cast_precision_loss, reason = "days")]
                let waited = (job.started.expect("it started") - moment) as f64 / 1_000.0;
                let said = expected[id];
                assert!(said.p10 <= said.p50 && said.p50 <= said.p90);
                all.lock().expect("nobody panics").push(Asked { is_storm, is_prebuild: job.is_prebuild, said, waited });
                // It does not matter how many are asked for together.
                if rng.u8(..8) == 0 {
                    let one = view.expected_waits(&[*id], &history)[id];
                    let (one, all) = (one.p50.as_secs_f64(), said.p50.as_secs_f64());
                    assert!((one - all).abs() <= 5.0 + 0.25 * all, "{one} {all}");
                }
            }
        }
    });
    let all = all.into_inner().expect("nobody panics");
    println!("regime  jobs of    asked  within  error");
    for (is_storm, is_prebuild) in [(false, false), (false, true), (true, false), (true, true)] {
        let asked: Vec<_> = all.iter().filter(|it| (it.is_storm, it.is_prebuild) == (is_storm, is_prebuild)).collect();
        let (share, error) = measured(&asked);
        let regime = if is_storm { "storm" } else { "calm" };
        let whose = if is_prebuild { "prebuilds" } else { "people" };
        println!("{regime:6}  {whose:9}  {:5}  {share:6.2}  {error:5.2}", asked.len());
    }
    if all_seeds() {
        // Few: the figures of many are on the page.
        let (people, prebuilds): (Vec<_>, Vec<_>) = all.iter().partition(|it| !it.is_prebuild);
        for (asked, least) in [(people, 0.5), (prebuilds, 0.35)] {
            let (share, error) = measured(&asked);
            assert!(asked.len() > 10 && share >= least && error < 1.0, "{} {share} {error}", asked.len());
        }
    }
}
