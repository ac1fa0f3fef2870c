//! Snapshots of the queue: positions, reasons and further daemons beside a brute force, who sees what, and how often the
//! database is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coderdb::{
    authz::{Actor, ReadQueue, System},
    model::{
        Capabilities, DaemonCounts, FurtherDaemon, JobId, Label, OrganizationId, ProvisionerType, QueuePosition,
        TagQueue, Tags, WhyWaiting,
    },
    pool::Pool,
    sqlx::{self, Connection, PgConnection},
    store::{
        self,
        queue::{Snapshot, View},
    },
    watch::{Change, Settings, Watcher},
};
use fastrand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{
    jobs::{NOW, Rows, daemon, id},
    model::{DaemonRow, JobRow, Model, PREBUILDS, tagset_contains},
    random_database::{self as rows, STALE, at, often, one, with},
    support::{
        self,
        states::{Classes, SLOW_STATES, Seed, compare},
    },
};

async fn snapshot(conn: &mut PgConnection, now: OffsetDateTime, stale: Duration) -> Snapshot {
    let permit = ReadQueue::check(&Actor::system(System::Watcher)).expect("the watcher");
    store::queue::snapshot(conn, &permit, now, stale).await.expect("a snapshot")
}

// Random states --------------------------------------------------------------------------------------------------------

fn organization(rng: &mut Rng) -> Uuid {
    id(if often(rng, 0.75) { 1 } else { 2 })
}

fn provisioners(rng: &mut Rng) -> Value {
    one(rng, &[json!([]), json!(["echo"]), json!(["terraform"]), json!(["terraform"]), json!(["terraform", "echo"])])
}

