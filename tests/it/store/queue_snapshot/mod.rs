//! Snapshots of the queue: positions, reasons and further daemons beside a brute force, who sees what, and how often the
//! database is asked.

mod watch;

use std::time::Duration;

use coderdb::{
    model::{Capabilities, FurtherDaemon, JobId, Label, ProvisionerType, QueuePosition, Tags, WhyWaiting},
    sqlx::{self, PgConnection},
    store,
};
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    self,
    model::{DaemonRow, Model, PREBUILDS},
    random_database::{self as rows, STALE, at, often, one, with},
    rows::{NOW, Rows, daemon, id},
    snapshot::{At, compare_snapshot, snapshot},
    states::{SLOW_STATES, Seed, compare},
};

fn organization(rng: &mut Rng) -> Uuid {
    id(if often(rng, 0.75) { 1 } else { 2 })
}

fn provisioners(rng: &mut Rng) -> Value {
    one(rng, &[json!([]), json!(["echo"]), json!(["terraform"]), json!(["terraform"]), json!(["terraform", "echo"])])
}

/// Up to twelve jobs and six daemons, some of which have taken jobs.
async fn a_state(conn: &mut PgConnection, rng: &mut Rng) -> Model {
    let (jobs, daemons) = (rng.usize(..=12), rng.usize(..=6));
    a_state_of(conn, rng, jobs, daemons).await
}

/// So many jobs and daemons.
pub async fn a_state_of(conn: &mut PgConnection, rng: &mut Rng, job_count: usize, daemon_count: usize) -> Model {
    let mut daemons = Vec::new();
    for n in 0..daemon_count {
        let row = rows::daemon(rows::uuid(rng), organization(rng), &format!("daemon-{n}"), &rows::tags(rng));
        let (provisioners, seen) = (provisioners(rng), rows::last_seen(rng).map(at));
        daemons.push(with(row, json!({"provisioners": provisioners, "last_seen_at": seen})));
    }
    // One that is nobody's, for jobs whose daemon is gone.
    let ids: Vec<Value> = daemons.iter().map(|daemon| daemon["id"].clone()).chain([json!(rows::uuid(rng))]).collect();
    let mut jobs = Vec::new();
    for _ in 0..job_count {
        let initiator = if often(rng, 0.4) { PREBUILDS } else { id(1) };
        let row = rows::job(rows::uuid(rng), organization(rng), initiator);
        let started = often(rng, 0.35);
        let null_or = |rng: &mut Rng, often_null: f64| (!often(rng, often_null)).then(|| at(rows::NOW));
        let changes = json!({
            "created_at": at(rows::time(rng)),
            "tags": rows::tags(rng),
            "provisioner": one(rng, &["echo", "terraform", "terraform"]),
            "started_at": started.then(|| at(rows::NOW)),
            "worker_id": if started && often(rng, 0.9) { one(rng, &ids) } else { Value::Null },
            "canceled_at": null_or(rng, 0.85),
            "completed_at": null_or(rng, 0.85),
            "error": one(rng, &[None, None, None, None, None, Some(""), Some("failed")]),
        });
        jobs.push(with(row, changes));
    }
    sqlx::raw_sql("DELETE FROM provisioner_jobs").execute(&mut *conn).await.expect("no jobs");
    rows::insert(conn, "provisioner_daemons", &daemons).await;
    rows::insert(conn, "provisioner_jobs", &jobs).await;
    Model::read(conn).await
}

#[test]
fn snapshot_says_positions_reasons_and_queues_as_a_brute_force_does() {
    compare(SLOW_STATES, 1, async |conn, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let model = a_state(conn, rng).await;
            let stale =
                one(rng, &[STALE.unsigned_abs(), STALE.unsigned_abs(), Duration::ZERO, Duration::from_hours(99)]);
            compare_snapshot(conn, &model, &[id(1), id(2)], stale, classes).await;
        }
    });
}

#[test]
fn snapshot_says_what_a_further_daemon_would_take_and_it_takes_that_first() {
    compare(SLOW_STATES, 1, async |conn, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let model = a_state(conn, rng).await;
            let at = At::new(&model, rows::NOW, STALE.unsigned_abs());
            let tags: Value = one(
                rng,
                &[
                    json!({"scope": "organization", "owner": ""}),
                    json!({"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"}),
                    json!({"scope": "user", "owner": "aaa"}),
                    json!({}),
                ],
            );
            let provisioners: &[ProvisionerType] =
                one(rng, &[&[], &[ProvisionerType::Terraform], ProvisionerType::ALL, ProvisionerType::ALL]);
            let further = DaemonRow {
                id: id(7),
                created_at: NOW,
                name: "further".to_owned(),
                provisioners: provisioners.iter().map(ToString::to_string).collect(),
                tags: tags.clone(),
                last_seen_at: Some(NOW),
                organization_id: id(1),
            };
            let expected = at.further(&further);
            let whole = snapshot(conn, rows::NOW, STALE.unsigned_abs()).await;
            let tags = Tags::from(tags);
            let offer = Capabilities { provisioners, tags: &tags };
            let actual = whole.of(&support::read_jobs(id(1))).further_daemon(id(1).into(), offer);
            assert_eq!(actual, expected, "{further:#?} {model:#?}");
            assert_eq!(whole.everywhere().further_daemon(id(1).into(), offer), expected);
            // What belongs to others is not there.
            let elsewhere = whole.of(&support::read_jobs(id(2))).further_daemon(id(1).into(), offer);
            assert_eq!(elsewhere, FurtherDaemon::default());
            let taken = store::jobs::acquire(conn, &daemon(1, 7), offer, NOW).await.expect("an answer");
            assert_eq!(taken.map(|job| job.id), expected.first, "{further:#?} {model:#?}");
            classes.note("it would take nothing", expected.jobs == 0);
            classes.note("it would take several jobs", expected.jobs > 1);
            classes.note("nobody else could take some", expected.unserved > 0 && expected.unserved < expected.jobs);
            classes
                .note("it would take a prebuild first", expected.prebuilds > 0 && expected.prebuilds == expected.jobs);
        }
    });
}

