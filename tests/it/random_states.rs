//! What is decided of a few rows, in many random states of them, is what the model says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coderdb::{
    authz::{ActAsAgent, Actor, ReadDaemons, System},
    model::{
        AgentLifecycle, AgentLogLine, AgentStatus, Append, ByWorker, Capabilities, DaemonFilter, DaemonId, JobFilter,
        JobId, LogLevel, LogSource, NewJobLog, OrganizationId, PageRequest, ProvisionerType, Quota, Tags,
        WorkspaceAgent, WorkspaceAgentId,
    },
    store::{
        self, Error,
        job_logs::{LIMIT, OVERFLOW_MESSAGE},
        quota::CommitOutcome,
    },
};
use fastrand::Rng;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    jobs::{NOW, daemon, id},
    model::{Branch, DaemonRow, JobRow, Model, PREBUILDS, tagset_contains},
    random_database::{self as rows, STALE, at, often, one, pick, with},
    support::{
        self,
        states::{Classes, SLOW_STATES, STATES, Seed, compare},
    },
};

async fn run(conn: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(conn).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

fn sometimes(rng: &mut Rng, at: OffsetDateTime) -> Option<OffsetDateTime> {
    rng.bool().then_some(at)
}

/// The columns that decide on a status: all sixteen combinations (domain: job status), the empty error twice.
fn lived(rng: &mut Rng, waits: f64) -> [Option<OffsetDateTime>; 3] {
    if often(rng, waits) { [None; 3] } else { [0; 3].map(|_| sometimes(rng, NOW)) }
}

fn error(rng: &mut Rng) -> Option<String> {
    one(rng, &[None, None, None, Some(""), Some(" "), Some("failed"), Some("insufficient quota")]).map(str::to_owned)
}

// The queue (domain: positions) ---------------------------------------------------------------------------------------

fn job(rng: &mut Rng) -> JobRow {
    let waits = often(rng, 0.7);
    let [started_at, canceled_at, completed_at] = if waits { [None; 3] } else { lived(rng, 0.0) };
    JobRow {
        id: rows::uuid(rng),
        created_at: rows::time(rng),
        updated_at: NOW,
        started_at,
        canceled_at,
        completed_at,
        error: if waits && often(rng, 0.9) { None } else { error(rng) },
        organization_id: id(if often(rng, 0.75) { 1 } else { 2 }),
        initiator_id: if often(rng, 0.4) { PREBUILDS } else { id(1) },
        provisioner: one(rng, &["echo", "terraform"]).to_owned(),
        storage_method: "file".to_owned(),
        job_type: "workspace_build".to_owned(),
        input: json!({}),
        worker_id: None,
        file_id: Uuid::nil(),
        tags: rows::tags(rng),
        error_code: None,
        trace_metadata: None,
        logs_length: 0,
        logs_overflowed: false,
    }
}

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

async fn store_queue(conn: &mut PgConnection, model: &Model) {
    macro_rules! column {
        ($rows:ident, $value:expr) => {
            model.$rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "WITH gone AS (DELETE FROM provisioner_jobs),
         jobs AS (
            INSERT INTO provisioner_jobs (
                id, created_at, updated_at, started_at, canceled_at, completed_at, error, organization_id, initiator_id,
                provisioner, storage_method, type, input, file_id, tags
            )
            SELECT
                j.id, j.created_at, j.created_at, j.started_at, j.canceled_at, j.completed_at, j.error, j.organization,
                j.initiator, j.provisioner::provisioner_type, 'file', 'workspace_build', '{}', j.id, j.tags
            FROM unnest(
                $1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                $7::uuid[], $8::uuid[], $9::text[], $10::jsonb[]
            ) AS j (
                id, created_at, started_at, canceled_at, completed_at, error, organization, initiator, provisioner, tags
            )
         )
         INSERT INTO provisioner_daemons (
            id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id
         )
         SELECT
            d.id, d.created_at, d.name, string_to_array(d.provisioners, ',')::provisioner_type[], d.tags, d.last_seen_at,
            d.organization, d.organization
         FROM unnest(
            $11::uuid[], $12::timestamptz[], $13::text[], $14::text[], $15::jsonb[], $16::timestamptz[], $17::uuid[]
         ) AS d (id, created_at, name, provisioners, tags, last_seen_at, organization)",
    )
    .bind(column!(provisioner_jobs, |job| job.id))
    .bind(column!(provisioner_jobs, |job| job.created_at))
    .bind(column!(provisioner_jobs, |job| job.started_at))
    .bind(column!(provisioner_jobs, |job| job.canceled_at))
    .bind(column!(provisioner_jobs, |job| job.completed_at))
    .bind(column!(provisioner_jobs, |job| job.error.clone()))
    .bind(column!(provisioner_jobs, |job| job.organization_id))
    .bind(column!(provisioner_jobs, |job| job.initiator_id))
    .bind(column!(provisioner_jobs, |job| job.provisioner.clone()))
    .bind(column!(provisioner_jobs, |job| job.tags.clone()))
    .bind(column!(provisioner_daemons, |daemon| daemon.id))
    .bind(column!(provisioner_daemons, |daemon| daemon.created_at))
    .bind(column!(provisioner_daemons, |daemon| daemon.name.clone()))
    .bind(column!(provisioner_daemons, |daemon| daemon.provisioners.join(",")))
    .bind(column!(provisioner_daemons, |daemon| daemon.tags.clone()))
    .bind(column!(provisioner_daemons, |daemon| daemon.last_seen_at))
    .bind(column!(provisioner_daemons, |daemon| daemon.organization_id))
    .execute(conn)
    .await
    .expect("the queue");
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

// Tags (domain: tags) -------------------------------------------------------------------------------------------------

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

fn stored(tags: &Tags) -> Value {
    tags.0.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
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

// Quota (domain: quota; quota commit) ---------------------------------------------------------------------------------

const BIG: i32 = i32::MAX;

/// A user with groups and workspaces, and a stranger with others: rows of six tables.
struct Owner {
    user: Uuid,
    tables: BTreeMap<&'static str, Vec<Value>>,
}

impl Owner {
    fn new(rng: &mut Rng) -> Self {
        let (user, stranger) = (rows::uuid(rng), rows::uuid(rng));
        let mut tables: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        let mut add = |table, row| tables.entry(table).or_default().push(row);
        for person in [user, stranger] {
            let row = rows::user(person, &person.to_string());
            add("users", with(row, json!({"deleted": often(rng, 0.1)})));
            for organization in [1, 2] {
                if often(rng, 0.7) {
                    add("organization_members", rows::member(id(organization), person));
                }
                // The Everyone group, in which a person can also be by name.
                if often(rng, 0.15) {
                    add("group_members", json!({"group_id": id(organization), "user_id": person}));
                }
            }
        }
        for _ in 0..rng.usize(..4) {
            let group = rows::uuid(rng);
            let allowance = one(rng, &[0, 1, 40, 40, -7, BIG, BIG, i32::MIN]);
            add("groups", rows::group(group, id(rng.u128(1..=2)), &group.to_string(), allowance));
            for person in [user, stranger] {
                if often(rng, 0.6) {
                    add("group_members", json!({"group_id": group, "user_id": person}));
                }
            }
        }
        for _ in 0..rng.usize(..5) {
            let workspace = rows::uuid(rng);
            let owner = if often(rng, 0.8) { user } else { stranger };
            let organization = id(if often(rng, 0.75) { 1 } else { 2 });
            let row = rows::workspace(workspace, organization, owner, id(1), &workspace.to_string());
            add("workspaces", with(row, json!({"deleted": often(rng, 0.2)})));
            let mut numbers = [1, 2, 3, 10, 100, BIG];
            rng.shuffle(&mut numbers);
            for number in &numbers[..rng.usize(..4)] {
                let (build, job) = (rows::uuid(rng), rows::uuid(rng));
                let cost = one(rng, &[0, 0, 1, 10, 40, -3, BIG]);
                add("provisioner_jobs", rows::job(job, organization, owner));
                let row = rows::build(build, workspace, id(1), job, *number);
                add("workspace_builds", with(row, json!({"daily_cost": cost})));
            }
        }
        Self { user, tables }
    }
}

/// One statement per table for all of them.
async fn store_owners(conn: &mut PgConnection, owners: &[Owner]) {
    for table in [
        "users",
        "organization_members",
        "groups",
        "group_members",
        "workspaces",
        "provisioner_jobs",
        "workspace_builds",
    ] {
        let all: Vec<Value> = owners.iter().filter_map(|owner| owner.tables.get(table)).flatten().cloned().collect();
        rows::insert(conn, table, &all).await;
    }
}

#[test]
fn what_random_owners_consume_and_may_consume_is_what_the_model_says() {
    compare(SLOW_STATES, 20, async |conn, seeds, classes| {
        let owners: Vec<Owner> = seeds.iter().map(|seed| Owner::new(&mut Rng::with_seed(*seed))).collect();
        run(conn, EVERYONE).await;
        store_owners(conn, &owners).await;
        let model = Model::read(conn).await;
        for (seed, Owner { user, .. }) in seeds.iter().zip(&owners) {
            let _seed = Seed(*seed);
            for organization in [id(1), id(2)] {
                let actual = store::quota::usage(conn, &support::read_quota(*user, organization)).await.expect("quota");
                let credits_consumed = model.quota_consumed(*user, organization);
                let budget = model.quota_allowance(*user, organization);
                assert_eq!(actual, Quota { credits_consumed, budget }, "{:#?}", owners[0].tables);
                classes.note("a budget was beyond 32 bits", budget > i64::from(BIG));
                classes.note("a budget was negative", budget < 0);
                classes.note("more was consumed than 32 bits hold", credits_consumed > i64::from(BIG));
                classes.note("nothing was consumed of some budget", credits_consumed == 0 && budget > 0);
            }
        }
        for branch in [
            Branch::LatestHidesCost,
            Branch::DeletedWorkspaceCost,
            Branch::OtherOrganizationCost,
            Branch::ExplicitMember,
            Branch::EveryoneMember,
            Branch::BothMember,
            Branch::DeletedMember,
            Branch::ForeignMember,
        ] {
            let (count, sentence) = model.reached.count(branch);
            classes.note(sentence, count > 0);
        }
    });
}

/// The Everyone groups of both organizations.
const EVERYONE: &str = "INSERT INTO groups (id, name, organization_id, quota_allowance)
    VALUES (u(1), 'Everyone', u(1), 5), (u(2), 'Everyone', u(2), 7)";

/// The builds of a workspace by number: ids, costs, and whether the job has succeeded.
type Builds = BTreeMap<i32, (Uuid, i32, bool)>;

/// Whether a commit of a later build is compared with this one.
fn counts(build: Option<&(Uuid, i32, bool)>) -> bool {
    build.is_some_and(|(_, cost, succeeded)| *cost > 0 || *succeeded)
}

fn before(builds: &Builds, number: i32) -> Option<&(Uuid, i32, bool)> {
    builds.range(..number).rev().map(|(_, build)| build).find(|build| counts(Some(build)))
}

/// A build that asks to be committed, and all that decides on it (domain: quota commit).
struct Commit {
    job: Uuid,
    build: Uuid,
    cost: i32,
    /// Neither another daemon's nor in another organization.
    is_ours: bool,
    budget: i64,
    /// Of each workspace of the owner there: whether it is deleted, and its builds by number.
    workspaces: Vec<(bool, Builds)>,
    /// The workspace and the number of the build.
    place: (usize, i32),
    tables: BTreeMap<&'static str, Vec<Value>>,
}

impl Commit {
    fn new(rng: &mut Rng) -> Self {
        let owner = rows::uuid(rng);
        let mut tables: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        let mut add = |table, row| tables.entry(table).or_default().push(row);
        add("users", rows::user(owner, &owner.to_string()));
        let costs = [0, 0, 1, 9, 10, 11, 40];
        let costs = if often(rng, 0.1) { &[BIG, BIG - 1, 0] as &[i32] } else { &costs };
        let mut workspaces = Vec::new();
        for _ in 0..rng.usize(1..4) {
            let first = one(rng, &[1, 1, 1, 2, 7]);
            let builds: Builds = (first..first + rng.i32(1..5))
                .map(|number| (number, (rows::uuid(rng), one(rng, costs), often(rng, 0.3))))
                .collect();
            workspaces.push((often(rng, 0.15), builds));
        }
        let at_workspace = rng.usize(..workspaces.len());
        let builds = &workspaces[at_workspace].1;
        let newest = *builds.keys().next_back().expect("a build");
        let number =
            if often(rng, 0.7) { newest } else { pick(rng, &builds.keys().copied().collect::<Vec<_>>()).expect("one") };
        let build = builds[&number].0;
        let previous = before(builds, number).map(|(_, cost, _)| *cost);
        let near = previous.unwrap_or(10).saturating_add(rng.i32(-1..=1)).max(0);
        let cost = if rng.bool() { near } else { one(rng, costs) };
        let foreign = often(rng, 0.04);
        let other_daemon = often(rng, 0.04);
        let mut job = Uuid::nil();
        for (deleted, builds) in &workspaces {
            let workspace = rows::uuid(rng);
            let row = rows::workspace(workspace, id(if foreign { 2 } else { 1 }), owner, id(1), &workspace.to_string());
            add("workspaces", with(row, json!({"deleted": deleted})));
            for (number, (this, cost, succeeded)) in builds {
                let row_job = rows::uuid(rng);
                let worker = if other_daemon { 8 } else { 7 };
                let row = rows::job(row_job, id(1), owner);
                let ended = (*succeeded && *this != build).then(|| at(NOW));
                let started = json!({"worker_id": id(worker), "started_at": at(NOW), "completed_at": ended});
                add("provisioner_jobs", with(row, started));
                add(
                    "workspace_builds",
                    with(rows::build(*this, workspace, id(1), row_job, *number), json!({"daily_cost": cost})),
                );
                if *this == build {
                    job = row_job;
                }
            }
        }
        let mut commit = Self {
            job,
            build,
            cost,
            is_ours: !foreign && !other_daemon,
            budget: 0,
            workspaces,
            place: (at_workspace, number),
            tables,
        };
        // Around what would just fit, or far away.
        let wanted = if rng.bool() { commit.by_others() + i64::from(cost) + rng.i64(-1..=1) } else { rng.i64(-5..80) };
        commit.give(rng, owner, wanted);
        commit
    }

    /// Groups whose allowances come to so much.
    fn give(&mut self, rng: &mut Rng, owner: Uuid, wanted: i64) {
        self.budget = wanted;
        let mut rest = wanted;
        loop {
            let part = i32::try_from(rest).unwrap_or(BIG);
            let part = if rng.bool() { part } else { part / 2 };
            rest -= i64::from(part);
            let group = rows::uuid(rng);
            let row = rows::group(group, id(1), &group.to_string(), part);
            self.tables.entry("groups").or_default().push(row);
            self.tables.entry("group_members").or_default().push(json!({"group_id": group, "user_id": owner}));
            if rest == 0 {
                return;
            }
        }
    }

    /// What the newest builds cost, without what this build recorded before: a commit may be repeated.
    fn by_others(&self) -> i64 {
        let newest = self.workspaces.iter().filter(|(deleted, _)| !deleted).filter_map(|(_, b)| b.values().next_back());
        newest.filter(|(build, ..)| *build != self.build).map(|(_, cost, _)| i64::from(*cost)).sum()
    }

    fn consumed(&self) -> i64 {
        let newest = self.workspaces.iter().filter(|(deleted, _)| !deleted).filter_map(|(_, b)| b.values().next_back());
        newest.map(|(_, cost, _)| i64::from(*cost)).sum()
    }

    /// Whether it is accepted, and what is consumed then (domain: quota commit).
    fn decision(&self, classes: &Classes) -> (bool, i64) {
        let (workspace, number) = self.place;
        let (deleted, builds) = &self.workspaces[workspace];
        let previous = before(builds, number);
        let (cost, previous) = (i64::from(self.cost), previous.map(|(_, cost, _)| i64::from(*cost)));
        // An equal cost passes. Where there is nothing to compare with, everything is a raise
        // (domain: commit comparison).
        let net_increase = previous.is_none_or(|previous| cost > previous);
        let new_consumed = self.by_others() + cost;
        let over = new_consumed > self.budget;
        for (sentence, when) in [
            ("it fitted exactly", new_consumed == self.budget),
            ("it was one credit too much", new_consumed == self.budget + 1 && net_increase),
            ("an equal cost was over budget, and passed", over && previous == Some(cost)),
            ("a decrease by one was over budget", over && previous == Some(cost + 1)),
            ("a first build was over budget", over && number == 1),
            (
                "no build before had committed or succeeded, and it was over budget",
                over && number > 1 && previous.is_none(),
            ),
            ("a build that succeeded at no cost was before it", over && previous == Some(0)),
            (
                "the build right before it did not count",
                over && previous.is_some() && !counts(builds.get(&(number - 1))),
            ),
            ("it had recorded a cost before", builds[&number].1 > 0),
            ("a later build hid it", builds.keys().next_back() != Some(&number)),
            ("its workspace was deleted", *deleted),
            ("more was consumed than 32 bits hold", new_consumed > i64::from(BIG)),
            ("it cost nothing", self.cost == 0),
            ("it cost as much as can be", self.cost == BIG),
        ] {
            classes.note(sentence, when && self.is_ours);
        }
        if over && net_increase { (false, self.consumed()) } else { (true, new_consumed) }
    }
}

#[test]
fn random_builds_are_let_through_by_the_quota_as_the_model_says() {
    compare(STATES, 40, async |conn, seeds, classes| {
        let permit = daemon(1, 7);
        let mut commits: Vec<Commit> = seeds.iter().map(|seed| Commit::new(&mut Rng::with_seed(*seed))).collect();
        for table in ["users", "groups", "group_members", "workspaces", "provisioner_jobs", "workspace_builds"] {
            let all: Vec<Value> = commits.iter().filter_map(|one| one.tables.get(table)).flatten().cloned().collect();
            rows::insert(conn, table, &all).await;
        }
        let mut costs = BTreeMap::new();
        for (seed, commit) in seeds.iter().zip(&mut commits) {
            let _seed = Seed(*seed);
            let (accepted, consumed) = commit.decision(classes);
            let actual = match store::quota::commit(conn, &permit, JobId(commit.job), commit.cost.into()).await {
                Ok(CommitOutcome::Accepted(quota)) => Some((true, quota.credits_consumed, quota.budget)),
                Ok(CommitOutcome::Rejected(rejected)) => Some((false, rejected.consumed(), rejected.budget())),
                Ok(CommitOutcome::JobEnded) => panic!("no job of these has ended"),
                Err(Error::NotFound { .. }) => None,
                Err(error) => panic!("{error}"),
            };
            let expected = commit.is_ours.then_some((accepted, consumed, commit.budget));
            assert_eq!(actual, expected, "{:?} {:#?}", commit.place, commit.workspaces);
            classes.note("it was another daemon's, or elsewhere", !commit.is_ours);
            if accepted && commit.is_ours {
                let (workspace, number) = commit.place;
                let cost = commit.cost;
                commit.workspaces[workspace].1.entry(number).and_modify(|(_, recorded, _)| *recorded = cost);
            }
            costs.extend(
                commit.workspaces.iter().flat_map(|(_, builds)| builds.values().map(|(id, cost, _)| (*id, *cost))),
            );
        }
        let stored: Vec<(Uuid, i32)> = sqlx::query_as("SELECT id, daily_cost FROM workspace_builds WHERE id <> u(1)")
            .fetch_all(conn)
            .await
            .expect("builds");
        let _seed = Seed(seeds[0]);
        assert_eq!(stored.into_iter().collect::<BTreeMap<_, _>>(), costs);
    });
}

// Logs (domain: log cap) ----------------------------------------------------------------------------------------------

const CAP: usize = LIMIT as usize;

/// A text of about so many bytes, of characters of one to four.
fn text(rng: &mut Rng, bytes: usize) -> String {
    let character = one(rng, &["x", "x", "\u{e9}", "\u{20ac}", "\u{1f600}"]);
    let mut text = character.repeat(bytes / character.len());
    if rng.bool() {
        text.push_str(&"y".repeat(bytes - text.len()));
    }
    text
}

/// So many bytes in several parts.
fn parts(rng: &mut Rng, bytes: usize) -> Vec<usize> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    for _ in 0..rng.usize(..6) {
        let part = rng.usize(..=rest);
        parts.push(part);
        rest -= part;
    }
    if rng.bool() {
        parts.push(rest);
    }
    parts
}

/// How much is left in a log, and how much is to be appended, near what fits besides the warning.
fn room(rng: &mut Rng, warning: usize) -> (usize, usize) {
    let room = match rng.u32(..300) {
        // One line fills the whole log, or would.
        0 => CAP,
        1..=60 => rng.usize(..=warning),
        _ => warning + rng.usize(..3000),
    };
    let more = one(rng, &[0, 0, 1, 1, 2, 50]);
    (room, (room.saturating_sub(warning) + more).saturating_sub(one(rng, &[0, 0, 1, 30])))
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// Job, id, time, source, level, stage and output.
type Line = (Uuid, i64, OffsetDateTime, String, String, String, String);

/// A job with so much in its log, and lines to append to it.
struct Batch {
    job: Uuid,
    worker: Option<u128>,
    logged: usize,
    overflowed: bool,
    lines: Vec<NewJobLog>,
}

impl Batch {
    fn new(rng: &mut Rng) -> Self {
        let (room, bytes) = room(rng, OVERFLOW_MESSAGE.len());
        let lines = parts(rng, bytes).into_iter().map(|bytes| NewJobLog {
            created_at: NOW + time::Duration::microseconds(rng.i64(0..1000)),
            source: one(rng, LogSource::ALL),
            level: one(rng, LogLevel::ALL),
            stage: text(rng, one(&mut Rng::with_seed(bytes as u64), &[0, 10, 300])),
            output: text(rng, bytes),
        });
        let lines = lines.collect();
        let worker = one(rng, &[Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(8), None]);
        Self { job: rows::uuid(rng), worker, logged: CAP - room, overflowed: often(rng, 0.05), lines }
    }

    /// What is stored, the counter, the flag, and what is answered.
    fn model(&self) -> Capped {
        let unchanged = |answer| Capped { kept: vec![], logged: self.logged, overflowed: self.overflowed, answer };
        match self.worker {
            None => return unchanged("not running"),
            Some(7) => {}
            Some(_) => return unchanged("not yours"),
        }
        let lines: Vec<_> = self.lines.iter().map(|line| (line.output.as_str(), line.level)).collect();
        capped(self.logged, self.overflowed, &lines, OVERFLOW_MESSAGE)
    }
}

/// What becomes of lines: outputs and levels that are stored, the counter, the flag, and what is answered.
struct Capped {
    kept: Vec<(String, LogLevel)>,
    logged: usize,
    overflowed: bool,
    answer: &'static str,
}

/// The cap, line by line (domain: log cap; last line of agent logs).
fn capped(logged: usize, overflowed: bool, lines: &[(&str, LogLevel)], message: &str) -> Capped {
    // 1. What has overflowed takes nothing more.
    if overflowed {
        return Capped { kept: vec![], logged, overflowed, answer: "dropped" };
    }
    // 2. The lines in order, with what they come to so far.
    let (mut new, mut kept, mut overflowed) = (0, Vec::new(), false);
    for (output, level) in lines {
        if logged + new + message.len() + output.len() > CAP {
            // 3. The first line that does not fit becomes the last one.
            overflowed = true;
            new += message.len();
            kept.push((message.to_owned(), LogLevel::Warn));
            break;
        }
        new += output.len();
        kept.push((cut(output, 1024), *level));
    }
    // 4. Not even that fits: the flag alone is set.
    if logged + new > CAP {
        return Capped { kept: vec![], logged, overflowed: true, answer: "full" };
    }
    Capped { kept, logged: logged + new, overflowed, answer: if overflowed { "overflowed" } else { "stored" } }
}

/// The answer, given the id of the first line that was stored.
fn append(capped: &Capped, first: Option<i64>) -> Append {
    let logs_after = first.map(|first| first - 1);
    match capped.answer {
        "dropped" => Append::Dropped,
        "full" => Append::Full,
        "overflowed" => Append::Overflowed {
            logs_after: logs_after.expect("at least the warning"),
            lines: i64::try_from(capped.kept.len()).expect("a few"),
        },
        _ => Append::Stored { logs_after },
    }
}

/// What has to be among the logs for the cap to matter.
fn note_cap(classes: &Classes, before: usize, given: usize, capped: &Capped, message: &str) {
    let Capped { kept, logged, answer, .. } = capped;
    for (sentence, when) in [
        ("the lines were dropped", *answer == "dropped" && given > 0),
        ("not even the warning fitted", *answer == "full"),
        ("there were no lines", *answer == "stored" && given == 0),
        ("the last line left just room for the warning", *answer == "stored" && logged + message.len() == CAP),
        ("the warning filled the log", *answer == "overflowed" && *logged == CAP),
        ("the first line became the warning", *answer == "overflowed" && kept.len() == 1),
        ("lines after the warning were dropped", *answer == "overflowed" && kept.len() < given),
        ("several lines were stored before the warning", *answer == "overflowed" && kept.len() > 2),
        ("one line filled the whole log", before == 0 && *answer == "stored" && logged + message.len() == CAP),
        ("one byte too much for an empty log", before == 0 && *answer == "overflowed"),
        ("an output was cut off", kept.iter().any(|(output, _)| output.chars().count() == 1024)),
        ("a character had several bytes", kept.iter().any(|(output, _)| output.contains('\u{1f600}'))),
    ] {
        classes.note(sentence, when);
    }
}

#[test]
fn random_lines_at_the_cap_of_a_job_are_stored_as_the_model_says() {
    compare(STATES, 50, async |conn, seeds, classes| {
        let batches: Vec<Batch> = seeds.iter().map(|seed| Batch::new(&mut Rng::with_seed(*seed))).collect();
        let jobs: Vec<Value> = batches
            .iter()
            .map(|batch| {
                with(
                    rows::job(batch.job, id(1), id(1)),
                    json!({
                        "started_at": batch.worker.map(|_| at(NOW)), "worker_id": batch.worker.map(id),
                        "logs_length": batch.logged, "logs_overflowed": batch.overflowed,
                    }),
                )
            })
            .collect();
        rows::insert(conn, "provisioner_jobs", &jobs).await;
        let mut answers = Vec::new();
        for (seed, batch) in seeds.iter().zip(&batches) {
            let _seed = Seed(*seed);
            let answer = store::job_logs::append(conn, &daemon(1, 7), JobId(batch.job), &batch.lines).await;
            answers.push(answer.expect("the job"));
        }
        let counters: Vec<(Uuid, i32, bool)> =
            sqlx::query_as("SELECT id, logs_length, logs_overflowed FROM provisioner_jobs")
                .fetch_all(&mut *conn)
                .await
                .expect("jobs");
        let counters: BTreeMap<Uuid, (i32, bool)> =
            counters.into_iter().map(|(id, length, flag)| (id, (length, flag))).collect();
        let lines: Vec<Line> = sqlx::query_as(
            "SELECT job_id, id, created_at, source::text, level::text, stage, output FROM provisioner_job_logs ORDER BY id",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("lines");
        for ((seed, batch), answer) in seeds.iter().zip(&batches).zip(answers) {
            let _seed = Seed(*seed);
            let capped = batch.model();
            let mine: Vec<&Line> = lines.iter().filter(|line| line.0 == batch.job).collect();
            let actual: Vec<NewJobLog> = mine
                .iter()
                .map(|(_, _, created_at, source, level, stage, output)| NewJobLog {
                    created_at: *created_at,
                    source: source.parse().expect("a source"),
                    level: level.parse().expect("a level"),
                    stage: stage.clone(),
                    output: output.clone(),
                })
                .collect();
            // It keeps its stage, source and time.
            let expected: Vec<NewJobLog> = batch
                .lines
                .iter()
                .zip(&capped.kept)
                .map(|(line, (output, level))| NewJobLog {
                    stage: cut(&line.stage, 128),
                    output: output.clone(),
                    level: *level,
                    ..line.clone()
                })
                .collect();
            assert!(actual == expected, "{actual:#?}\ninstead of {expected:#?}");
            assert_eq!(counters[&batch.job], (i32::try_from(capped.logged).expect("the cap"), capped.overflowed));
            let expected = match capped.answer {
                "not running" => ByWorker::NotRunningYet,
                "not yours" => ByWorker::OtherOwner,
                _ => ByWorker::Done(append(&capped, mine.first().map(|line| line.1))),
            };
            assert_eq!(answer, expected);
            classes.note("the job was another daemon's", capped.answer == "not yours");
            classes.note("the job was nobody's", capped.answer == "not running");
            note_cap(classes, batch.logged, batch.lines.len(), &capped, OVERFLOW_MESSAGE);
        }
    });
}

#[test]
fn random_lines_at_the_cap_of_an_agent_are_stored_as_the_model_says() {
    compare(STATES, 50, async |conn, seeds, classes| {
        let states: Vec<(Uuid, usize, bool, Vec<AgentLogLine>)> = seeds
            .iter()
            .map(|seed| {
                let rng = &mut Rng::with_seed(*seed);
                let (room, bytes) = room(rng, store::agents::OVERFLOW_MESSAGE.len());
                let lines = parts(rng, bytes)
                    .into_iter()
                    .map(|bytes| AgentLogLine { level: one(rng, LogLevel::ALL), output: text(rng, bytes) })
                    .collect();
                (rows::uuid(rng), CAP - room, often(rng, 0.1), lines)
            })
            .collect();
        sqlx::query(
            "INSERT INTO workspace_agents (
                id, created_at, updated_at, name, resource_id, auth_token, architecture, operating_system, logs_length,
                logs_overflowed
             )
             SELECT a.id, at_second(0), at_second(0), a.id::text, u(1), a.id, '', '', a.logged, a.overflowed
             FROM unnest($1::uuid[], $2::integer[], $3::boolean[]) AS a (id, logged, overflowed)",
        )
        .bind(states.iter().map(|state| state.0).collect::<Vec<_>>())
        .bind(states.iter().map(|state| i32::try_from(state.1).expect("the cap")).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.2).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await
        .expect("agents");
        let mut answers = Vec::new();
        for (seed, (agent, _, _, lines)) in seeds.iter().zip(&states) {
            let _seed = Seed(*seed);
            let permit =
                ActAsAgent::check(&Actor::system(System::WorkspaceAgent), WorkspaceAgentId(*agent)).expect("an agent");
            let answer = store::agents::append_logs(conn, &permit, lines, None, NOW).await;
            answers.push(answer.expect("the agent"));
        }
        let counters: Vec<(Uuid, i32, bool)> =
            sqlx::query_as("SELECT id, logs_length, logs_overflowed FROM workspace_agents")
                .fetch_all(&mut *conn)
                .await
                .expect("agents");
        let counters: BTreeMap<Uuid, (i32, bool)> =
            counters.into_iter().map(|(id, length, flag)| (id, (length, flag))).collect();
        let lines: Vec<(Uuid, i64, String, String)> =
            sqlx::query_as("SELECT agent_id, id, level::text, output FROM workspace_agent_logs ORDER BY id")
                .fetch_all(&mut *conn)
                .await
                .expect("lines");
        for ((seed, (agent, logged, overflowed, appended)), answer) in seeds.iter().zip(&states).zip(answers) {
            let _seed = Seed(*seed);
            let given: Vec<_> = appended.iter().map(|line| (line.output.as_str(), line.level)).collect();
            let capped = capped(*logged, *overflowed, &given, store::agents::OVERFLOW_MESSAGE);
            let mine: Vec<_> = lines.iter().filter(|line| line.0 == *agent).collect();
            let actual: Vec<_> =
                mine.iter().map(|line| (line.3.clone(), line.2.parse::<LogLevel>().expect("a level"))).collect();
            assert_eq!(actual, capped.kept);
            assert_eq!(counters[agent], (i32::try_from(capped.logged).expect("the cap"), capped.overflowed));
            assert_eq!(answer, append(&capped, mine.first().map(|line| line.1)));
            note_cap(classes, *logged, given.len(), &capped, store::agents::OVERFLOW_MESSAGE);
        }
    });
}

// Agents (domain: agents) ---------------------------------------------------------------------------------------------

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

// Jobs (domain: job status) -------------------------------------------------------------------------------------------

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
