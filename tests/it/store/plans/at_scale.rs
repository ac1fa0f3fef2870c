//! The hot statements in a database of 100,000 jobs, 5,000 of which wait: what they read, in both kinds of plan.

use std::{fmt::Write as _, time::Duration};

use coderdb::{
    authz::{
        Actor, BuildWorkspaces, CancelJobs, InsertJobs, ListQuota, ReadDaemons, ReadJobLogs, ReadQueue, RunJobs, System,
    },
    demo::{self, Regime, Scale},
    model::{
        BuildReason, Capabilities, Cursor, DaemonFilter, DaemonId, JobFilter, JobId, JobStatus, JobTarget, LogLevel,
        LogSource, NewBuild, NewJob, NewJobLog, OrganizationId, PageRequest, ProvisionerType, ShareBy, Tags,
        TemplateId, TemplateVersionId, Transition, UserId, WorkspaceBuildId, WorkspaceId,
    },
    sqlx::{self, AssertSqlSafe, Connection, FromRow, PgConnection},
    store,
};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::support::{self, Database};

const SCALE: Scale = Scale { jobs: 100_000, regime: Regime::Storm };

/// The tables whose size is that of the history.
const GROWING: [&str; 6] = [
    "provisioner_jobs",
    "provisioner_job_logs",
    "provisioner_job_timings",
    "template_versions",
    "workspace_builds",
    "workspaces",
];

/// A page, and the row that says whether there is another one.
const PAGE: u32 = 50;

const SORTED: f64 = PAGE as f64 + 1.0;

/// What one node may read of such a table.
const READ: f64 = 1_000.0;

/// What a call may read, and how much more for each row of its answer, in blocks of 8 kB.
const BLOCKS: f64 = 150.0;

const BLOCKS_PER_ROW: f64 = 40.0;

/// From an estimated cost of 100,000 on the server compiles a statement, which takes longer than to run any of these. A
/// tenth of it: costs grow with the history at most, and a million jobs are ten times as many as here.
const JIT: f64 = 10_000.0;

/// The calls, and what stays, with the reason.
const CALLS: &[(&str, &[&str])] = &[
    ("list", &[]),
    // The newest jobs of the organization are looked at one after the other, until enough pass.
    ("list, failed", &["rows read of provisioner_jobs"]),
    ("list, busy initiator", &[]),
    ("list, prebuilds", &[]),
    // All that waits, by its status, however old it is.
    ("list, pending", &["rows read of provisioner_jobs"]),
    ("list, pending prebuilds", &["rows read of provisioner_jobs"]),
    ("list, tags", &[]),
    // No index holds tags of the whole history: its price would be paid by every job, for a rare question.
    ("list, tags of no job", &["rows read of provisioner_jobs", "blocks for 0 rows"]),
    ("list, one id", &[]),
    ("list, fifty ids", &[]),
    // The newest jobs are looked at one after the other, with their builds.
    ("list, template", &["blocks for 51 rows"]),
    ("list, workspace", &[]),
    ("list, deletes", &["rows read of", "blocks for 51 rows"]),
    ("list, failed of a template", &["rows read of provisioner_jobs", "blocks for 51 rows"]),
    ("list, failed of a busy initiator", &[]),
    ("page, middle", &[]),
    ("page, last", &[]),
    ("get", &[]),
    // Guesses about the parts of the daemons' tags make up the cost; they do not grow with the history.
    ("by ids, one", &["a cost of 12"]),
    // A row per job and tag set that can serve it.
    ("by ids, fifty", &["Sort of", "a cost of 12"]),
    ("by ids without the queue", &[]),
    ("acquire", &[]),
    ("acquire, tags of no job", &[]),
    ("insert", &[]),
    ("create build", &[]),
    ("heartbeat", &[]),
    ("complete", &[]),
    ("cancel", &[]),
    // Fifty lines.
    ("append logs", &["blocks for 1 rows"]),
    ("logs after", &[]),
    ("quota", &[]),
    // The newest build of each workspace of the owner; 3,150 workspaces belong to the prebuilds user.
    ("quota, heavy owner", &["blocks for 1 rows"]),
    ("quota, prebuilds", &["blocks for 1 rows", "rows read of workspace", "Seq Scan on workspaces"]),
    ("commit quota", &[]),
    ("quota list", &[]),
    ("daemons", &[]),
    // All that waits, and what daemons work on.
    ("snapshot of the queue", &["rows read of provisioner_jobs"]),
    // The newest thousands of jobs with their builds, and what waits.
    ("history of the queue", &["rows read of", "Sort of", "a cost of"]),
    ("shares of the queue", &["rows read of", "Sort of", "blocks for", "a cost of"]),
];

