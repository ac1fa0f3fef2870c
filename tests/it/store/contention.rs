//! Every operation that writes, all at once, on few rows: whatever else happens, nobody is told of a deadlock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coderdb::{
    authz::{
        ActAsAgent, ActAsDaemon, Actor, BuildWorkspaces, CancelJobs, InsertJobs, MaintainDaemons, MaintainPrebuilds,
        ProvisionerStates, ReapJobs, RunJobs, System, UseChats,
    },
    model::{
        AgentLogLine, BuildReason, Capabilities, ChatBinding, ChatId, DaemonId, Failure, GroupId, JobId, JobTarget,
        JobTiming, LogLevel, LogSource, NewBuild, NewDaemon, NewJob, NewJobLog, OrganizationId, PrebuildStatus,
        PresetId, ProvisionerKeyId, ProvisionerType, Tags, TemplateVersionId, TimingStage, Transition,
        WorkspaceAgentId, WorkspaceBuildId, WorkspaceId,
    },
    store::{self, Error},
};
use serde_json::Map;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);
const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const WORKSPACES: u32 = 3;
const DAEMONS: u32 = 2;

fn u(n: u32) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

async fn sql(conn: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(conn).await.unwrap();
}

async fn world() -> (Database, Actor) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("../golden/rows.sql")).await;
    sql(
        &mut conn,
        "SELECT add_version(2, 1); UPDATE templates SET active_version_id = u(2);
         SELECT add_workspace(n, prebuilds()), add_build(n, n, 1, prebuilds(), u(1)) FROM generate_series(11, 13) AS n;
         INSERT INTO groups (id, name, organization_id, quota_allowance) VALUES (u(1), 'Everyone', u(1), 50);
         SELECT add_member(1, 1);
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO chat_providers (provider) VALUES ('openai');
         INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold)
         VALUES (u(1), 'openai', 'model', 200000, 80);
         INSERT INTO chats (id, owner_id, last_model_config_id, organization_id)
         SELECT u(n), u(1), u(1), u(1) FROM generate_series(1, 2) AS n",
    )
    .await;
    let owner = support::site_owner(&mut conn).await;
    (database, owner)
}

struct Seen {
    errors: Mutex<BTreeMap<String, u64>>,
    done: AtomicU64,
}

impl Seen {
    fn note<T>(&self, operation: &str, result: Result<T, Error>) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let kind = match &error {
                Error::NotFound { .. } => return,
                _ => format!("{operation}: {error} {source}"),
            };
            *self.errors.lock().unwrap().entry(kind).or_default() += 1;
        }
    }
}

fn tags() -> Tags {
    [("scope", "organization")].into_iter().collect()
}

async fn any_job(conn: &mut PgConnection, filter: &str) -> JobId {
    let text = format!("SELECT id FROM provisioner_jobs WHERE {filter} ORDER BY random() LIMIT 1");
    let found: Option<Uuid> = sqlx::query_scalar(AssertSqlSafe(text)).fetch_optional(conn).await.unwrap();
    JobId(found.unwrap_or_default())
}

async fn any(conn: &mut PgConnection, table: &str) -> Uuid {
    let text = format!("SELECT id FROM {table} ORDER BY random() LIMIT 1");
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(conn).await.unwrap()
}

