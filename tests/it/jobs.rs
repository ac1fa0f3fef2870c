//! The steps of a job's life: every state, every refusal, and the races.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use coderdb::{
    authz::{Actor, CancelJobs, InsertJobs, LoadActors, LockJobs, ReapJobs, RunJobs, System},
    model::{
        BuildReason, ByWorker, CancelOutcome, Capabilities, DaemonId, End, EndedBuild, ExpectedStatus, Failure,
        FailureCode, FailureNotice, FileId, Heartbeat, Job, JobErrorCode, JobId, JobStatus, JobTarget, JobType, NewJob,
        OrganizationId, ProvisionerType, ReapOutcome, Stuck, Tags, TemplateVersionId, Transition, UserId,
        WorkspaceBuildId, WorkspaceId,
    },
    store::{self, Error},
};
use fastrand::Rng;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::{Duration, OffsetDateTime, macros::datetime};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{self, Database};

/// A database with `golden/rows.sql`: organization, user, template, workspace, build and job 1.
pub struct Rows {
    pub database: Database,
    pub conn: PgConnection,
}

impl Rows {
    pub async fn new() -> Self {
        Self::of(support::database().await).await
    }

    pub async fn of(database: Database) -> Self {
        let conn = database.connect().await;
        let mut rows = Self { database, conn };
        rows.run(include_str!("golden/rows.sql")).await;
        rows
    }

    pub async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    }

    /// The first column of all rows, as text; `-` is null.
    pub async fn all(&mut self, sql: &str) -> Vec<String> {
        let sql = format!("SELECT coalesce(x::text, '-') FROM ({sql}) AS t (x)");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut self.conn).await.expect("the rows")
    }

    pub async fn one(&mut self, sql: &str) -> String {
        let rows = self.all(sql).await;
        let [row] = rows.as_slice() else { panic!("{sql}\n{rows:?}") };
        row.clone()
    }

    /// All jobs, builds, log lines and timings as one text: equal before and after what changes nothing.
    pub async fn everything(&mut self) -> Vec<String> {
        self.all(
            "SELECT to_jsonb(j) FROM (SELECT * FROM provisioner_jobs ORDER BY id) AS j
             UNION ALL SELECT to_jsonb(b) FROM (SELECT * FROM workspace_builds ORDER BY id) AS b
             UNION ALL SELECT to_jsonb(l) FROM (SELECT * FROM provisioner_job_logs ORDER BY id) AS l
             UNION ALL SELECT to_jsonb(t) FROM (SELECT * FROM provisioner_job_timings ORDER BY job_id) AS t",
        )
        .await
    }

    /// User `n` with these roles on the site and in organization 1.
    pub async fn user(&mut self, n: u128, site: &str, organization: &str) -> Actor {
        if n != 1 {
            self.run(&format!("SELECT add_user({n})")).await;
        }
        self.run(&format!(
            "SELECT add_member(1, {n}); UPDATE users SET rbac_roles = '{site}' WHERE id = u({n});
             UPDATE organization_members SET roles = '{organization}' WHERE user_id = u({n})"
        ))
        .await;
        let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("the authenticator");
        store::actors::load(&mut self.conn, &permit, UserId(id(n))).await.expect("the user")
    }
}

pub const NOW: OffsetDateTime = datetime!(2026-05-07 12:00:00 UTC);

/// As `u(n)` in `golden/rows.sql`, which spells ids in decimal digits.
pub fn id(n: u128) -> Uuid {
    format!("{n:032}").parse().expect("digits")
}

pub fn daemon(organization: u128, daemon: u128) -> RunJobs {
    let organization = OrganizationId(id(organization));
    RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(id(daemon))).expect("a daemon")
}

fn reaper() -> ReapJobs {
    ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper")
}

fn cancels_all(organization: u128) -> CancelJobs {
    CancelJobs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator")
}

fn locks(organization: u128) -> LockJobs {
    LockJobs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator")
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().copied().collect()
}

const BOTH: &[ProvisionerType] = ProvisionerType::ALL;

fn new_job(n: u128) -> NewJob {
    NewJob {
        id: JobId(id(n)),
        created_at: NOW,
        options: serde_json::Map::from_iter([("log_level".to_owned(), json!("debug"))]),
        tags: tags(&[("scope", "organization"), ("owner", ""), ("é", "\u{1f600}")]),
        trace_metadata: Some(json!({"traceparent": "00-1"})),
    }
}

// Insert ---------------------------------------------------------------------------------------------------------------

const IMPORT: JobTarget = import(1);
const DRY_RUN: JobTarget = JobTarget::DryRun(TemplateVersionId(Uuid::from_u128(1)));

/// An import of the version from the source with the id 9, which user 2 has uploaded.
const fn import(version: u128) -> JobTarget {
    JobTarget::Import {
        version: TemplateVersionId(Uuid::from_u128(version)),
        file: FileId(Uuid::from_u128(9)),
        provisioner: ProvisionerType::Echo,
    }
}

const UPLOAD: &str = "INSERT INTO files (id, hash, created_at, created_by, mimetype, data)
                      VALUES (u(9), '', now(), u(2), '', '')";

/// Coder's own server upgrades the schema of a database that it shares.
#[tokio::test]
async fn insert_names_the_column_that_it_cannot_write_and_writes_nothing() {
    let mut rows = Rows::new().await;
    let alice = rows.user(1, "{}", "{}").await;
    let permit = InsertJobs::check(&alice, OrganizationId(id(1)), DRY_RUN).expect("a member");
    let before = rows.one("SELECT count(*) FROM provisioner_jobs").await;
    for (upgrade, column) in [
        (
            "ALTER TABLE provisioner_jobs ADD COLUMN zone text; UPDATE provisioner_jobs SET zone = '';
             ALTER TABLE provisioner_jobs ALTER zone SET NOT NULL",
            "\"zone\"",
        ),
        (
            "ALTER TABLE provisioner_jobs DROP COLUMN zone; ALTER TABLE provisioner_jobs RENAME tags TO labels",
            "\"tags\"",
        ),
    ] {
        rows.run(upgrade).await;
        // The others must prepare the statement anew first.
        rows.conn = rows.database.connect().await;
        let error = store::jobs::insert(&mut rows.conn, &permit, new_job(2)).await.expect_err(upgrade);
        assert!(error.code() == "schema" && error.to_string().contains(column), "{error}");
        assert_eq!(rows.one("SELECT count(*) FROM provisioner_jobs").await, before);
    }
}