#[test]
fn why_is_a_sentence_for_people() {
    let tags = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Tags>();
    let untagged = Tags::untagged();
    let both = tags(&[("dc", "chi"), ("env", "aws")]);
    let missing = |tags: &Tags, missing: Tags| WhyWaiting::NoDaemonHasTags { tags: tags.clone(), missing };
    let position = QueuePosition { position: 2, size: 5 };
    let (provisioner, running) = (Label::from(ProvisionerType::Terraform), vec![ProvisionerType::Echo.into()]);
    for (why, said) in [
        (WhyWaiting::DaemonGone, "taken by a daemon that is gone"),
        (WhyWaiting::DaemonSilent { last_seen_at: None }, "taken by a daemon that is offline, never seen"),
        (
            WhyWaiting::DaemonSilent { last_seen_at: Some(NOW) },
            "taken by a daemon that is offline, last seen at 2026-05-07T12:00:00Z",
        ),
        (WhyWaiting::Canceling, "being canceled"),
        (WhyWaiting::NoDaemons, "the organization has no daemons"),
        (missing(&both, tags(&[("env", "aws")])), "no daemon has env=aws"),
        (missing(&both, Tags::default()), "no daemon has all of dc=chi env=aws"),
        (missing(&untagged, Tags::default()), "no daemon is untagged"),
        (missing(&untagged, tags(&[("owner", "")])), "no daemon is untagged"),
        (missing(&Tags::default(), Tags::default()), "no daemon has these tags"),
        (
            WhyWaiting::OtherProvisioners { provisioner: provisioner.clone(), running },
            "the daemons with these tags do not run terraform but echo",
        ),
        (
            WhyWaiting::OtherProvisioners { provisioner, running: vec![] },
            "the daemons with these tags do not run terraform",
        ),
        (
            WhyWaiting::AllOffline { daemons: 1, last_seen_at: Some(NOW) },
            "the only matching daemon is offline, last seen at 2026-05-07T12:00:00Z",
        ),
        (WhyWaiting::AllOffline { daemons: 3, last_seen_at: None }, "all 3 matching daemons are offline, never seen"),
        (WhyWaiting::AllBusy { daemons: 3, position }, "all 3 matching daemons are busy: position 2 of 5"),
        (WhyWaiting::Ranked(position), "position 2 of 5 in the queue of a matching daemon"),
    ] {
        assert_eq!(why.to_string(), said);
    }
}

#[tokio::test]
async fn snapshot_of_thousands_of_tag_sets_and_daemons_pairs_each_with_its_own() {
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM provisioner_jobs; SELECT add_job(n) FROM generate_series(1, 3000) AS n;
         UPDATE provisioner_jobs SET tags = jsonb_build_object('scope', 'user', 'owner', id), created_at = at_second(9999)
         - right(id::text, 8)::integer * interval '1 second';
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         SELECT id, created_at, id, '{echo}', tags, at_second(0), u(1), u(1) FROM provisioner_jobs WHERE id <> u(3000);
         INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id, tags
         ) SELECT u(4000), 'infinity', updated_at, organization_id, initiator_id, provisioner, storage_method, type, input,
            file_id, '{\"scope\": \"user\"}' FROM provisioner_jobs WHERE id = u(1)",
    )
    .await;
    let view = snapshot(&mut rows.conn, NOW, Duration::ZERO).await.of(&support::read_jobs(id(1)));
    let at = |position, size| QueuePosition { position, size };
    for (n, in_list, by_tags) in [
        (1, at(3000, 3001), at(1, 2)),
        (2000, at(1001, 3001), at(1, 2)),
        (3000, at(1, 3001), QueuePosition::default()),
        // Every one of the daemons may take it, after a job of its own.
        (4000, at(3001, 3001), at(2, 2)),
    ] {
        assert_eq!(
            (view.position_in_list(JobId(id(n))), view.position_by_tags(JobId(id(n)))),
            (in_list, by_tags),
            "{n}"
        );
    }
    let why = view.why(JobId(id(3000))).expect("a reason");
    assert_eq!(why.to_string(), format!("no daemon has owner={}", id(3000)));
    assert_eq!(view.why(JobId(id(4000))), Some(WhyWaiting::Ranked(at(2, 2))));
    assert_eq!(view.by_tags().len(), 3001);
}

#[tokio::test]
async fn snapshot_pairs_no_job_with_a_daemon_when_it_can_read_the_tags_of_neither() {
    let mut rows = Rows::new().await;
    rows.run(
        "UPDATE provisioner_jobs SET tags = '{\"m\": 1e400}';
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         VALUES (u(1), at_second(0), 'odd', '{echo}', '{\"n\": 1e400}', at_second(0), u(1), u(1))",
    )
    .await;
    let view = snapshot(&mut rows.conn, NOW, Duration::ZERO).await.of(&support::read_jobs(id(1)));
    let why = view.why(JobId(id(1))).map(|why| why.to_string());
    assert_eq!(why.as_deref(), Some("no daemon has these tags"));
    assert_eq!(view.position_by_tags(JobId(id(1))), QueuePosition::default());
}