#[expect(clippy::too_many_lines, reason = "one arm per operation")]
async fn step(conn: &mut PgConnection, owner: &Actor, rng: &mut fastrand::Rng, seen: &Seen) {
    let at = NOW + time::Duration::seconds(rng.i64(0..3_000));
    let daemon = DaemonId(u(rng.u32(1..=DAEMONS)));
    let runs = RunJobs::check(&Actor::system(System::ProvisionerDaemon), ORGANIZATION, daemon).unwrap();
    let running = "worker_id IS NOT NULL AND completed_at IS NULL";
    let maintains = MaintainPrebuilds::check(&Actor::system(System::PrebuildReconciler), ORGANIZATION).unwrap();
    let chats = UseChats::check(&Actor::system(System::ChatDaemon)).unwrap();
    let builds = BuildWorkspaces::check(owner, ORGANIZATION).unwrap();
    match rng.u32(0..22) {
        0 | 1 => {
            let able = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags() };
            seen.note("acquire", store::jobs::acquire_batch(conn, &runs, able, at, rng.u32(1..4)).await);
        }
        2 => {
            let job = any_job(conn, running).await;
            seen.note("complete", store::jobs::complete(conn, &runs, job, at, Some(b"state")).await);
        }
        3 => {
            let job = any_job(conn, running).await;
            seen.note(
                "fail",
                store::jobs::fail(conn, &runs, job, at, Failure { error: "no", ..Failure::default() }).await,
            );
        }
        4 => {
            let permit = CancelJobs::check(owner, ORGANIZATION).unwrap();
            // In any order, and some twice.
            let mut jobs = Vec::new();
            for _ in 0..rng.u32(1..5) {
                jobs.push(any_job(conn, "completed_at IS NULL").await);
            }
            seen.note("cancel", store::jobs::cancel_batch(conn, &permit, &jobs, None, at).await);
        }
        5 => {
            let job = any_job(conn, "completed_at IS NULL").await;
            let permit = ReapJobs::check(&Actor::system(System::Reaper)).unwrap();
            seen.note("reap", store::jobs::reap(conn, &permit, job, NOW + time::Duration::seconds(3_300)).await);
        }
        6 => {
            let job = any_job(conn, running).await;
            let line = NewJobLog {
                created_at: at,
                source: LogSource::Provisioner,
                level: LogLevel::Info,
                stage: "Planning".to_owned(),
                output: "line".repeat(rng.usize(0..300)),
            };
            seen.note("append", store::job_logs::append(conn, &runs, job, &vec![line; rng.usize(0..200)]).await);
        }
        7 | 8 => {
            let job = any_job(conn, running).await;
            seen.note("commit", store::quota::commit(conn, &runs, job, rng.i64(0..30)).await);
        }
        9..12 => {
            let workspace = if rng.bool() { WorkspaceId(any(conn, "workspaces").await) } else { WorkspaceId(u(1)) };
            let new = NewBuild {
                id: WorkspaceBuildId(Uuid::from_u128(rng.u128(..))),
                job_id: JobId(Uuid::from_u128(rng.u128(..))),
                workspace_id: workspace,
                template_version_id: TemplateVersionId(u(1)),
                preset_id: rng.bool().then(|| PresetId(u(1))),
                transition: Transition::Start,
                reason: BuildReason::Cli,
                provisioner_state: None,
                deadline: None,
                max_deadline: None,
                tags: tags(),
                options: Map::new(),
                trace_metadata: None,
            };
            seen.note("create build", store::builds::create(conn, &builds, &new, at).await);
        }
        12 | 13 => {
            let ids: Vec<_> = (0..WORKSPACES)
                .map(|_| (WorkspaceBuildId(Uuid::from_u128(rng.u128(..))), JobId(Uuid::from_u128(rng.u128(..)))))
                .collect();
            let stale = store::jobs::STALE_INTERVAL;
            let done = store::prebuilds::cancel_stale_pending(conn, &maintains, PresetId(u(1)), &ids, at, stale).await;
            // Whoever builds one of the workspaces in this moment is waited for, and then wins.
            let done = match done {
                Err(Error::Conflict { constraint: "workspace_builds_workspace_id_build_number_key" }) => Ok(Vec::new()),
                done => done,
            };
            seen.note("cancel stale", done);
            // There are always some.
            let n = rng.u32(100_000..99_999_999);
            sql(conn, format!("SELECT add_workspace({n}, prebuilds()), add_build({n}, {n}, 1, prebuilds(), u(1))"))
                .await;
        }
        14 => {
            let chat = ChatId(u(rng.u32(1..=2)));
            let binding = ChatBinding {
                workspace_id: Some(WorkspaceId(any(conn, "workspaces").await)),
                build_id: Some(WorkspaceBuildId(any(conn, "workspace_builds").await)),
                agent_id: Some(WorkspaceAgentId(u(1))),
            };
            seen.note("bind", store::chats::bind(conn, &chats, chat, binding).await);
        }
        15 => {
            let permit = ActAsDaemon::check(&Actor::system(System::ProvisionerDaemon), daemon, ORGANIZATION).unwrap();
            let new = NewDaemon {
                created_at: NOW,
                name: format!("daemon-{daemon}"),
                provisioners: ProvisionerType::ALL.to_vec(),
                replica_id: None,
                tags: tags(),
                last_seen_at: Some(at),
                version: String::new(),
                api_version: String::new(),
                key_id: ProvisionerKeyId(u(1)),
            };
            seen.note("upsert", store::daemons::upsert(conn, &permit, &new).await);
            seen.note("heartbeat", store::daemons::heartbeat(conn, &permit, at).await);
        }
        16 => {
            let permit = MaintainDaemons::check(&Actor::system(System::Reaper)).unwrap();
            let later = at + time::Duration::days(7) - time::Duration::seconds(rng.i64(0..3_000));
            seen.note("delete old", store::daemons::delete_old(conn, &permit, later).await);
        }
        17 => {
            let group = GroupId(Uuid::from_u128(rng.u128(..)));
            seen.note("ensure", store::prebuilds::ensure_organization(conn, &maintains, group, at).await);
            if rng.u32(0..4) == 0 {
                sql(conn, "DELETE FROM organization_members WHERE user_id = prebuilds()").await;
            }
        }
        18 => {
            let permit = ActAsAgent::check(&Actor::system(System::WorkspaceAgent), WorkspaceAgentId(u(1))).unwrap();
            let line = AgentLogLine { level: LogLevel::Info, output: "x".repeat(rng.usize(0..200)) };
            seen.note("agent logs", store::agents::append_logs(conn, &permit, &[line], None, at).await);
        }
        19 => {
            let id = WorkspaceBuildId(any(conn, "workspace_builds").await);
            seen.note("deadline", store::builds::update_deadline(conn, &builds, id, Some(at), None, at).await);
            let permit = ProvisionerStates::check(owner, ORGANIZATION).unwrap();
            seen.note("state", store::builds::update_state(conn, &permit, id, b"other", at).await);
        }
        20 => {
            let job = any_job(conn, running).await;
            seen.note("heartbeat", store::jobs::heartbeat(conn, &runs, job, at).await);
            let timing = JobTiming {
                started_at: at,
                ended_at: at,
                stage: TimingStage::Plan,
                source: String::new(),
                action: String::new(),
                resource: String::new(),
            };
            seen.note("timings", store::job_timings::insert(conn, &runs, job, &[timing]).await);
        }
        _ => {
            let status = if rng.bool() { PrebuildStatus::Healthy } else { PrebuildStatus::HardLimited };
            seen.note("set status", store::prebuilds::set_status(conn, &maintains, PresetId(u(1)), status).await);
            let target = JobTarget::DryRun(TemplateVersionId(u(1)));
            let permit = InsertJobs::check(owner, ORGANIZATION, target).unwrap();
            let job = NewJob {
                id: JobId(Uuid::from_u128(rng.u128(..))),
                created_at: at,
                options: Map::new(),
                tags: tags(),
                trace_metadata: None,
            };
            seen.note("insert", store::jobs::insert(conn, &permit, job).await);
        }
    }
}