#[tokio::test]
async fn a_new_job_waits_in_the_permits_organization_for_the_permits_initiator() {
    let mut rows = Rows::new().await;
    let alice = rows.user(1, "{}", "{}").await;
    let permit = InsertJobs::check(&alice, OrganizationId(id(1)), DRY_RUN).expect("a member");
    let job = store::jobs::insert(&mut rows.conn, &permit, new_job(2)).await.expect("the job");
    assert_eq!((job.status, job.job_type), (JobStatus::Pending, JobType::TemplateVersionDryRun.into()));
    assert_eq!((job.id, job.organization_id, job.initiator_id), (JobId(id(2)), OrganizationId(id(1)), UserId(id(1))));
    assert_eq!((job.created_at, job.updated_at, job.logs_length, job.logs_overflowed), (NOW, NOW, 0, false));
    assert_eq!(job.input.template_version_id, Some(DRY_RUN.template_version_id()));
    assert_eq!(job.tags, new_job(2).tags);
    assert_eq!(job.trace_metadata, new_job(2).trace_metadata);
    let input = rows.one("SELECT input ->> 'log_level' FROM provisioner_jobs WHERE id = u(2)").await;
    assert_eq!(input, "debug");
    assert!(InsertJobs::check(&alice, OrganizationId(id(1)), IMPORT).is_err());
    assert!(InsertJobs::check(&alice, OrganizationId(id(2)), DRY_RUN).is_err());
    for system in System::ALL {
        assert!(InsertJobs::check(&Actor::system(*system), OrganizationId(id(1)), DRY_RUN).is_err(), "{system:?}");
    }

    // A dry run has the source and the provisioner of the version.
    let version =
        store::jobs::get(&mut rows.conn, &support::read_jobs(id(1)), JobId(id(1))).await.expect("the job").job;
    assert_eq!((job.file_id, job.provisioner), (version.file_id, version.provisioner));

    // The version of an import may come after its job.
    let admin = rows.user(2, "{}", "{organization-template-admin}").await;
    rows.run(UPLOAD).await;
    for (n, version) in [(3, 1), (4, 404)] {
        let target = import(version);
        let permit = InsertJobs::check(&admin, OrganizationId(id(1)), target).expect("a template admin");
        let job = store::jobs::insert(&mut rows.conn, &permit, new_job(n)).await.expect("the job");
        assert_eq!((job.job_type, job.initiator_id), (JobType::TemplateVersionImport.into(), UserId(id(2))));
        assert_eq!(job.input.template_version_id, Some(target.template_version_id()));
        assert_eq!((job.file_id, job.provisioner), (FileId(id(9)), ProvisionerType::Echo.into()));
    }
    // Not from a source of somebody else.
    let other = rows.user(3, "{owner}", "{}").await;
    let permit = InsertJobs::check(&other, OrganizationId(id(1)), IMPORT).expect("an owner");
    let error = store::jobs::insert(&mut rows.conn, &permit, new_job(5)).await.expect_err("the source of user 2");
    assert_eq!(error.code(), "not_found");
}

#[tokio::test]
async fn a_job_that_cannot_be_stored_is_refused_by_name_and_leaves_nothing() {
    let mut rows = Rows::new().await;
    let owner = rows.user(1, "{owner}", "{}").await;
    let before = rows.everything().await;
    let with = |change: fn(&mut NewJob)| {
        let mut job = new_job(2);
        change(&mut job);
        job
    };
    let refused: &[(NewJob, &str, &str)] = &[
        (with(|job| job.tags = tags(&[("a", "b\0")])), "invalid", "tags"),
        (with(|job| job.tags = tags(&[("a\0", "b")])), "invalid", "tags"),
        (with(|job| job.trace_metadata = Some(json!({"a": [{"b": "\0"}]}))), "invalid", "trace_metadata"),
        (with(|job| drop(job.options.insert("a".into(), json!("\0")))), "invalid", "options"),
        (with(|job| drop(job.options.insert("template_version_id".into(), json!(1)))), "invalid", "options"),
        (with(|job| drop(job.options.insert("workspace_build_id".into(), json!(1)))), "invalid", "options"),
        (with(|job| job.created_at = job.created_at.replace_year(0).expect("a year")), "invalid", "created_at"),
        (with(|job| job.id = JobId(id(1))), "conflict", "provisioner_jobs_pkey"),
    ];
    let permit = InsertJobs::check(&owner, OrganizationId(id(1)), DRY_RUN).expect("an owner");
    for (job, code, names) in refused {
        let error = store::jobs::insert(&mut rows.conn, &permit, job.clone()).await.expect_err(names);
        assert_eq!(error.code(), *code, "{error}");
        assert!(error.to_string().contains(names), "{error}");
    }
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn a_job_is_about_a_version_of_its_own_organization() {
    let mut rows = Rows::new().await;
    let owner = rows.user(2, "{owner}", "{}").await;
    rows.run(UPLOAD).await;
    rows.run(
        "SELECT add_organization(2), add_organization(3), add_template(2), add_job(2);
         UPDATE templates SET organization_id = u(2) WHERE id = u(2);
         SELECT add_version(2, 2);
         UPDATE template_versions SET organization_id = u(2) WHERE id = u(2);
         UPDATE organizations SET deleted = true WHERE id = u(3)",
    )
    .await;
    let before = rows.everything().await;
    let version = |n| TemplateVersionId(id(n));
    let nowhere = [
        (1, import(2)),
        (1, JobTarget::DryRun(version(2))),
        (1, JobTarget::DryRun(version(404))),
        (2, JobTarget::DryRun(version(1))),
        (2, import(1)),
        (3, import(404)),
        (404, import(404)),
    ];
    for (organization, target) in nowhere {
        let permit = InsertJobs::check(&owner, OrganizationId(id(organization)), target).expect("an owner");
        let error = store::jobs::insert(&mut rows.conn, &permit, new_job(5)).await.expect_err("not there");
        let missing = format!("template version or its source not found: {}", target.template_version_id());
        assert_eq!(error.to_string(), missing);
    }
    assert_eq!(rows.everything().await, before);
    let permit = InsertJobs::check(&owner, OrganizationId(id(2)), JobTarget::DryRun(version(2))).expect("an owner");
    store::jobs::insert(&mut rows.conn, &permit, new_job(5)).await.expect("the job");
}

#[tokio::test]
async fn jobs_by_ids_are_those_of_the_organization_and_the_others_are_left_out() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_organization(2), add_job(2), add_job(3)").await;
    rows.run("UPDATE provisioner_jobs SET organization_id = u(2) WHERE id = u(3)").await;
    let wanted = [1, 2, 3, 404].map(|n| JobId(id(n)));
    for (organization, expected) in [(1, &wanted[..2]), (2, &wanted[2..3])] {
        let permit = support::read_jobs(id(organization));
        let mut found = store::jobs::by_ids(&mut rows.conn, &permit, &wanted).await.expect("the jobs");
        found.sort_by_key(|job| job.id);
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), expected);
        for job in found {
            assert_eq!(store::jobs::get(&mut rows.conn, &permit, job.id).await.expect("the job").job, job);
        }
        assert_eq!(store::jobs::by_ids(&mut rows.conn, &permit, &[]).await.expect("nothing"), []);
    }
}

#[tokio::test]
async fn created_after_is_strict_oldest_first_and_within_the_organization() {
    let mut rows = Rows::new().await;
    rows.run(
        "SELECT add_organization(2), add_job(2), add_job(3), add_job(4);
         UPDATE provisioner_jobs SET created_at = at_second(3) WHERE id = u(2);
         UPDATE provisioner_jobs SET created_at = at_second(2) WHERE id = u(3);
         UPDATE provisioner_jobs SET created_at = at_second(9), organization_id = u(2) WHERE id = u(4)",
    )
    .await;
    let permit = support::read_jobs(id(1));
    let after = |seconds| NOW + Duration::seconds(seconds);
    let mut found = Vec::new();
    for seconds in [-1, 0, 2, 3] {
        let jobs = store::jobs::created_after(&mut rows.conn, &permit, after(seconds)).await.expect("jobs");
        found.push(jobs.into_iter().map(|job| job.id.0).collect::<Vec<_>>());
    }
    assert_eq!(found, [vec![id(1), id(3), id(2)], vec![id(3), id(2)], vec![id(2)], vec![]]);
}