/// Ids out of the data.
#[derive(FromRow)]
struct World {
    organization: Uuid,
    busy: Uuid,
    heavy: Uuid,
    template: Uuid,
    version: Uuid,
    workspace: Uuid,
    pending: Vec<Uuid>,
    running: Uuid,
    daemon: Uuid,
    created_at: time::OffsetDateTime,
    middle: Uuid,
}

const WORLD: &str = "
    WITH organization AS (SELECT id FROM organizations WHERE name = 'engineering'),
    jobs AS (SELECT j.* FROM provisioner_jobs AS j INNER JOIN organization AS o ON o.id = j.organization_id)
    SELECT
        organization.id AS organization,
        (SELECT id FROM users WHERE username = 'dev-0002') AS busy,
        (SELECT id FROM users WHERE username = 'dev-0001') AS heavy,
        template.id AS template,
        template.active_version_id AS version,
        (SELECT w.id FROM workspaces AS w WHERE w.template_id = template.id AND NOT w.deleted ORDER BY w.name LIMIT 1)
            AS workspace,
        (SELECT array_agg(id) FROM (SELECT id FROM jobs WHERE job_status = 'pending' ORDER BY md5(id::text) LIMIT 50) AS p)
            AS pending,
        running.id AS running,
        running.worker_id AS daemon,
        middle.created_at,
        middle.id AS middle
    FROM organization
    CROSS JOIN LATERAL (SELECT * FROM templates AS t WHERE t.organization_id = organization.id ORDER BY t.name LIMIT 1) AS template
    CROSS JOIN LATERAL (
        SELECT j.id, j.worker_id FROM jobs AS j INNER JOIN workspace_builds AS b ON b.job_id = j.id
        WHERE j.job_status = 'running' ORDER BY j.id LIMIT 1
    ) AS running
    CROSS JOIN LATERAL (SELECT created_at, id FROM jobs ORDER BY created_at DESC, id DESC OFFSET 30000 LIMIT 1) AS middle";

/// Made once per run, when the first test needs it.
async fn database() -> &'static (Database, World) {
    static DATABASE: OnceCell<(Database, World)> = OnceCell::const_new();
    let make = async || {
        // It reads what the session prepared, and how.
        let database = support::database().await.directly().kept();
        let mut conn = database.connect().await;
        let options = demo::DemoOptions { scale: Some(SCALE), ..demo::DemoOptions::default() };
        let _ = demo::load(&mut conn, &options, |_| {}).await.expect("the demo");
        let world = sqlx::query_as(WORLD).fetch_one(&mut conn).await.expect("the ids");
        (database, world)
    };
    DATABASE.get_or_init(make).await
}

fn filter(name: &str, world: &World) -> JobFilter {
    let mut filter = JobFilter::default();
    if name.contains("failed") {
        filter.status = vec![JobStatus::Failed];
    }
    if name.contains("pending") {
        filter.status = vec![JobStatus::Pending];
    }
    if name.contains("prebuilds") {
        filter.initiator = Some(UserId::PREBUILDS);
    }
    if name.contains("busy") {
        filter.initiator = Some(UserId(world.busy));
    }
    match name {
        "list, tags" => filter.tags = Some(tags(&[("env", "on-prem")])),
        "list, tags of no job" => filter.tags = Some(tags(&[("env", "nowhere")])),
        "list, one id" => filter.ids = vec![JobId(world.pending[0])],
        "list, fifty ids" => filter.ids = world.pending.iter().copied().map(JobId).collect(),
        "list, template" | "list, failed of a template" => filter.template = Some(TemplateId(world.template)),
        "list, workspace" => filter.workspace = Some(WorkspaceId(world.workspace)),
        "list, deletes" => filter.transition = Some(Transition::Delete),
        _ => {}
    }
    filter
}

