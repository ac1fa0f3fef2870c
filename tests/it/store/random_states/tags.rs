//! Random tags.

use std::{collections::BTreeSet, time::Duration};

use coderdb::{
    authz::ReadDaemons,
    model::{Capabilities, DaemonFilter, JobFilter, JobId, OrganizationId, PageRequest, ProvisionerType, Tags},
    store,
};
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{run, stored};
use crate::support::{
    self,
    model::tagset_contains,
    random_database::{self as rows, one, with},
    rows::{NOW, daemon, id},
    states::{Classes, SLOW_STATES, STATES, Seed, compare},
};

/// Tags of a daemon or a job that differ in a pair or none from others: most sets of strings meet.
fn tag_set(rng: &mut Rng) -> Tags {
    let long = "x".repeat(300);
    let untagged = [("scope", "organization"), ("owner", "")];
    let start: &[(&str, &str)] = one(rng, &[&untagged, &untagged, &untagged, &untagged[..1], &untagged[1..], &[]]);
    let pairs = [
        ("env", "on-prem"),
        ("env", "cloud"),
        ("é", "\u{1f600}"),
        ("", ""),
        ("owner", "a"),
        ("scope", "user"),
        ("n", &long),
    ];
    let mut tags: Vec<(&str, &str)> = start.to_vec();
    for _ in 0..one(rng, &[0, 0, 1, 1, 2, 3]) {
        tags.push(one(rng, &pairs));
    }
    tags.into_iter().collect()
}

fn note_tags(classes: &Classes, daemon: &Value, job: &Value) {
    let untagged = json!({"scope": "organization", "owner": ""});
    let matches = tagset_contains(daemon, job);
    let pairs = |tags: &Value| tags.as_object().map_or(0, serde_json::Map::len);
    for (sentence, when) in [
        ("an untagged job met an untagged daemon", *job == untagged && *daemon == untagged),
        ("an untagged job met a daemon with more tags", *job == untagged && !matches && pairs(daemon) > 2),
        ("a job without tags met a daemon", *job == json!({}) && matches),
        ("a job had the column default", *job == json!({"scope": "organization"}) && matches),
        ("equal tags, not untagged", *job != untagged && job == daemon),
        ("the job had fewer tags", *job != untagged && matches && pairs(job) < pairs(daemon)),
        ("the job had more tags", pairs(job) > pairs(daemon) && !matches),
        ("a key had another value", !matches && pairs(job) > 0 && pairs(job) == pairs(daemon)),
    ] {
        classes.note(sentence, when);
    }
}

#[test]
fn the_tag_function_is_the_rule() {
    compare(STATES, 500, async |conn, seeds, classes| {
        let pair = |rng: &mut Rng| -> Option<Value> {
            match rng.u8(..16) {
                0 => None,
                1..=8 => Some(stored(&tag_set(rng))),
                _ => Some(rows::tags(rng)),
            }
        };
        let pairs: Vec<_> = seeds
            .iter()
            .map(|seed| {
                let rng = &mut Rng::with_seed(*seed);
                (pair(rng), pair(rng))
            })
            .collect();
        let (daemons, jobs): (Vec<_>, Vec<_>) = pairs.iter().cloned().unzip();
        let actual: Vec<Option<bool>> = sqlx::query_scalar(
            "SELECT provisioner_tagset_contains(daemon, job)
             FROM unnest($1::jsonb[], $2::jsonb[]) WITH ORDINALITY AS pair (daemon, job, n) ORDER BY n",
        )
        .bind(daemons)
        .bind(jobs)
        .fetch_all(conn)
        .await
        .expect("the answers");
        for ((seed, (daemon, job)), actual) in seeds.iter().zip(&pairs).zip(actual) {
            let _seed = Seed(*seed);
            let both = daemon.as_ref().zip(job.as_ref());
            // Null on either side is no match.
            assert_eq!(actual, both.map(|(daemon, job)| tagset_contains(daemon, job)), "{daemon:?} {job:?}");
            classes.note("the daemon had no tags at all", daemon.is_none() && job.is_some());
            classes.note("the job had no tags at all", job.is_none() && daemon.is_some());
            if let Some((daemon, job)) = both {
                note_tags(classes, daemon, job);
                classes.note("something was not an object", !daemon.is_object() || !job.is_object());
            }
        }
    });
}