/// Up to twelve jobs and six daemons, some of which have taken jobs.
async fn a_state(conn: &mut PgConnection, rng: &mut Rng) -> Model {
    let mut daemons = Vec::new();
    for n in 0..rng.usize(..=6) {
        let row = rows::daemon(rows::uuid(rng), organization(rng), &format!("daemon-{n}"), &rows::tags(rng));
        let (provisioners, seen) = (provisioners(rng), rows::last_seen(rng).map(at));
        daemons.push(with(row, json!({"provisioners": provisioners, "last_seen_at": seen})));
    }
    // One that is nobody's, for jobs whose daemon is gone.
    let ids: Vec<Value> = daemons.iter().map(|daemon| daemon["id"].clone()).chain([json!(rows::uuid(rng))]).collect();
    let mut jobs = Vec::new();
    for _ in 0..rng.usize(..=12) {
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

/// The model, and the moment that it is looked at.
struct At<'a> {
    model: &'a Model,
    now: OffsetDateTime,
    stale: Duration,
}

impl At<'_> {
    fn is_online(&self, daemon: &DaemonRow) -> bool {
        daemon.last_seen_at.is_some_and(|seen| self.now - seen <= self.stale)
    }

    /// Whether it took a job that has not ended (domain: daemons).
    fn is_busy(&self, daemon: &DaemonRow) -> bool {
        self.model.provisioner_jobs.iter().any(|job| {
            job.worker_id == Some(daemon.id)
                && job.organization_id == daemon.organization_id
                && job.completed_at.is_none()
        })
    }

    fn counts<'d>(&self, daemons: impl Iterator<Item = &'d DaemonRow>) -> DaemonCounts {
        let mut counts = DaemonCounts::default();
        for daemon in daemons {
            match (self.is_online(daemon), self.is_busy(daemon)) {
                (false, _) => counts.offline += 1,
                (true, true) => counts.busy += 1,
                (true, false) => counts.idle += 1,
            }
        }
        counts
    }

    /// All that a daemon could take, in the order in which it would (domain: claims).
    fn claims(&self, daemon: &DaemonRow) -> Vec<&JobRow> {
        let mut claims: Vec<_> =
            self.model.provisioner_jobs.iter().filter(|job| waits(job) && may_take(daemon, job)).collect();
        claims.sort_by_key(|job| (job.initiator_id == PREBUILDS, job.created_at, job.id));
        claims
    }

    fn able<'m>(&'m self, job: &'m JobRow) -> impl Iterator<Item = &'m DaemonRow> {
        self.model.provisioner_daemons.iter().filter(move |daemon| may_take(daemon, job))
    }

    fn why(&self, job: &JobRow) -> Option<WhyWaiting> {
        if job.completed_at.is_some() {
            return None;
        }
        let all = &self.model.provisioner_daemons;
        if job.started_at.is_some() {
            let worker = all.iter().find(|daemon| Some(daemon.id) == job.worker_id);
            return match worker {
                None => Some(WhyWaiting::DaemonGone),
                Some(worker) if !self.is_online(worker) => {
                    Some(WhyWaiting::DaemonSilent { last_seen_at: worker.last_seen_at })
                }
                Some(_) => job.canceled_at.map(|_| WhyWaiting::Canceling),
            };
        }
        if job.canceled_at.is_some() {
            return Some(WhyWaiting::Canceling);
        }
        let here: Vec<_> = all.iter().filter(|daemon| daemon.organization_id == job.organization_id).collect();
        if here.is_empty() {
            return Some(WhyWaiting::NoDaemons);
        }
        let tagged: Vec<_> = here.iter().filter(|daemon| tagset_contains(&daemon.tags, &job.tags)).collect();
        if tagged.is_empty() {
            let pairs = job.tags.as_object().into_iter().flatten();
            let alone = |key: &String, value: &Value| Value::from_iter([(key.clone(), value.clone())]);
            let missing: Value = pairs
                .filter(|(key, value)| !here.iter().any(|daemon| tagset_contains(&daemon.tags, &alone(key, value))))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            return Some(WhyWaiting::NoDaemonHasTags { tags: job.tags.clone().into(), missing: missing.into() });
        }
        let counts = self.counts(self.able(job));
        if self.able(job).next().is_none() {
            let running: BTreeSet<_> =
                tagged.iter().flat_map(|daemon| &daemon.provisioners).cloned().map(Label::of).collect();
            let (running, provisioner) = (running.into_iter().collect(), Label::of(job.provisioner.clone()));
            return Some(WhyWaiting::OtherProvisioners { provisioner, running });
        }
        let online: Vec<_> = self.able(job).filter(|daemon| self.is_online(daemon)).collect();
        if online.is_empty() {
            let last_seen_at = self.able(job).filter_map(|daemon| daemon.last_seen_at).max();
            return Some(WhyWaiting::AllOffline { daemons: counts.offline, last_seen_at });
        }
        let queues: Vec<_> = online.iter().map(|daemon| self.claims(daemon)).collect();
        let positions = queues.iter().filter_map(|queue| queue.iter().position(|other| other.id == job.id));
        let position = QueuePosition {
            position: i64::try_from(positions.min().expect("it is in each of them") + 1).expect("few"),
            size: i64::try_from(queues.iter().map(Vec::len).max().expect("one")).expect("few"),
        };
        if online.iter().all(|daemon| self.is_busy(daemon)) {
            return Some(WhyWaiting::AllBusy { daemons: counts.busy, position });
        }
        Some(WhyWaiting::Ranked(position))
    }

    fn by_tags(&self, organization: Uuid) -> Vec<TagQueue> {
        let pending =
            |job: &&JobRow| job.status() == "pending" && (organization.is_nil() || job.organization_id == organization);
        let mut queues: BTreeMap<(Uuid, Tags, Label<ProvisionerType>), Vec<&JobRow>> = BTreeMap::new();
        for job in self.model.provisioner_jobs.iter().filter(pending) {
            let provisioner = Label::of(job.provisioner.clone());
            queues.entry((job.organization_id, alike(&job.tags.clone().into()), provisioner)).or_default().push(job);
        }
        let queue = |((organization, tags, provisioner), jobs): ((Uuid, Tags, _), Vec<&JobRow>)| TagQueue {
            organization_id: OrganizationId(organization),
            tags,
            provisioner,
            jobs: i64::try_from(jobs.len()).expect("few"),
            prebuilds: i64::try_from(jobs.iter().filter(|job| job.initiator_id == PREBUILDS).count()).expect("few"),
            oldest: jobs.iter().map(|job| job.created_at).min().expect("one"),
            daemons: self.counts(self.able(jobs[0])),
        };
        queues.into_iter().map(queue).collect()
    }

    fn further(&self, daemon: &DaemonRow) -> FurtherDaemon {
        let claims = self.claims(daemon);
        let count = |counts: &dyn Fn(&JobRow) -> bool| {
            i64::try_from(claims.iter().filter(|job| counts(job)).count()).expect("few")
        };
        FurtherDaemon {
            jobs: count(&|_| true),
            prebuilds: count(&|job| job.initiator_id == PREBUILDS),
            unserved: count(&|job| !self.able(job).any(|daemon| self.is_online(daemon))),
            first: claims.first().map(|job| JobId(job.id)),
        }
    }
}