fn tags(more: &[(&str, &str)]) -> Tags {
    [("scope", "organization"), ("owner", "")].iter().chain(more).copied().collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
async fn call(name: &str, conn: &mut PgConnection, owner: &Actor, world: &World) {
    let organization = OrganizationId(world.organization);
    let (running, pending) = (JobId(world.running), JobId(world.pending[0]));
    let read = support::read_jobs(organization);
    let run = RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(world.daemon)).unwrap();
    let now = demo::ANCHOR;
    let stale = store::jobs::STALE_INTERVAL;
    let quota = async |conn: &mut PgConnection, user| {
        store::quota::usage(conn, &support::read_quota(user, organization)).await.map(drop)
    };
    let by_ids = async |conn: &mut PgConnection, ids: &[Uuid]| {
        let ids: Vec<_> = ids.iter().copied().map(JobId).collect();
        store::jobs::by_ids_with_queue_position(conn, &read, &ids, now, stale).await.map(drop)
    };
    let acquire = async |conn: &mut PgConnection, tags: &Tags| {
        let daemon = Capabilities { provisioners: &[ProvisionerType::Terraform], tags };
        store::jobs::acquire(conn, &run, daemon, now).await.map(drop)
    };
    let page = async |conn: &mut PgConnection, created_at| {
        let cursor = Cursor { created_at, id: JobId(world.middle) };
        store::jobs::list(conn, &read, &JobFilter::default(), PageRequest::after(cursor, PAGE)).await.map(drop)
    };
    let done = match name {
        _ if name.starts_with("list") => {
            store::jobs::list(conn, &read, &filter(name, world), PageRequest::first(PAGE)).await.map(drop)
        }
        "page, middle" => page(conn, world.created_at).await,
        "page, last" => page(conn, demo::ANCHOR - time::Duration::days(364)).await,
        "get" => store::jobs::get(conn, &read, pending).await.map(drop),
        "by ids, one" => by_ids(conn, &world.pending[..1]).await,
        "by ids, fifty" => by_ids(conn, &world.pending).await,
        "by ids without the queue" => {
            let ids: Vec<_> = world.pending.iter().copied().map(JobId).collect();
            store::jobs::by_ids(conn, &read, &ids).await.map(drop)
        }
        "acquire" => acquire(conn, &tags(&[("env", "on-prem")])).await,
        "acquire, tags of no job" => acquire(conn, &tags(&[("env", "nowhere")])).await,
        "insert" => {
            let target = JobTarget::DryRun(TemplateVersionId(world.version));
            let permit = InsertJobs::check(owner, organization, target).unwrap();
            let job = NewJob {
                id: JobId(Uuid::from_u128(1)),
                created_at: now,
                options: Map::new(),
                tags: tags(&[]),
                trace_metadata: None,
            };
            store::jobs::insert(conn, &permit, job).await.map(drop)
        }
        "create build" => {
            let permit = BuildWorkspaces::check(owner, organization).unwrap();
            let build = NewBuild {
                id: WorkspaceBuildId(Uuid::from_u128(1)),
                job_id: JobId(Uuid::from_u128(1)),
                workspace_id: WorkspaceId(world.workspace),
                template_version_id: TemplateVersionId(world.version),
                preset_id: None,
                transition: Transition::Stop,
                reason: BuildReason::Cli,
                provisioner_state: None,
                deadline: None,
                max_deadline: None,
                tags: tags(&[]),
                options: Map::new(),
                trace_metadata: None,
            };
            store::builds::create(conn, &permit, &build, now).await.map(drop)
        }
        "heartbeat" => store::jobs::heartbeat(conn, &run, running, now).await.map(drop),
        "complete" => store::jobs::complete(conn, &run, running, now, None).await.map(drop),
        "cancel" => {
            let permit = CancelJobs::check(&support::operator(), organization).unwrap();
            store::jobs::cancel(conn, &permit, pending, None, now).await.map(drop)
        }
        "append logs" => {
            let line = NewJobLog {
                created_at: now,
                source: LogSource::Provisioner,
                level: LogLevel::Info,
                stage: String::new(),
                output: "a line".to_owned(),
            };
            store::job_logs::append(conn, &run, running, &vec![line; 50]).await.map(drop)
        }
        "logs after" => {
            let permit = ReadJobLogs::check(&support::operator(), organization).unwrap();
            store::job_logs::after(conn, &permit, running, 0).await.map(drop)
        }
        "quota" => quota(conn, UserId(world.busy)).await,
        "quota, heavy owner" => quota(conn, UserId(world.heavy)).await,
        "quota, prebuilds" => quota(conn, UserId::PREBUILDS).await,
        "quota list" => {
            let permit = ListQuota::check(&support::operator(), organization).unwrap();
            store::quota::list(conn, &permit, PageRequest::first(PAGE)).await.map(drop)
        }
        "commit quota" => store::quota::commit(conn, &run, running, 1).await.map(drop),
        "daemons" => {
            let permit = ReadDaemons::check(&support::operator(), organization).unwrap();
            store::daemons::list(conn, &permit, &DaemonFilter::default(), now, stale).await.map(drop)
        }
        "history of the queue" => {
            let permit = support::read_jobs(world.organization);
            store::queue::history(conn, &permit, now, Duration::from_hours(7 * 24), 5_000).await.map(drop)
        }
        "shares of the queue" => {
            let permit = support::read_jobs(world.organization);
            store::queue::shares(conn, &permit, ShareBy::Template, now, Duration::from_hours(24)).await.map(drop)
        }
        "snapshot of the queue" => {
            let permit = ReadQueue::check(&Actor::system(System::Watcher)).unwrap();
            store::queue::snapshot(conn, &permit, now, stale).await.map(drop)
        }
        _ => panic!("no call {name}"),
    };
    done.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// What the server ran last in this session, as it says itself: the name of the statement and its parameters.
fn statement(pid: i32) -> (String, String) {
    let log = std::fs::read_to_string(support::server().data_dir().join("log")).expect("the log");
    let (_, said) = log.rsplit_once(&format!("[{pid}] LOG:  execute ")).expect("a prepared statement");
    let (name, _) = said.split_once(':').expect("its name");
    let (_, parameters) = said.split_once(&format!("[{pid}] DETAIL:")).expect("its parameters");
    let parameters = parameters.lines().next().unwrap_or_default();
    let values: Vec<_> = parameters.split('$').skip(1).filter_map(|pair| pair.split_once(" = ")).collect();
    let values: Vec<_> = values.iter().map(|(_, value)| value.trim_end_matches(", ")).collect();
    (name.to_owned(), values.join(", "))
}

/// What is wrong with a node of a plan and those below it.
fn problems(node: &Value, found: &mut Vec<String>) {
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let number = |key: &str| node[key].as_f64().unwrap_or_default();
    let rows = number("Actual Rows") * number("Actual Loops");
    // What waits is counted, in an index alone.
    let counts = text("Node Type") == "Index Only Scan" && text("Index Name").starts_with("provisioner_jobs_waiting_");
    if GROWING.contains(&text("Relation Name")) && !counts {
        let read = rows + number("Rows Removed by Filter") * number("Actual Loops");
        if text("Node Type") == "Seq Scan" {
            found.push(format!("Seq Scan on {}", text("Relation Name")));
        } else if read > READ {
            found.push(format!("{read} rows read of {}", text("Relation Name")));
        }
    }
    if text("Node Type").contains("Sort") && rows > SORTED {
        found.push(format!("Sort of {rows} rows"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        problems(child, found);
    }
}

/// The plan, a line for each node.
fn outline(node: &Value, depth: usize, lines: &mut String) {
    let keys = ["Node Type", "Relation Name", "Index Name", "Actual Rows", "Actual Loops", "Rows Removed by Filter"];
    let known: Vec<_> =
        keys.iter().filter(|key| !node[*key].is_null()).map(|key| format!("{key} {}", node[*key])).collect();
    writeln!(lines, "{:depth$}{}", "", known.join(", ")).expect("a text takes every line");
    for child in node["Plans"].as_array().into_iter().flatten() {
        outline(child, depth + 2, lines);
    }
}

#[tokio::test]
async fn no_hot_statement_reads_a_history_to_answer_a_page() {
    let (database, world) = database().await;
    let mut conn = database.connect().await;
    let owner = support::site_owner(&mut conn).await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.unwrap();
    let mut wrong = Vec::new();
    for (name, excused) in CALLS {
        let mut seen = Vec::new();
        for kind in ["force_custom_plan", "force_generic_plan"] {
            // A commit of quota wants this level; under it, quota is read from the builds.
            let level = if *name == "commit quota" { "SERIALIZABLE" } else { "READ COMMITTED" };
            let begin = format!("BEGIN ISOLATION LEVEL {level}");
            // Whatever the call changes is undone before it is explained, and that again.
            let mut tx = conn.begin_with(AssertSqlSafe(begin)).await.unwrap();
            let settings = format!(
                "SET LOCAL plan_cache_mode = {kind}; SET LOCAL log_min_messages = warning; SET LOCAL log_statement = 'all'"
            );
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *tx).await.unwrap();
            let mut undone = tx.begin().await.unwrap();
            call(name, &mut undone, &owner, world).await;
            undone.rollback().await.unwrap();
            sqlx::raw_sql("SET LOCAL log_statement = 'none'").execute(&mut *tx).await.unwrap();
            let (statement, parameters) = statement(pid);
            let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {statement} ({parameters})");
            let plan: Value =
                sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false).fetch_one(&mut *tx).await.unwrap();
            tx.rollback().await.unwrap();
            let plan = &plan[0]["Plan"];
            let number = |key: &str| plan[key].as_f64().unwrap_or_default();
            let mut found = Vec::new();
            problems(plan, &mut found);
            let blocks = number("Shared Hit Blocks") + number("Shared Read Blocks");
            if blocks > BLOCKS + BLOCKS_PER_ROW * number("Actual Rows") {
                found.push(format!("{blocks} blocks for {} rows", number("Actual Rows")));
            }
            if number("Total Cost") > JIT {
                found.push(format!("a cost of {}", number("Total Cost")));
            }
            for problem in found {
                if !excused.iter().any(|excused| problem.contains(excused)) {
                    let mut lines = String::new();
                    outline(plan, 2, &mut lines);
                    wrong.push(format!("{name}, {kind}: {problem}\n{lines}"));
                }
                seen.push(problem);
            }
        }
        for excused in *excused {
            let is_needed = seen.iter().any(|problem| problem.contains(excused));
            assert!(is_needed, "{name} does no longer need {excused:?} to be allowed");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