#[test]
fn whoever_asks_what_fits_together_gets_the_answer_of_the_rule() {
    compare(SLOW_STATES, 20, async |conn, seeds, classes| {
        let reads_daemons = ReadDaemons::check(&support::operator(), OrganizationId(id(1))).expect("an operator");
        let reads_jobs = support::read_jobs(id(1));
        let sets: Vec<(u64, Tags, Tags)> = seeds
            .iter()
            .map(|seed| {
                let rng = &mut Rng::with_seed(*seed);
                (*seed, tag_set(rng), tag_set(rng))
            })
            .collect();
        let ids = |kind: u128| (0..sets.len()).map(move |n| Uuid::from_u128(kind << 64 | n as u128));
        let tags = |daemon: bool| -> Vec<Value> {
            sets.iter().map(|(_, of_daemon, of_job)| stored(if daemon { of_daemon } else { of_job })).collect()
        };
        let (daemon_tags, job_tags) = (tags(true), tags(false));
        let daemons: Vec<Value> =
            ids(4).zip(&daemon_tags).map(|(d, tags)| rows::daemon(d, id(1), &d.to_string(), tags)).collect();
        let jobs: Vec<Value> =
            ids(5).zip(&job_tags).map(|(j, tags)| with(rows::job(j, id(1), id(1)), json!({"tags": tags}))).collect();
        run(conn, "DELETE FROM provisioner_jobs").await;
        rows::insert(conn, "provisioner_daemons", &daemons).await;
        rows::insert(conn, "provisioner_jobs", &jobs).await;
        let all: Vec<JobId> = ids(5).map(JobId).collect();

        let eligible = store::daemons::eligible(conn, &reads_daemons, &all).await.expect("daemons");
        let eligible: BTreeSet<_> = eligible.into_iter().map(|row| (row.daemon.id.0, row.job_id.0)).collect();
        let mut fits = BTreeSet::new();
        for (d, daemon) in ids(4).zip(&daemon_tags) {
            for (j, job) in ids(5).zip(&job_tags) {
                if tagset_contains(daemon, job) {
                    fits.insert((d, j));
                }
                note_tags(classes, daemon, job);
            }
        }
        assert_eq!(eligible, fits, "{sets:#?}");

        for (seed, of_daemon, of_job) in &sets {
            let _seed = Seed(*seed);
            let superset = |of: &[Value], kind, filter: &Tags| -> BTreeSet<Uuid> {
                let filter = stored(filter);
                ids(kind).zip(of).filter(|(_, tags)| tagset_contains(tags, &filter)).map(|(id, _)| id).collect()
            };
            match seed % 3 {
                0 => {
                    let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: of_daemon };
                    let taken = store::jobs::acquire_batch(conn, &daemon(1, 9), offer, NOW, 1000).await.expect("jobs");
                    let taken: BTreeSet<Uuid> = taken.iter().map(|job| job.id.0).collect();
                    let of_daemon = stored(of_daemon);
                    let expected: BTreeSet<Uuid> = ids(5)
                        .zip(&job_tags)
                        .filter(|(_, job)| tagset_contains(&of_daemon, job))
                        .map(|(id, _)| id)
                        .collect();
                    assert_eq!(taken, expected, "{of_daemon}");
                    classes.note("a daemon took several jobs", taken.len() > 1);
                    run(conn, "UPDATE provisioner_jobs SET started_at = NULL, worker_id = NULL").await;
                }
                1 => {
                    let filter = DaemonFilter { tags: Some(of_job.clone()), ..DaemonFilter::default() };
                    let found = store::daemons::list(conn, &reads_daemons, &filter, NOW, Duration::ZERO).await;
                    let found: BTreeSet<Uuid> = found.expect("daemons").iter().map(|row| row.daemon.id.0).collect();
                    assert_eq!(found, superset(&daemon_tags, 4, of_job), "daemons with {of_job}");
                    classes.note("a filter found daemons", !found.is_empty());
                }
                _ => {
                    let filter = JobFilter { tags: Some(of_job.clone()), ..JobFilter::default() };
                    let found = store::jobs::list(conn, &reads_jobs, &filter, PageRequest::default()).await;
                    let found: BTreeSet<Uuid> = found.expect("jobs").rows.iter().map(|row| row.job.id.0).collect();
                    assert_eq!(found, superset(&job_tags, 5, of_job), "jobs with {of_job}");
                    classes.note("a filter found jobs", found.len() > 1);
                }
            }
        }
    });
}