/// Tag sets that are equal in the database may be written in two ways, and are read in one of them.
fn alike(tags: &Tags) -> Tags {
    tags.0.iter().map(|(key, value)| (key.clone(), if value == "1.0" { "1" } else { value.as_str() })).collect()
}

fn alike_why(why: WhyWaiting) -> WhyWaiting {
    match why {
        WhyWaiting::NoDaemonHasTags { tags, missing } => {
            WhyWaiting::NoDaemonHasTags { tags: alike(&tags), missing: alike(&missing) }
        }
        why => why,
    }
}

/// Whether a daemon could take it (domain: claims).
fn waits(job: &JobRow) -> bool {
    job.started_at.is_none() && job.completed_at.is_none()
}

/// Whether it is one for this daemon (domain: claims).
fn may_take(daemon: &DaemonRow, job: &JobRow) -> bool {
    daemon.organization_id == job.organization_id
        && daemon.provisioners.contains(&job.provisioner)
        && tagset_contains(&daemon.tags, &job.tags)
}

fn note(classes: &Classes, job: &JobRow, why: Option<&WhyWaiting>) {
    let all = ["daemon_gone", "daemon_silent", "canceling", "no_daemons", "no_daemon_has_tags", "other_provisioners"];
    for name in all.into_iter().chain(["all_offline", "all_busy", "ranked"]) {
        classes.note(name, why.is_some_and(|why| why.as_str() == name));
    }
    classes.note("a job that does not wait", why.is_none());
    let both = |why: &WhyWaiting| matches!(why, WhyWaiting::DaemonGone | WhyWaiting::DaemonSilent { .. });
    classes.note("canceling, and its daemon is gone", why.is_some_and(both) && job.canceled_at.is_some());
    let none_missing =
        |why: &WhyWaiting| matches!(why, WhyWaiting::NoDaemonHasTags { missing, .. } if missing.0.is_empty());
    classes.note("each tag has a daemon, but none has all", why.is_some_and(none_missing));
    let ranked = |why: &WhyWaiting| matches!(why, WhyWaiting::Ranked(position) if position.position > 1);
    classes
        .note("a failed job that is not the first in its queue", why.is_some_and(ranked) && job.status() == "failed");
    classes.note("a job with an empty error is ranked", why.is_some_and(ranked) && job.error.as_deref() == Some(""));
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

/// A snapshot against the brute force over the rows of these organizations.
pub async fn compare_snapshot(
    conn: &mut PgConnection,
    model: &Model,
    organizations: &[Uuid],
    stale: Duration,
    classes: &Classes,
) {
    let at = At { model, now: rows::NOW, stale };
    let whole = snapshot(conn, rows::NOW, stale).await;
    for organization in organizations.iter().copied() {
        let view = whole.of(&support::read_jobs(organization));
        let ids: Vec<Uuid> = model.provisioner_jobs.iter().map(|job| job.id).collect();
        for listed in model.organization(organization) {
            let expected = QueuePosition { position: listed.queue_position, size: listed.queue_size };
            assert_eq!(view.position_in_list(JobId(listed.job.id)), expected, "5.4 {:#?} {model:#?}", listed.job);
        }
        for placed in model.by_ids_with_queue_position(&ids, rows::NOW, stale) {
            let here = placed.job.organization_id == organization;
            let expected = QueuePosition { position: placed.queue_position, size: placed.queue_size };
            let expected = if here { expected } else { QueuePosition::default() };
            assert_eq!(view.position_by_tags(JobId(placed.job.id)), expected, "5.3 {:#?} {model:#?}", placed.job);
        }
        for job in &model.provisioner_jobs {
            let why = at.why(job);
            note(classes, job, why.as_ref());
            let why = why.filter(|_| job.organization_id == organization);
            let actual = view.why(JobId(job.id)).map(alike_why);
            assert_eq!(actual, why.map(alike_why), "{job:#?} {model:#?}");
        }
        same_queues(&view, &at.by_tags(organization), model);
    }
    same_queues(&whole.everywhere(), &at.by_tags(Uuid::nil()), model);
}

/// The same, in the order that is promised: the longest first. Tag sets that read alike are not told apart.
fn same_queues(view: &View, expected: &[TagQueue], model: &Model) {
    let actual = view.by_tags();
    assert!(actual.is_sorted_by_key(|queue| -queue.jobs), "{actual:#?}");
    let key = |queue: &TagQueue| (queue.organization_id, alike(&queue.tags), queue.provisioner.clone());
    let mut merged: BTreeMap<_, TagQueue> = BTreeMap::new();
    for queue in actual {
        let known = merged.entry(key(&queue)).or_insert_with(|| TagQueue { jobs: 0, prebuilds: 0, ..queue.clone() });
        known.jobs += queue.jobs;
        known.prebuilds += queue.prebuilds;
        known.oldest = known.oldest.min(queue.oldest);
    }
    let numbers = |queue: &TagQueue| (key(queue), queue.jobs, queue.prebuilds, queue.oldest);
    let actual: Vec<_> = merged.values().map(numbers).collect();
    assert_eq!(actual, expected.iter().map(numbers).collect::<Vec<_>>(), "{model:#?}");
    // A tag set that is not what it reads as has other daemons.
    let is_exact = |tags: &Tags| {
        let read = serde_json::to_value(tags).expect("JSON");
        let alike = model.provisioner_jobs.iter().filter(|job| Tags::from(job.tags.clone()) == *tags);
        alike.into_iter().all(|job| job.tags == read)
    };
    for queue in expected.iter().filter(|queue| is_exact(&queue.tags)) {
        assert_eq!(merged[&key(queue)].daemons, queue.daemons, "{queue:#?} {model:#?}");
    }
}

#[test]
fn snapshot_says_what_a_further_daemon_would_take_and_it_takes_that_first() {
    compare(SLOW_STATES, 1, async |conn, seeds, classes| {
        for seed in seeds {
            let _seed = Seed(*seed);
            let rng = &mut Rng::with_seed(*seed);
            let model = a_state(conn, rng).await;
            let at = At { model: &model, now: rows::NOW, stale: STALE.unsigned_abs() };
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

// Words ----------------------------------------------------------------------------------------------------------------

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
        (WhyWaiting::Ranked(position), "position 2 of 5 in the queue"),
    ] {
        assert_eq!(why.to_string(), said);
    }
}

// Large queues ---------------------------------------------------------------------------------------------------------

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

// Watching -------------------------------------------------------------------------------------------------------------

const FOREVER: Duration = Duration::from_hours(1);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// A watcher that takes a connection for the queue and for nothing else.
fn watcher(pool: &Pool, listen: bool) -> Watcher {
    Watcher::start(pool, Settings { poll: FOREVER, poll_organizations: FOREVER, listen, ..Settings::default() })
}

fn pool(rows: &Rows) -> Pool {
    rows.database.pool_with_sessions(coderdb::pool::Settings::default())
}

async fn ask(watcher: &Watcher) -> View {
    timeout(LONG, watcher.queue(&support::read_jobs(id(1)))).await.expect("in time").expect("a queue")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_costs_nothing_while_nobody_asks_and_a_statement_a_second_however_many_do() {
    let mut rows = Rows::new().await;
    let pool = pool(&rows);
    let watcher = watcher(&pool, false);
    let began = Instant::now();
    sleep_until(began + Duration::from_millis(1_500)).await;
    assert_eq!(pool.metrics().taken, 0, "nobody has asked");

    let began = Instant::now();
    let mut askers = JoinSet::new();
    for _ in 0..50 {
        let watcher = watcher.clone();
        askers.spawn(async move {
            let mut asked = 0;
            while began.elapsed() < Duration::from_millis(2_500) {
                assert!(ask(&watcher).await.why(JobId(id(1))).is_some());
                asked += 1;
                tokio::task::yield_now().await;
            }
            asked
        });
    }
    let asked: u64 = askers.join_all().await.into_iter().sum();
    let statements = pool.metrics().taken;
    assert!(asked > 1_000, "{asked} questions");
    assert!((2..=began.elapsed().as_secs() + 1).contains(&statements), "{statements} statements for {asked} questions");

    // What changes is seen in a second, without anybody who says so.
    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    let changed = Instant::now();
    while ask(&watcher).await.why(JobId(id(1))).is_some() {
        assert!(changed.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_is_looked_at_again_when_somebody_says_that_something_has_changed() {
    let mut rows = Rows::new().await;
    let pool = pool(&rows);
    let (here, there) = (watcher(&pool, true), watcher(&pool, true));
    let listening = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'";
    while rows.one(listening).await != "2" {
        tokio::task::yield_now().await;
    }
    // What they hear at first is that they may have missed something: the second look has seen it.
    let began = Instant::now();
    ask(&here).await;
    sleep_until(began + Duration::from_millis(1_100)).await;
    ask(&here).await;
    let (looked, statements) = (Instant::now(), pool.metrics().taken);
    while looked.elapsed() < Duration::from_secs(3) {
        ask(&here).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.metrics().taken, statements, "nothing has changed in {:?}", looked.elapsed());

    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    let change = Change { job: JobId(id(1)), organization: OrganizationId(id(1)) };
    there.announce(change);
    let announced = Instant::now();
    while ask(&here).await.why(JobId(id(1))).is_some() {
        assert!(announced.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
    // Its own changes need no detour over the server.
    rows.run("UPDATE provisioner_jobs SET completed_at = NULL").await;
    here.announce(change);
    while ask(&here).await.why(JobId(id(1))).is_none() {
        assert!(announced.elapsed() < LONG, "it is not there");
        tokio::task::yield_now().await;
    }
    // And what nobody says is seen some seconds later.
    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    let unsaid = Instant::now();
    while ask(&here).await.why(JobId(id(1))).is_some() {
        assert!(unsaid.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_is_not_asked_for_more_often_by_those_who_do_not_wait_for_the_answer() {
    let rows = Rows::new().await;
    let pool = pool(&rows);
    let watcher = watcher(&pool, false);
    let mut blocker = rows.database.connect_with_session().await;
    let mut lock = blocker.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE provisioner_jobs IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        let impatient = timeout(Duration::from_millis(50), watcher.queue(&support::read_jobs(id(1)))).await;
        assert!(impatient.is_err(), "an answer behind a lock");
    }
    let statements = pool.metrics().taken;
    assert!(statements <= began.elapsed().as_secs() + 1, "{statements} statements in {:?}", began.elapsed());
    lock.rollback().await.expect("the end");
    assert!(ask(&watcher).await.why(JobId(id(1))).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_that_cannot_be_looked_at_is_an_error_for_all_who_ask_and_there_again_later() {
    let mut rows = Rows::new().await;
    let pool = pool(&rows);
    let watcher = watcher(&pool, false);
    rows.run("ALTER TABLE provisioner_daemons RENAME TO elsewhere").await;
    let began = Instant::now();
    for _ in 0..100 {
        let error = watcher.queue(&support::read_jobs(id(1))).await.err().expect("an error");
        let expected = "the database schema is missing or too old: relation \"provisioner_daemons\" does not exist; run `coderdb migrate up`";
        assert_eq!(error.to_string(), expected);
    }
    assert!(pool.metrics().taken <= began.elapsed().as_secs() + 1, "{} statements", pool.metrics().taken);
    rows.run("ALTER TABLE elsewhere RENAME TO provisioner_daemons").await;
    let mended = Instant::now();
    while watcher.queue(&support::read_jobs(id(1))).await.is_err() {
        assert!(mended.elapsed() < LONG, "it is not there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn snapshot_shows_running_jobs_only_where_their_daemon_does_not_work_on_them() {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         SELECT u(n), at_second(0), n, '{echo}', '{}', at_second(-60 * n), u(1), u(1) FROM generate_series(1, 2) AS n;
         SELECT add_job(n) FROM generate_series(11, 13) AS n;
         UPDATE provisioner_jobs SET started_at = at_second(0), worker_id = u(right(id::text, 1)::integer) WHERE id > u(10)",
    )
    .await;
    let whole = snapshot(&mut rows.conn, NOW, STALE.unsigned_abs()).await;
    let view = whole.of(&support::read_jobs(id(1)));
    let why = |n| view.why(JobId(id(n))).map(|why| why.to_string());
    assert_eq!(why(11), None, "its daemon works on it");
    assert_eq!(why(12).as_deref(), Some("taken by a daemon that is offline, last seen at 2026-05-07T11:58:00Z"));
    assert_eq!(why(13).as_deref(), Some("taken by a daemon that is gone"));
    assert_eq!(view.at(), NOW);
    assert_eq!(whole.of(&support::read_jobs(id(2))).why(JobId(id(13))), None, "another organization's");
}