// Acquire --------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_daemon_gets_people_first_then_the_oldest_and_only_what_it_can_take() {
    let mut rows = Rows::new().await;
    rows.run(
        "SELECT add_organization(2);
         DELETE FROM provisioner_jobs;
         SELECT add_job(n) FROM generate_series(10, 20) AS n;
         UPDATE provisioner_jobs SET tags = '{\"scope\": \"organization\", \"owner\": \"\"}';
         UPDATE provisioner_jobs SET created_at = at_second(1), initiator_id = prebuilds() WHERE id = u(10);
         UPDATE provisioner_jobs SET created_at = at_second(3) WHERE id = u(11);
         UPDATE provisioner_jobs SET created_at = at_second(2) WHERE id = u(12);
         UPDATE provisioner_jobs SET organization_id = u(2) WHERE id = u(13);
         UPDATE provisioner_jobs SET provisioner = 'terraform' WHERE id = u(14);
         UPDATE provisioner_jobs SET tags = '{\"scope\": \"organization\", \"owner\": \"\", \"gpu\": \"1\"}' WHERE id = u(15);
         UPDATE provisioner_jobs SET started_at = at_second(0) WHERE id = u(16);
         UPDATE provisioner_jobs SET canceled_at = at_second(0), completed_at = at_second(0) WHERE id = u(17);
         UPDATE provisioner_jobs SET completed_at = at_second(0), error = 'x' WHERE id = u(18);
         UPDATE provisioner_jobs SET created_at = at_second(4), canceled_at = at_second(1) WHERE id = u(19);
         UPDATE provisioner_jobs SET created_at = at_second(5), error = '' WHERE id = u(20)",
    )
    .await;
    let untagged = tags(&[("scope", "organization"), ("owner", "")]);
    let offer = Capabilities { provisioners: &[ProvisionerType::Echo], tags: &untagged };
    let permit = daemon(1, 7);
    let now = NOW + Duration::minutes(1);
    let mut order = Vec::new();
    while let Some(job) = store::jobs::acquire(&mut rows.conn, &permit, offer, now).await.expect("an answer") {
        assert_eq!((job.started_at, job.updated_at), (Some(now), now));
        assert_eq!(job.worker_id, Some(DaemonId(id(7))));
        order.push(job.id.0);
    }
    assert_eq!(order, [id(12), id(11), id(19), id(20), id(10)]);
    let rest = "SELECT count(*) FROM provisioner_jobs WHERE worker_id IS NULL";
    assert_eq!(rows.one(rest).await, "6");

    rows.run("UPDATE provisioner_jobs SET worker_id = NULL, started_at = NULL WHERE worker_id IS NOT NULL").await;
    let mut batches = Vec::new();
    for limit in [0, 3, 9, 9] {
        let batch = store::jobs::acquire_batch(&mut rows.conn, &permit, offer, now, limit).await.expect("jobs");
        assert!(batch.iter().all(|job| job.worker_id == Some(DaemonId(id(7))) && job.started_at == Some(now)));
        batches.push(batch.into_iter().map(|job| job.id.0).collect::<Vec<_>>());
    }
    assert_eq!(batches, [vec![], vec![id(12), id(11), id(19)], vec![id(20), id(10)], vec![]]);
    let none = Capabilities { provisioners: &[], tags: &untagged };
    assert_eq!(store::jobs::acquire(&mut rows.conn, &permit, none, now).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_daemon_with_bad_tags_is_refused_by_name() {
    let mut rows = Rows::new().await;
    let bad = tags(&[("a", "\0")]);
    let offer = Capabilities { provisioners: BOTH, tags: &bad };
    let error = store::jobs::acquire(&mut rows.conn, &daemon(1, 7), offer, NOW).await.expect_err("NUL");
    assert!(matches!(error, Error::Invalid { field: "tags", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_daemons_take_each_job_once_and_none_is_starved_by_tags() {
    const KINDS: usize = 4;
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM provisioner_jobs;
         SELECT add_job(n) FROM generate_series(1000, 1399) AS n;
         UPDATE provisioner_jobs SET tags = jsonb_build_object('kind', (right(id::text, 3)::integer % 4)::text),
             created_at = created_at + right(id::text, 3)::integer * interval '1 second'",
    )
    .await;
    let database = Arc::new(rows.database);
    let mut daemons = JoinSet::new();
    for n in 0..32_usize {
        let mut conn = database.connect().await;
        daemons.spawn(async move {
            let own = tags(&[("kind", &(n % KINDS).to_string())]);
            let offer = Capabilities { provisioners: BOTH, tags: &own };
            let permit = daemon(1, n as u128 + 1);
            let mut taken = Vec::new();
            loop {
                // Some take one at a time, others several.
                let jobs = if n < 16 {
                    store::jobs::acquire(&mut conn, &permit, offer, NOW).await.expect("an answer").into_iter().collect()
                } else {
                    store::jobs::acquire_batch(&mut conn, &permit, offer, NOW, 3).await.expect("an answer")
                };
                if jobs.is_empty() {
                    return taken;
                }
                assert!(jobs.iter().all(|job| job.tags == own && job.worker_id == Some(permit.daemon())));
                taken.extend(jobs.into_iter().map(|job: Job| job.id));
            }
        });
    }
    let mut taken: Vec<JobId> = daemons.join_all().await.into_iter().flatten().collect();
    taken.sort();
    assert_eq!(taken.len(), 400);
    taken.dedup();
    assert_eq!(taken.len(), 400, "a job was taken twice");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM provisioner_jobs WHERE worker_id IS NULL")
        .fetch_one(&mut rows.conn)
        .await
        .expect("a count");
    assert_eq!(left, 0);
}

// Every state ----------------------------------------------------------------------------------------------------------

/// The four columns that make the status (domain: job status), and who works on the job.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "the domain has four independent columns")]
struct State {
    completed: bool,
    canceled: bool,
    started: bool,
    error: bool,
    worker: Option<u128>,
}

const OWN: u128 = 7;

impl State {
    /// All 16 combinations, each without a worker, with our daemon and with another one; jobs 100 to 147.
    fn all() -> impl Iterator<Item = (u128, Self)> {
        (0..48_u32).map(|n| {
            let bit = |b: u32| n >> b & 1 == 1;
            let worker = [None, Some(OWN), Some(OWN + 1)][n as usize / 16];
            let state = Self { completed: bit(0), canceled: bit(1), started: bit(2), error: bit(3), worker };
            (u128::from(n) + 100, state)
        })
    }

    async fn fill(rows: &mut Rows) {
        for (n, state) in Self::all() {
            let time = |set| if set { "at_second(1)" } else { "NULL" };
            let worker = state.worker.map_or("NULL".to_owned(), |worker| format!("u({worker})"));
            rows.run(&format!(
                "SELECT add_job({n}); UPDATE provisioner_jobs SET completed_at = {}, canceled_at = {}, started_at = {},
                 error = {}, worker_id = {worker} WHERE id = u({n})",
                time(state.completed),
                time(state.canceled),
                time(state.started),
                if state.error { "'x'" } else { "NULL" },
            ))
            .await;
        }
    }

    fn status(self) -> JobStatus {
        match (self.error, self.completed, self.canceled, self.started) {
            (true, ..) => JobStatus::Failed,
            (_, true, true, _) => JobStatus::Canceled,
            (_, true, false, _) => JobStatus::Succeeded,
            (_, false, true, _) => JobStatus::Canceling,
            (_, _, _, false) => JobStatus::Pending,
            (_, _, _, true) => JobStatus::Running,
        }
    }
}

async fn row(rows: &mut Rows, n: u128) -> String {
    rows.one(&format!("SELECT to_jsonb(j) FROM provisioner_jobs AS j WHERE id = u({n})")).await
}

#[tokio::test]
async fn a_heartbeat_reaches_only_the_daemons_own_job_and_says_whether_to_stop() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    let later = NOW + Duration::minutes(1);
    for (n, state) in State::all() {
        let before = row(&mut rows, n).await;
        let outcome =
            store::jobs::heartbeat(&mut rows.conn, &daemon(1, OWN), JobId(id(n)), later).await.expect("a job");
        let expected = match state.worker {
            None => ByWorker::NotRunningYet,
            Some(OWN) if state.completed => ByWorker::Ended,
            Some(OWN) => ByWorker::Done(Heartbeat { cancel_requested: state.canceled }),
            Some(_) => ByWorker::OtherOwner,
        };
        assert_eq!(outcome, expected, "{state:?}");
        let is_alive = state.worker == Some(OWN) && !state.completed;
        assert_eq!(row(&mut rows, n).await != before, is_alive, "{state:?}");
        let updated = format!("SELECT (updated_at = at_second(60))::text FROM provisioner_jobs WHERE id = u({n})");
        assert_eq!(rows.one(&updated).await == "true", is_alive, "{state:?}");
    }
    // A clock that was set back does not take the sign of life back.
    let before = row(&mut rows, 116).await;
    let outcome = store::jobs::heartbeat(&mut rows.conn, &daemon(1, OWN), JobId(id(116)), NOW).await.expect("a job");
    assert_eq!(outcome, ByWorker::Done(Heartbeat { cancel_requested: false }));
    assert_eq!(row(&mut rows, 116).await, before);
}

#[tokio::test]
async fn a_job_ends_once_by_its_own_daemon_in_every_state() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    let later = NOW + Duration::minutes(1);
    let permit = daemon(1, OWN);
    for fails in [false, true] {
        for (n, state) in State::all() {
            let before = row(&mut rows, n).await;
            let mut transaction = rows.conn.begin().await.expect("a transaction");
            let outcome = if fails {
                let code = Some(FailureCode::RequiredTemplateVariables);
                let failure = Failure { error: "boom", code, ..Failure::default() };
                store::jobs::fail(&mut transaction, &permit, JobId(id(n)), later, failure).await
            } else {
                store::jobs::complete(&mut transaction, &permit, JobId(id(n)), later, None).await
            };
            match (state.worker, outcome.expect("a job")) {
                (None, ByWorker::NotRunningYet) => {}
                (Some(OWN), ByWorker::Done(End::AlreadyCompleted { .. })) => assert!(state.completed, "{state:?}"),
                (Some(OWN), ByWorker::Done(End::Ended(ended))) => {
                    let job = ended.job;
                    assert!(!state.completed, "{state:?}");
                    assert_eq!((job.completed_at, job.updated_at), (Some(later), later));
                    let status = State { completed: true, error: fails, ..state }.status();
                    assert_eq!(job.status, status, "{state:?}");
                    assert_eq!(job.error.as_deref(), fails.then_some("boom"));
                    assert_eq!(job.error_code, fails.then_some(JobErrorCode::RequiredTemplateVariables));
                    transaction.rollback().await.expect("the rollback");
                    continue;
                }
                (Some(worker), ByWorker::OtherOwner) => assert_ne!(worker, OWN),
                (_, outcome) => panic!("{state:?}: {outcome:?}"),
            }
            transaction.commit().await.expect("the commit");
            assert_eq!(row(&mut rows, n).await, before, "{state:?}");
        }
    }
}

#[tokio::test]
async fn a_cancel_obeys_the_rules_in_their_order_in_every_state() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    let later = NOW + Duration::minutes(1);
    let mut seen = BTreeMap::new();
    for expected in [None, Some(ExpectedStatus::Pending), Some(ExpectedStatus::Running)] {
        for (n, state) in State::all() {
            let before = row(&mut rows, n).await;
            let mut transaction = rows.conn.begin().await.expect("a transaction");
            let outcome = store::jobs::cancel(&mut transaction, &cancels_all(1), JobId(id(n)), expected, later)
                .await
                .expect("a job");
            let (name, job) = match outcome {
                CancelOutcome::AlreadyFinished(job) => ("finished", job),
                CancelOutcome::AlreadyCanceled(job) => ("canceled before", job),
                CancelOutcome::NotInExpectedState(job) => ("unexpected", job),
                CancelOutcome::Canceled(job) => ("canceled", job),
                CancelOutcome::Canceling(job) => ("canceling", job),
                CancelOutcome::NotAllowed => panic!("an operator may"),
            };
            *seen.entry(name).or_insert(0) += 1;
            let is_expected = expected.is_none_or(|expected| expected.as_str() == state.status().as_str());
            let rule = if state.completed {
                "finished"
            } else if state.canceled {
                "canceled before"
            } else if !is_expected {
                "unexpected"
            } else if state.worker.is_none() {
                "canceled"
            } else {
                "canceling"
            };
            assert_eq!(name, rule, "{state:?} {expected:?}");
            let writes = ["canceled", "canceling"].contains(&name);
            let after =
                State { canceled: state.canceled || writes, completed: state.completed || name == "canceled", ..state };
            assert_eq!(job.status, after.status(), "{state:?}");
            if writes {
                assert_eq!(job.canceled_at, Some(later));
                assert_eq!(job.completed_at, (name == "canceled").then_some(later));
                assert_eq!(job.updated_at, NOW, "the sign of life is the daemon's alone");
                transaction.rollback().await.expect("the rollback");
            } else {
                transaction.commit().await.expect("the commit");
                assert_eq!(row(&mut rows, n).await, before, "{state:?}");
            }
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

/// Where each job lies, and who has locked it last.
const VERSIONS: &str = "SELECT concat_ws(' ', ctid, xmax) FROM provisioner_jobs ORDER BY id";

/// Whether a job lies where it lay, whoever has locked it since.
fn written_as(old: &str, new: &str) -> bool {
    old.split(' ').next() == new.split(' ').next()
}

#[tokio::test]
async fn a_batch_decides_on_each_job_as_a_cancel_of_one_does_and_leaves_out_what_is_not_there() {
    let mut rows = Rows::new().await;
    State::fill(&mut rows).await;
    rows.run("SELECT add_organization(2)").await;
    let later = NOW + Duration::minutes(1);
    let jobs: Vec<_> = State::all().map(|(n, _)| JobId(id(n))).collect();
    for expected in [None, Some(ExpectedStatus::Pending), Some(ExpectedStatus::Running)] {
        let (mut one_by_one, before) = (HashMap::new(), rows.everything().await);
        rows.run("BEGIN").await;
        for job in &jobs {
            let outcome = store::jobs::cancel(&mut rows.conn, &cancels_all(1), *job, expected, later).await;
            one_by_one.insert(*job, outcome.expect("a job"));
        }
        let after = rows.everything().await;
        rows.run("ROLLBACK; BEGIN").await;
        let asked: Vec<_> = jobs.iter().rev().chain(&jobs).copied().chain([JobId(id(404))]).collect();
        let elsewhere = store::jobs::cancel_batch(&mut rows.conn, &cancels_all(2), &asked, expected, later).await;
        assert_eq!(elsewhere.expect("an answer"), HashMap::new());
        assert_eq!(rows.everything().await, before);
        let versions = rows.all(VERSIONS).await;
        let would = store::jobs::would_cancel_batch(&mut rows.conn, &cancels_all(1), &asked, expected).await;
        let kinds = |outcomes: &HashMap<JobId, CancelOutcome>| -> BTreeMap<JobId, _> {
            outcomes.iter().map(|(job, outcome)| (*job, std::mem::discriminant(outcome))).collect()
        };
        let would = would.expect("an answer");
        assert_eq!(kinds(&would), kinds(&one_by_one), "{expected:?}");
        for outcome in would.values() {
            if let CancelOutcome::Canceled(job) | CancelOutcome::Canceling(job) = outcome {
                assert_eq!((job.canceled_at, job.completed_at), (None, None), "as it is");
            }
        }
        assert_eq!(rows.all(VERSIONS).await, versions, "neither written nor locked");
        let batch = store::jobs::cancel_batch(&mut rows.conn, &cancels_all(1), &asked, expected, later).await;
        assert_eq!(batch.expect("an answer"), one_by_one, "{expected:?}");
        assert_eq!(rows.everything().await, after, "{expected:?}");
        let written =
            rows.all(VERSIONS).await.into_iter().filter(|version| !versions.iter().any(|old| written_as(old, version)));
        let canceled =
            one_by_one.values().filter(|it| matches!(it, CancelOutcome::Canceled(_) | CancelOutcome::Canceling(_)));
        assert_eq!(written.count(), canceled.count(), "what is refused is not written");
        rows.run("ROLLBACK").await;
    }
}

#[tokio::test]
async fn two_batches_in_opposite_orders_wait_for_each_other_only_once() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(n) FROM generate_series(1001, 1300) AS n").await;
    let mut jobs: Vec<_> = (1001..=1300).map(|n| JobId(id(n))).collect();
    for _ in 0..10 {
        let mut batches = JoinSet::new();
        for _ in 0..4 {
            jobs.reverse();
            let (mut conn, jobs) = (rows.database.connect().await, jobs.clone());
            batches.spawn(async move { store::jobs::cancel_batch(&mut conn, &cancels_all(1), &jobs, None, NOW).await });
        }
        let mut canceled = 0;
        for answer in batches.join_all().await {
            let outcomes = answer.expect("no deadlock");
            assert_eq!(outcomes.len(), jobs.len());
            canceled += outcomes.values().filter(|outcome| matches!(outcome, CancelOutcome::Canceled(_))).count();
        }
        assert_eq!(canceled, jobs.len(), "each job once");
        rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL").await;
    }
}

// Scope ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_job_of_another_organization_looks_like_none_and_stays_as_it_is() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_organization(2); UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)")
        .await;
    let before = rows.everything().await;
    for (job, missing) in [(1, false), (404, true)] {
        let (job, conn, later) = (JobId(id(job)), &mut rows.conn, NOW + Duration::hours(1));
        let organization = if missing { 1 } else { 2 };
        let permit = daemon(organization, OWN);
        let errors = [
            store::jobs::heartbeat(conn, &permit, job, later).await.map(|_| ()),
            store::jobs::complete(conn, &permit, job, later, None).await.map(|_| ()),
            store::jobs::fail(conn, &permit, job, later, Failure::default()).await.map(|_| ()),
            store::jobs::cancel(conn, &cancels_all(organization), job, None, later).await.map(|_| ()),
            store::jobs::get_with_lock(conn, &locks(organization), job).await.map(|_| ()),
        ];
        for error in errors {
            let error = error.expect_err("out of scope");
            assert_eq!(error.to_string(), format!("provisioner job not found: {job}"));
        }
        let locked = store::jobs::get_for_update_skip_locked(conn, &locks(organization), job).await;
        assert_eq!(locked.expect("an answer"), None);
    }
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn who_may_cancel_what_is_as_the_domain_says() {
    let mut rows = Rows::new().await;
    // Job 1 builds the workspace of user 1; 2 is a dry run and 3 an import that user 1 asked for. All of them run.
    rows.run(
        "SELECT add_job(2), add_job(3);
         UPDATE provisioner_jobs SET type = 'template_version_dry_run' WHERE id = u(2);
         UPDATE provisioner_jobs SET type = 'template_version_import' WHERE id = u(3);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)",
    )
    .await;
    let actors = [
        ("the workspace's owner", rows.user(1, "{}", "{}").await),
        ("a member", rows.user(2, "{}", "{}").await),
        ("an owner", rows.user(3, "{owner}", "{}").await),
        ("a template admin", rows.user(4, "{template-admin}", "{}").await),
        ("an organization admin", rows.user(5, "{}", "{organization-admin}").await),
        ("an organization template admin", rows.user(6, "{}", "{organization-template-admin}").await),
        ("an auditor", rows.user(7, "{auditor}", "{organization-auditor}").await),
        ("the operator", support::operator()),
    ];
    let mut table = String::new();
    for users_may in [true, false] {
        rows.run(&format!("UPDATE templates SET allow_user_cancel_workspace_jobs = {users_may}")).await;
        for (name, actor) in &actors {
            let permit = CancelJobs::check(actor, OrganizationId(id(1))).expect("a member");
            table += &[*name, if users_may { ", true:" } else { ", false:" }].concat();
            for (job, expected) in [(1, None), (1, Some(ExpectedStatus::Pending)), (2, None), (3, None)] {
                let mut transaction = rows.conn.begin().await.expect("a transaction");
                let outcome = store::jobs::cancel(&mut transaction, &permit, JobId(id(job)), expected, NOW).await;
                table.push_str(match outcome {
                    Ok(CancelOutcome::Canceling(_)) => " yes",
                    Ok(CancelOutcome::NotAllowed) => " 403",
                    Ok(CancelOutcome::NotInExpectedState(_)) => " 412",
                    Err(Error::NotFound { .. }) => " 404",
                    other => panic!("{other:?}"),
                });
                transaction.rollback().await.expect("the rollback");
            }
            table.push('\n');
        }
    }
    // The build, the build if it were pending, the dry run, the import.
    assert_eq!(
        table,
        "the workspace's owner, true: yes 412 yes 404\n\
         a member, true: 404 404 404 404\n\
         an owner, true: yes 412 yes yes\n\
         a template admin, true: 404 404 404 yes\n\
         an organization admin, true: yes 412 yes yes\n\
         an organization template admin, true: 404 404 404 yes\n\
         an auditor, true: 404 404 404 404\n\
         the operator, true: yes 412 yes yes\n\
         the workspace's owner, false: 403 412 yes 404\n\
         a member, false: 404 404 404 404\n\
         an owner, false: yes 412 yes yes\n\
         a template admin, false: 404 404 404 yes\n\
         an organization admin, false: 403 412 yes yes\n\
         an organization template admin, false: 404 404 404 yes\n\
         an auditor, false: 404 404 404 404\n\
         the operator, false: yes 412 yes yes\n"
    );
    let outside = OrganizationId(id(2));
    assert!(actors[..2].iter().all(|(_, actor)| CancelJobs::check(actor, outside).is_err()));
}

#[test]
fn only_daemons_run_jobs_and_only_the_reaper_reaps() {
    let organization = OrganizationId(id(1));
    for system in System::ALL {
        let actor = Actor::system(*system);
        let runs = RunJobs::check(&actor, organization, DaemonId(id(7))).is_ok();
        assert_eq!(runs, *system == System::ProvisionerDaemon, "{system:?}");
        assert_eq!(ReapJobs::check(&actor).is_ok(), *system == System::Reaper, "{system:?}");
        assert_eq!(CancelJobs::check(&actor, organization).is_ok(), *system == System::Operator, "{system:?}");
    }
}

// Locks and races ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_locked_job_keeps_one_reader_waiting_and_looks_like_none_to_the_other() {
    let mut rows = Rows::new().await;
    // SET is for the session.
    let mut other = rows.database.connect_with_session().await;
    let job = JobId(id(1));
    sqlx::raw_sql("SET lock_timeout = '100ms'").execute(&mut other).await.expect("a setting");
    let mut transaction = rows.conn.begin().await.expect("a transaction");
    let held = store::jobs::get_with_lock(&mut transaction, &locks(1), job).await.expect("the job");
    assert_eq!(held.id, job);
    let skipped = store::jobs::get_for_update_skip_locked(&mut other, &locks(1), job).await.expect("an answer");
    assert_eq!(skipped, None);
    let error = store::jobs::get_with_lock(&mut other, &locks(1), job).await.expect_err("it waits");
    assert!(error.to_string().contains("55P03"), "{error}");
    transaction.commit().await.expect("the commit");
    assert_eq!(store::jobs::get_with_lock(&mut other, &locks(1), job).await.expect("the job"), held);
    let found = store::jobs::get_for_update_skip_locked(&mut other, &locks(1), job).await.expect("an answer");
    assert_eq!(found, Some(held));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_job_is_never_worked_on_while_others_acquire_and_complete() {
    const JOBS: u128 = 300;
    let mut rows = Rows::new().await;
    rows.run(&format!(
        "DELETE FROM provisioner_jobs; SELECT add_job(n) FROM generate_series(1001, {}) AS n",
        1000 + JOBS
    ))
    .await;
    let untagged = tags(&[("scope", "organization")]);
    let mut workers = JoinSet::new();
    for n in 1..=6 {
        let (mut conn, tags) = (rows.database.connect().await, untagged.clone());
        workers.spawn(async move {
            let (permit, offer) = (daemon(1, n), Capabilities { provisioners: BOTH, tags: &tags });
            let mut ended = Vec::new();
            while let Some(job) = store::jobs::acquire(&mut conn, &permit, offer, NOW).await.expect("an answer") {
                let end = store::jobs::complete(&mut conn, &permit, job.id, NOW, None).await.expect("the job");
                let ByWorker::Done(End::Ended(end)) = end else { panic!("{end:?}") };
                ended.push((end.job.id, end.job.status));
            }
            ended
        });
    }
    let mut cancelers = JoinSet::new();
    for n in 0..6 {
        let mut conn = rows.database.connect().await;
        cancelers.spawn(async move {
            let mut jobs: Vec<u128> = (1001..=1000 + JOBS).collect();
            Rng::with_seed(n).shuffle(&mut jobs);
            // Half of them one by one, and half in batches.
            let size = if n % 2 == 0 { 1 } else { 25 };
            let jobs: Vec<_> = jobs.into_iter().map(|job| JobId(id(job))).collect();
            let mut outcomes = Vec::new();
            for batch in jobs.chunks(size) {
                let answer = store::jobs::cancel_batch(&mut conn, &cancels_all(1), batch, None, NOW).await;
                outcomes.extend(answer.expect("an answer"));
            }
            outcomes
        });
    }
    let (cancels, ended) = tokio::join!(cancelers.join_all(), workers.join_all());
    let ended: BTreeMap<JobId, JobStatus> = ended.into_iter().flatten().collect();
    let mut won = BTreeMap::new();
    for (job, outcome) in cancels.into_iter().flatten() {
        match outcome {
            CancelOutcome::Canceled(_) => {
                assert_eq!(won.insert(job, "canceled"), None, "two cancels of {job} went through");
                assert_eq!(ended.get(&job), None, "{job} was canceled in the queue and worked on");
            }
            CancelOutcome::Canceling(_) => {
                assert_eq!(won.insert(job, "canceling"), None, "two cancels of {job} went through");
                assert_eq!(ended.get(&job), Some(&JobStatus::Canceled), "{job} was to be canceled");
            }
            CancelOutcome::AlreadyFinished(_) | CancelOutcome::AlreadyCanceled(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for n in 1001..=1000 + JOBS {
        let job = JobId(id(n));
        let succeeded = ended.get(&job) == Some(&JobStatus::Succeeded);
        assert_eq!(won.contains_key(&job), !succeeded, "{job}");
    }
    assert!(ended.len() < JOBS as usize && !ended.is_empty(), "no race: {} of {JOBS} jobs were taken", ended.len());
}

// Codes ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_text_that_mentions_quota_has_no_code() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    let text = "terraform apply: insufficient quota in region eu-central-1";
    let failure = Failure { error: text, code: FailureCode::classify(text), ..Failure::default() };
    let end = store::jobs::fail(&mut rows.conn, &daemon(1, OWN), JobId(id(1)), NOW, failure).await.expect("a job");
    let ByWorker::Done(End::Ended(end)) = end else { panic!("{end:?}") };
    let job = end.job;
    assert_eq!((job.status, job.error.as_deref(), job.error_code), (JobStatus::Failed, Some(text), None));
}

#[tokio::test]
async fn fail_with_an_empty_error_has_none() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0), canceled_at = at_second(1)")
        .await;
    let (permit, job) = (daemon(1, OWN), JobId(id(1)));
    let end = store::jobs::fail(&mut rows.conn, &permit, job, NOW, Failure::default()).await.expect("a job");
    let ByWorker::Done(End::Ended(end)) = end else { panic!("{end:?}") };
    assert_eq!((end.job.status, &end.job.error, end.notice()), (JobStatus::Canceled, &None, None));
}

// What else happens when a build ends ----------------------------------------------------------------------------------

/// The state and whether there is a deadline, of build 1.
const LEFT: &str = "SELECT coalesce(encode(provisioner_state, 'escape'), 'none')
                           || CASE WHEN deadline > '0001-01-01 00:00:00+00' THEN ', stops' ELSE '' END
                    FROM workspace_builds WHERE id = u(1)";

#[tokio::test]
async fn a_build_keeps_what_its_daemon_leaves_and_a_prebuild_loses_its_deadline() {
    let mut rows = Rows::new().await;
    rows.run(
        "UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0);
         UPDATE workspace_builds SET provisioner_state = 'before', deadline = at_second(9), max_deadline = at_second(9)",
    )
    .await;
    for (prebuild, state, expected) in [
        (false, None, "before, stops"),
        (false, Some("after"), "after, stops"),
        (false, Some(""), ", stops"),
        (true, None, "before"),
        (true, Some("after"), "after"),
    ] {
        for fails in [false, true] {
            let mut transaction = rows.conn.begin().await.expect("a transaction");
            if prebuild {
                let sql = "UPDATE workspaces SET owner_id = prebuilds()";
                sqlx::raw_sql(sql).execute(&mut *transaction).await.expect("a prebuild");
            }
            let (permit, job, provisioner_state) = (daemon(1, OWN), JobId(id(1)), state.map(str::as_bytes));
            let end = if fails {
                let failure = Failure { error: "boom", provisioner_state, ..Failure::default() };
                store::jobs::fail(&mut transaction, &permit, job, NOW, failure).await
            } else {
                store::jobs::complete(&mut transaction, &permit, job, NOW, provisioner_state).await
            };
            assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
            let left: String = sqlx::query_scalar(LEFT).fetch_one(&mut *transaction).await.expect("the build");
            assert_eq!(left, expected);
            // A late state is kept, because nothing else knows what was built.
            let late = store::jobs::complete(&mut transaction, &permit, job, NOW, Some(b"late")).await;
            assert!(matches!(late, Ok(ByWorker::Done(End::AlreadyCompleted { state_kept: true }))), "{late:?}");
            let left: String = sqlx::query_scalar(LEFT).fetch_one(&mut *transaction).await.expect("the build");
            assert!(left.starts_with("late"), "{left}");
            transaction.rollback().await.expect("the rollback");
        }
    }
    let before = rows.everything().await;
    let end = store::jobs::complete(&mut rows.conn, &daemon(1, 8), JobId(id(1)), NOW, Some(b"foreign")).await;
    assert!(matches!(end, Ok(ByWorker::OtherOwner)), "{end:?}");
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn a_delete_that_succeeds_deletes_its_workspace() {
    let mut rows = Rows::new().await;
    for (transition, error, canceled, deleted) in [
        ("delete", "", false, true),
        ("delete", "boom", false, false),
        ("delete", "", true, false),
        ("stop", "", false, false),
        ("start", "", false, false),
    ] {
        let mut transaction = rows.conn.begin().await.expect("a transaction");
        let sql = format!(
            "UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0),
                 canceled_at = CASE WHEN {canceled} THEN at_second(1) END;
             UPDATE workspace_builds SET transition = '{transition}'"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.expect("the build");
        let failure = Failure { error, ..Failure::default() };
        let end = store::jobs::fail(&mut transaction, &daemon(1, OWN), JobId(id(1)), NOW, failure).await;
        assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
        let gone: bool =
            sqlx::query_scalar("SELECT deleted FROM workspaces").fetch_one(&mut *transaction).await.expect("one");
        assert_eq!(gone, deleted, "{transition} {error:?} {canceled}");
        transaction.rollback().await.expect("the rollback");
    }
}

#[tokio::test]
async fn a_failed_build_is_news_for_template_admins_or_for_the_owner() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(2); UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    let failure = Failure { error: "boom", ..Failure::default() };
    let owner = UserId(id(1));
    for reason in BuildReason::ALL {
        let mut transaction = rows.conn.begin().await.expect("a transaction");
        let sql = format!("UPDATE workspace_builds SET reason = '{reason}'");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.expect("the reason");
        let end = store::jobs::fail(&mut transaction, &daemon(1, OWN), JobId(id(1)), NOW, failure).await;
        let Ok(ByWorker::Done(End::Ended(end))) = end else { panic!("{end:?}") };
        let (build, workspace_id) = (WorkspaceBuildId(id(1)), WorkspaceId(id(1)));
        assert_eq!(
            end.build,
            Some(EndedBuild {
                id: build,
                workspace_id,
                owner_id: owner,
                reason: (*reason).into(),
                transition: Transition::Start.into()
            })
        );
        let expected = match reason {
            BuildReason::Initiator => FailureNotice::ToTemplateAdmins,
            _ => FailureNotice::ToOwner(owner),
        };
        assert_eq!(end.notice(), Some(expected));
        transaction.rollback().await.expect("the rollback");
    }
    let end = store::jobs::fail(&mut rows.conn, &daemon(1, OWN), JobId(id(2)), NOW, failure).await;
    let Ok(ByWorker::Done(End::Ended(end))) = end else { panic!("{end:?}") };
    assert_eq!((&end.build, end.notice()), (&None, None), "no build, no news");
    let end = store::jobs::complete(&mut rows.conn, &daemon(1, OWN), JobId(id(1)), NOW, None).await;
    let Ok(ByWorker::Done(End::Ended(end))) = end else { panic!("{end:?}") };
    assert_eq!((end.build.is_some(), end.notice()), (true, None), "a success is no news");
}

#[test]
fn each_code_has_a_predicate_and_unknown_codes_have_none() {
    let answers = |code: &str| {
        let code = JobErrorCode::from(code.to_owned());
        [code.is_missing_template_parameter(), code.is_required_template_variables(), code.is_insufficient_quota()]
    };
    assert_eq!(answers("MISSING_TEMPLATE_PARAMETER"), [true, false, false]);
    assert_eq!(answers("REQUIRED_TEMPLATE_VARIABLES"), [false, true, false]);
    assert_eq!(answers("INSUFFICIENT_QUOTA"), [false, false, true]);
    assert_eq!(answers("insufficient_quota"), [false; 3]);
    assert_eq!(answers("SOMETHING_NEWER"), [false; 3]);
}

#[test]
fn the_classifier_knows_the_two_older_codes_and_their_case() {
    let cases = [
        ("missing parameter: region", Some(FailureCode::MissingTemplateParameter)),
        ("x: required template variables are missing: a", Some(FailureCode::RequiredTemplateVariables)),
        ("Missing parameter", None),
        ("required template variable", None),
        ("insufficient quota", None),
        ("INSUFFICIENT_QUOTA", None),
        ("", None),
    ];
    for (text, code) in cases {
        assert_eq!(FailureCode::classify(text), code, "{text}");
    }
}

// Reaper ---------------------------------------------------------------------------------------------------------------

/// Job 1 is a build that was taken by daemon 7 and reported last at `NOW`.
async fn taken() -> Rows {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    rows
}

const RULE: &str = "================================================================================";

async fn lines(rows: &mut Rows, job: u128) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws('|', extract(milliseconds FROM created_at - '2026-05-07 12:00+00')::bigint, source, level, stage,
         output) FROM provisioner_job_logs WHERE job_id = u({job}) ORDER BY id"
    );
    rows.all(&sql).await
}

#[tokio::test]
async fn the_reaper_finds_jobs_that_are_strictly_silent_for_too_long_at_random() {
    let mut rows = Rows::new().await;
    let now = NOW + Duration::minutes(30);
    rows.run(
        "DELETE FROM provisioner_jobs;
         SELECT add_organization(2); SELECT add_job(n) FROM generate_series(10, 17) AS n;
         UPDATE provisioner_jobs SET updated_at = at_second(-0.001), organization_id = u(2) WHERE id = u(11);
         UPDATE provisioner_jobs SET updated_at = at_second(-1), completed_at = at_second(1) WHERE id = u(12);
         UPDATE provisioner_jobs SET updated_at = at_second(1500), started_at = at_second(0) WHERE id = u(13);
         UPDATE provisioner_jobs SET updated_at = at_second(1499.999), started_at = at_second(0) WHERE id = u(14);
         UPDATE provisioner_jobs SET updated_at = at_second(0), started_at = at_second(0), completed_at = at_second(9)
             WHERE id = u(15);
         UPDATE provisioner_jobs SET updated_at = at_second(-9), canceled_at = at_second(0) WHERE id = u(16);
         UPDATE provisioner_jobs SET updated_at = at_second(0), started_at = at_second(0), error = 'x' WHERE id = u(17)",
    )
    .await;
    let mut found: Vec<_> = store::jobs::reap_candidates(&mut rows.conn, &reaper(), now, 100)
        .await
        .expect("candidates")
        .into_iter()
        .map(|job| (job.id.0, job.organization_id.0, job.stuck))
        .collect();
    found.sort_by_key(|(job, ..)| *job);
    let expected = [
        (id(11), id(2), Stuck::Pending),
        (id(14), id(1), Stuck::Hung),
        (id(16), id(1), Stuck::Pending),
        (id(17), id(1), Stuck::Hung),
    ];
    assert_eq!(found, expected);
    // With room for one, each of the four has its turn.
    let mut turns = BTreeMap::new();
    for _ in 0..200 {
        let one = store::jobs::reap_candidates(&mut rows.conn, &reaper(), now, 1).await.expect("a candidate");
        assert_eq!(one.len(), 1);
        *turns.entry(one[0].id).or_insert(0) += 1;
    }
    assert_eq!(turns.len(), 4, "{turns:?}");
}

#[tokio::test]
async fn a_hung_build_is_reaped_with_five_lines_its_error_and_the_state_of_the_build_before() {
    let mut rows = taken().await;
    rows.run(
        "SELECT add_build(2, 1, 2), add_build(3, 1, 4);
         UPDATE workspace_builds SET provisioner_state = 'one' WHERE id = u(1);
         UPDATE workspace_builds SET provisioner_state = 'two' WHERE id = u(2);
         UPDATE workspace_builds SET provisioner_state = '' WHERE id = u(3);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(-9), error_code = 'MISSING_TEMPLATE_PARAMETER'
             WHERE id = u(3);
         INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         VALUES (u(3), at_second(-2), 'provisioner', 'info', 'Setting up', 'first'),
                (u(3), at_second(-3), 'provisioner', 'info', 'Planning Infrastructure', 'last'),
                (u(2), at_second(-3), 'provisioner', 'info', 'Other job', 'later')",
    )
    .await;
    let last = rows.one("SELECT max(id) FROM provisioner_job_logs").await;
    let others = "SELECT to_jsonb(j) FROM provisioner_jobs AS j WHERE id <> u(3)";
    let before = rows.all(others).await;
    let now = NOW + Duration::minutes(5) + Duration::milliseconds(1);
    let outcome = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(3)), now).await.expect("an answer");
    let logs_after = last.parse().expect("an id");
    assert_eq!(outcome, ReapOutcome::Reaped { stuck: Stuck::Hung, logs_after });
    let text = "Coder: Build has been detected as hung for 5 minutes and will be terminated.";
    let at = |ms| format!("{ms}|provisioner_daemon|error|Planning Infrastructure|");
    let seconds = |n: i64| at(n % 60_000);
    let expected =
        [seconds(300_001), seconds(300_002) + RULE, seconds(300_003) + text, seconds(300_004) + RULE, seconds(300_005)];
    assert_eq!(lines(&mut rows, 3).await[2..], expected);
    let job = "SELECT concat_ws('|', job_status, error, error_code IS NULL, started_at = at_second(-9),
               completed_at = at_second(300.001), updated_at = at_second(300.001)) FROM provisioner_jobs WHERE id = u(3)";
    let error = "Coder: Build has been detected as hung for 5 minutes and has been terminated by the reaper.";
    assert_eq!(rows.one(job).await, format!("failed|{error}|t|t|t|t"));
    let states = "SELECT convert_from(provisioner_state, 'UTF8') FROM workspace_builds ORDER BY id";
    assert_eq!(rows.all(states).await, ["one", "two", "two"]);
    assert_eq!(rows.all(others).await, before);
    let again = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(3)), now + Duration::days(1)).await;
    assert_eq!(again.expect("an answer"), ReapOutcome::AlreadyCompleted);
    assert_eq!(lines(&mut rows, 3).await.len(), 7);
}

