//! Who has the queue, and what says how long jobs take.

use std::{collections::BTreeMap, time::Duration};

use coderdb::{
    model::{ShareBy, Spread, Tags},
    sqlx::PgConnection,
    store,
};
use uuid::Uuid;

use super::world::World;
use crate::support::{
    model::{JobRow, PREBUILDS},
    random_database::NOW,
    read_jobs,
    snapshot::alike,
};

const WINDOW: Duration = Duration::from_mins(30);

/// What jobs have in common.
type Key = (Option<Uuid>, Option<Tags>);

/// How many wait, how many of them are prebuilds, how many run, how many have started of late.
type Counts = [i64; 4];

#[derive(Default)]
struct Expected {
    counts: Counts,
    name: String,
    waiting_for: Vec<f64>,
    started_after: Vec<f64>,
}

fn seconds(from: time::OffsetDateTime, to: time::OffsetDateTime) -> f64 {
    (to - from).as_seconds_f64().max(0.0)
}

fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
    let (rank, low) = (part * (values.len() - 1) as f64, (part * (values.len() - 1) as f64) as usize);
    let high = values[(low + 1).min(values.len() - 1)];
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let between = rank - low as f64;
    values[low] + (high - values[low]) * between
}

fn is_spread(said: Option<Spread>, values: &mut [f64]) -> bool {
    let near =
        |said: Duration, part: f64, values: &mut [f64]| (said.as_secs_f64() - percentile(values, part)).abs() < 1e-3;
    match said {
        None => values.is_empty(),
        Some(said) => !values.is_empty() && near(said.p50, 0.5, values) && near(said.p95, 0.95, values),
    }
}

/// The template that the job builds, in the organization.
fn template(world: &World<'_>, job: &JobRow) -> Option<Uuid> {
    let build = world.all("workspace_builds").find(|build| build.id("job_id") == job.id)?;
    let version = world.find("template_versions", build.id("template_version_id"))?;
    (version.id("organization_id") == job.organization_id).then(|| version.id_or("template_id")).flatten()
}

pub(super) async fn compare(conn: &mut PgConnection, world: &World<'_>) {
    for home in world.ids("organizations") {
        let here = || world.jobs().iter().filter(|job| job.organization_id == home);
        for by in [ShareBy::Initiator, ShareBy::Template, ShareBy::Tags] {
            let mut expected: BTreeMap<Key, Expected> = BTreeMap::new();
            for job in here() {
                let waits = job.started_at.is_none() && job.completed_at.is_none();
                let runs = job.started_at.is_some() && job.completed_at.is_none();
                let started = job.started_at.filter(|_| job.created_at >= NOW - WINDOW);
                if !waits && !runs && started.is_none() {
                    continue;
                }
                let name = |table: &str, id: Uuid, column: &str| world.find(table, id).map(|row| row.text(column));
                let (key, name) = match by {
                    ShareBy::Initiator => ((Some(job.initiator_id), None), name("users", job.initiator_id, "username")),
                    ShareBy::Template => {
                        let id = template(world, job);
                        let here = |id: &Uuid| {
                            world.find("templates", *id).is_some_and(|row| row.id("organization_id") == home)
                        };
                        ((id, None), id.filter(here).and_then(|id| name("templates", id, "name")))
                    }
                    ShareBy::Tags => ((None, Some(alike(&job.tags.clone().into()))), None),
                };
                let share = expected.entry(key).or_default();
                share.name = name.unwrap_or_default();
                let is_prebuild = waits && job.initiator_id == PREBUILDS;
                for (count, is) in share.counts.iter_mut().zip([waits, is_prebuild, runs, started.is_some()]) {
                    *count += i64::from(is);
                }
                share.waiting_for.extend(waits.then(|| seconds(job.created_at, NOW)));
                share.started_after.extend(started.map(|at| seconds(job.created_at, at)));
            }
            let shares = store::queue::shares(conn, &read_jobs(home), by, NOW, WINDOW).await.expect("shares");
            assert!(shares.is_sorted_by_key(|share| (-share.waiting, -share.running, -share.started)), "{shares:#?}");
            let mut counts: BTreeMap<Key, Counts> = BTreeMap::new();
            for share in &shares {
                let key = (share.id, share.tags.as_ref().map(alike));
                let said = [share.waiting, share.waiting_prebuilds, share.running, share.started];
                counts.entry(key.clone()).or_default().iter_mut().zip(said).for_each(|(count, said)| *count += said);
                let Some(expected) = expected.get_mut(&key) else { panic!("{share:#?}") };
                assert_eq!(share.name, expected.name);
                // Tags that read alike are several shares.
                if by != ShareBy::Tags {
                    assert!(is_spread(share.waiting_for, &mut expected.waiting_for), "{share:#?}");
                    assert!(is_spread(share.started_after, &mut expected.started_after), "{share:#?}");
                    world.note("a share of what waits", share.waiting > 0 && share.waiting_share < 1.0);
                    world.note("a share of what runs", share.running > 0 && share.running_share < 1.0);
                    world.note("a template has jobs", by == ShareBy::Template && share.id.is_some());
                }
            }
            let expected: BTreeMap<_, _> = expected.into_iter().map(|(key, share)| (key, share.counts)).collect();
            assert_eq!(counts, expected, "{by:?}");
            let total: f64 = shares.iter().map(|share| share.waiting_share).sum();
            assert!(total.abs() < 1e-9 || (total - 1.0).abs() < 1e-9, "{total}");
        }
        let ended =
            |job: &&JobRow| job.created_at >= NOW - WINDOW && job.started_at.is_some() && job.completed_at.is_some();
        for limit in [2, 1_000] {
            let history = store::queue::history(conn, &read_jobs(home), NOW, WINDOW, limit).await.expect("a history");
            assert_eq!(history.samples(), here().filter(ended).count().min(limit as usize));
        }
    }
}