/// `CODERDB_TEST_SECONDS` makes it longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_writers_at_once_are_never_told_of_a_deadlock_and_break_no_invariant() {
    let (database, owner) = world().await;
    let seconds = std::env::var("CODERDB_TEST_SECONDS").map_or(5, |text| text.parse().expect("a number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let seen = Arc::new(Seen { errors: Mutex::default(), done: AtomicU64::new(0) });
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..12 {
        let mut conn = database.connect().await;
        sql(&mut conn, "SET statement_timeout = '20s'").await;
        let (owner, seen) = (owner.clone(), seen.clone());
        let mut rng = fastrand::Rng::with_seed(seed);
        tasks.spawn(async move {
            while Instant::now() < end {
                step(&mut conn, &owner, &mut rng, &seen).await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let errors = std::mem::take(&mut *seen.errors.lock().unwrap());
    println!("{} operations", seen.done.load(Ordering::Relaxed));
    assert_eq!(errors, BTreeMap::new());
    let mut conn = database.connect().await;
    for (what, broken) in [
        (
            "numbers have no gap",
            "SELECT count(*) FROM (SELECT max(build_number) - count(*) AS gap FROM workspace_builds GROUP BY workspace_id) AS g
             WHERE gap <> 0",
        ),
        (
            "the counter of a job's log is what is in it, but for the reaper's five lines",
            "SELECT count(*) FROM provisioner_jobs AS j
             WHERE NOT logs_overflowed AND error IS DISTINCT FROM NULL AND error NOT LIKE 'Coder: %' AND logs_length
                 < (SELECT coalesce(sum(octet_length(output)), 0) FROM provisioner_job_logs AS l WHERE l.job_id = j.id)",
        ),
        (
            "a deleted workspace has a delete build, which is done",
            "SELECT count(*) FROM workspaces AS w WHERE deleted AND NOT EXISTS (
                 SELECT 1 FROM workspace_builds AS b JOIN provisioner_jobs AS j ON j.id = b.job_id
                 WHERE b.workspace_id = w.id AND b.transition = 'delete' AND j.completed_at IS NOT NULL)",
        ),
        (
            "a job that has a worker was started",
            "SELECT count(*) FROM provisioner_jobs WHERE worker_id IS NOT NULL AND started_at IS NULL",
        ),
        (
            "a build has a job and a job of a build has it",
            "SELECT count(*) FROM provisioner_jobs AS j WHERE type = 'workspace_build'
                 AND NOT EXISTS (SELECT 1 FROM workspace_builds AS b WHERE b.job_id = j.id)",
        ),
    ] {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(broken.to_owned())).fetch_one(&mut conn).await.unwrap();
        assert_eq!(count, 0, "not true: {what}");
    }
    conn.close().await.unwrap();
}

fn new_build(n: u32, workspace: u32) -> NewBuild {
    NewBuild {
        id: WorkspaceBuildId(u(n)),
        job_id: JobId(u(n)),
        workspace_id: WorkspaceId(u(workspace)),
        template_version_id: TemplateVersionId(u(1)),
        preset_id: None,
        transition: Transition::Stop,
        reason: BuildReason::Cli,
        provisioner_state: None,
        deadline: None,
        max_deadline: None,
        tags: tags(),
        options: Map::new(),
        trace_metadata: None,
    }
}

#[tokio::test]
async fn a_stale_prebuild_that_somebody_builds_in_this_moment_is_passed_over_and_not_a_deadlock() {
    let (database, owner) = world().await;
    let (mut gate, mut watcher) = (database.connect().await, database.connect().await);
    // Holds a build between its insertion and the checks of its foreign keys.
    sql(
        &mut gate,
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
         CREATE TRIGGER \"A\" AFTER INSERT ON workspace_builds
             FOR EACH ROW WHEN (new.transition = 'stop') EXECUTE FUNCTION hold()",
    )
    .await;
    let mut held = gate.begin().await.unwrap();
    sql(&mut held, "SELECT pg_advisory_xact_lock(1)").await;
    let (mut building, mut canceling) = (database.connect().await, database.connect().await);
    let build = tokio::spawn(async move {
        let permit = BuildWorkspaces::check(&owner, ORGANIZATION).unwrap();
        store::builds::create(&mut building, &permit, &new_build(100, 11), NOW).await
    });
    support::settled(&build, &mut watcher, 1).await;
    let cancel = tokio::spawn(async move {
        let permit = MaintainPrebuilds::check(&Actor::system(System::PrebuildReconciler), ORGANIZATION).unwrap();
        let ids: Vec<_> = (200..210).map(|n| (WorkspaceBuildId(u(n)), JobId(u(n)))).collect();
        let stale = store::jobs::STALE_INTERVAL;
        store::prebuilds::cancel_stale_pending(&mut canceling, &permit, PresetId(u(1)), &ids, NOW, stale).await
    });
    support::settled(&cancel, &mut watcher, 2).await;
    held.commit().await.unwrap();
    assert_eq!(build.await.unwrap().unwrap(), 2);
    assert_eq!(cancel.await.unwrap().unwrap().len(), 2, "all but the one that is built");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_commits_of_one_owner_at_once_all_have_an_answer() {
    const COMMITS: u32 = 40;
    let (database, _) = world().await;
    let mut conn = database.connect().await;
    sql(
        &mut conn,
        format!(
            "SELECT add_workspace(n), add_build(n, n, 1) FROM generate_series(1001, {}) AS n;
             UPDATE provisioner_jobs SET worker_id = u(1), started_at = created_at",
            1000 + COMMITS
        ),
    )
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=COMMITS {
        let mut conn = database.connect().await;
        tasks.spawn(async move {
            let daemon = DaemonId(u(1));
            let permit = RunJobs::check(&Actor::system(System::ProvisionerDaemon), ORGANIZATION, daemon).unwrap();
            for _ in 0..5 {
                let _ = store::quota::commit(&mut conn, &permit, JobId(u(1000 + n)), 2).await.unwrap();
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let sum: i64 =
        sqlx::query_scalar("SELECT sum(daily_cost) FROM workspace_builds").fetch_one(&mut conn).await.unwrap();
    assert_eq!(sum, 50, "the budget is spent, and not more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_daemon_that_connects_twice_in_one_moment_is_one_daemon() {
    let (database, _) = world().await;
    let mut conns = [database.connect().await, database.connect().await];
    for n in 1_000..1_500 {
        let [one, two] = &mut conns;
        let connect = async |conn: &mut PgConnection| {
            let actor = Actor::system(System::ProvisionerDaemon);
            let permit = ActAsDaemon::check(&actor, DaemonId(u(n)), ORGANIZATION).unwrap();
            let new = NewDaemon {
                created_at: NOW,
                name: format!("daemon-{n}"),
                provisioners: vec![ProvisionerType::Echo],
                replica_id: None,
                tags: tags(),
                last_seen_at: Some(NOW),
                version: String::new(),
                api_version: String::new(),
                key_id: ProvisionerKeyId(u(1)),
            };
            store::daemons::upsert(conn, &permit, &new).await.unwrap().id
        };
        assert_eq!(tokio::join!(connect(one), connect(two)), (DaemonId(u(n)), DaemonId(u(n))));
    }
}