#[tokio::test]
async fn a_pending_job_is_reaped_as_started_now_in_an_unknown_stage() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE workspace_builds SET provisioner_state = 'own'").await;
    let now = NOW + Duration::minutes(30);
    let outcome = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(1)), now).await.expect("an answer");
    assert_eq!(outcome, ReapOutcome::Alive, "exactly thirty minutes are not too long");
    assert!(lines(&mut rows, 1).await.is_empty());
    let now = now + Duration::SECOND;
    let outcome = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(1)), now).await.expect("an answer");
    assert!(matches!(outcome, ReapOutcome::Reaped { stuck: Stuck::Pending, .. }), "{outcome:?}");
    let stored = lines(&mut rows, 1).await;
    assert_eq!(stored.len(), 5);
    let text = "Coder: Build has been detected as pending for 30 minutes and will be terminated.";
    assert_eq!(stored[2], format!("1002|provisioner_daemon|error|Unknown|{text}"));
    let job = "SELECT concat_ws('|', job_status, started_at = at_second(1801), completed_at = at_second(1801), error)
               FROM provisioner_jobs WHERE id = u(1)";
    let error = "Coder: Build has been detected as pending for 30 minutes and has been terminated by the reaper.";
    assert_eq!(rows.one(job).await, format!("failed|t|t|{error}"));
    assert_eq!(rows.one("SELECT convert_from(provisioner_state, 'UTF8') FROM workspace_builds").await, "own");
}

#[tokio::test]
async fn a_job_that_somebody_holds_or_that_is_gone_or_that_reports_again_is_left_alone() {
    let mut rows = taken().await;
    let mut other = rows.database.connect().await;
    let later = NOW + Duration::minutes(10);
    let job = JobId(id(1));
    let before = rows.everything().await;
    let mut transaction = other.begin().await.expect("a transaction");
    let beat = store::jobs::heartbeat(&mut transaction, &daemon(1, OWN), job, later).await.expect("the job");
    assert_eq!(beat, ByWorker::Done(Heartbeat { cancel_requested: false }));
    let reap = store::jobs::reap(&mut rows.conn, &reaper(), job, later).await.expect("an answer");
    assert_eq!(reap, ReapOutcome::Unavailable);
    assert_eq!(rows.everything().await, before);
    transaction.commit().await.expect("the commit");
    let before = rows.everything().await;
    let reap = store::jobs::reap(&mut rows.conn, &reaper(), job, later).await.expect("an answer");
    assert_eq!(reap, ReapOutcome::Alive);
    let reap = store::jobs::reap(&mut rows.conn, &reaper(), JobId(id(404)), later).await.expect("an answer");
    assert_eq!(reap, ReapOutcome::Unavailable);
    assert_eq!(rows.everything().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_reapers_on_one_job_reap_it_once() {
    let mut rows = Rows::new().await;
    rows.run("DELETE FROM provisioner_jobs; SELECT add_job(n) FROM generate_series(1001, 1100) AS n").await;
    let later = NOW + Duration::hours(1);
    let mut reapers = JoinSet::new();
    for _ in 0..4 {
        let mut conn = rows.database.connect().await;
        reapers.spawn(async move {
            let mut outcomes = Vec::new();
            for n in 1001..=1100 {
                outcomes.push(store::jobs::reap(&mut conn, &reaper(), JobId(id(n)), later).await.expect("an answer"));
            }
            outcomes
        });
    }
    let outcomes: Vec<ReapOutcome> = reapers.join_all().await.into_iter().flatten().collect();
    let reaped = outcomes.iter().filter(|outcome| matches!(outcome, ReapOutcome::Reaped { .. })).count();
    assert_eq!(reaped, 100);
    let others = [ReapOutcome::Unavailable, ReapOutcome::AlreadyCompleted];
    assert_eq!(outcomes.iter().filter(|outcome| others.contains(outcome)).count(), 300);
    let lines = "SELECT DISTINCT count(*) FROM provisioner_job_logs GROUP BY job_id";
    assert_eq!(rows.one(lines).await, "5");
    assert_eq!(rows.one("SELECT count(*) FROM provisioner_jobs WHERE job_status = 'failed'").await, "100");
}
