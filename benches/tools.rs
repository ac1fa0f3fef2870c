//! How soon a tool replies after the job that it waits for has ended.
//!
//!     cargo bench --bench tools
//!
//! 1,000 calls of `start_workspace` at once, for 1,000 chats, in one process with one pool and one listening connection;
//! the daemon has others. From the answer to the commit until the reply is there, of 5 times 1,000 calls: the agents of
//! the workspace, which has none, and the chat are read in that time.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, RunJobs, System},
    migrate,
    model::{ChatId, DaemonId, JobId, OrganizationId, UserId},
    pool::{self, Pool},
    postgres::Server,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions},
    store,
    tools::{CancellationToken, Tool, Toolbox},
    watch::{Change, Settings, Watcher},
};
use serde_json::json;
use time::OffsetDateTime;
use tokio::{sync::Barrier, task::JoinSet, time::sleep};
use uuid::Uuid;

const CALLS: u128 = 1_000;
const ROUNDS: u128 = 5;
const ONE: Uuid = Uuid::from_u128(1);
const ORGANIZATION: OrganizationId = OrganizationId(ONE);
const DAEMON: DaemonId = DaemonId(Uuid::from_u128(2));

/// A user, and a template whose version is imported.
const ROWS: &str = "
INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
VALUES (u(1), 'bench', '', now(), now(), '');
INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status)
VALUES (u(1), 'bench@example.com', 'bench', '', now(), now(), 'active');
INSERT INTO organization_members (organization_id, user_id, created_at, updated_at) VALUES (u(1), u(1), now(), now());
INSERT INTO templates (id, created_at, updated_at, organization_id, name, provisioner, active_version_id, created_by,
    group_acl)
VALUES (u(1), now(), now(), u(1), 'bench', 'echo', u(1), u(1), jsonb_build_object(u(1), '[\"read\", \"use\"]'::jsonb));
INSERT INTO template_versions (id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by)
VALUES (u(1), u(1), u(1), now(), now(), 'v1', '', u(1), u(1));
INSERT INTO chat_providers (provider) VALUES ('openai');
INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold)
VALUES (u(1), 'openai', 'model', 200000, 80);
";

/// Chats with workspaces that a daemon starts. The chat, the workspace, the build and the job have one id.
const CHATS: &str = "
INSERT INTO provisioner_jobs (
    id, created_at, updated_at, started_at, organization_id, initiator_id, provisioner, storage_method, type, input,
    file_id, worker_id
)
SELECT u(n), now(), now(), now(), u(1), u(1), 'echo', 'file', 'workspace_build', '{}', u(1), u(2) FROM numbers AS n;
INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
SELECT u(n), now(), now(), u(1), u(1), u(1), 'w' || n FROM numbers AS n;
INSERT INTO workspace_builds (
    id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id
)
SELECT u(n), now(), now(), u(n), u(1), 1, 'start', u(1), u(n) FROM numbers AS n;
INSERT INTO chats (id, owner_id, workspace_id, last_model_config_id, organization_id)
SELECT u(n), u(1), u(n), u(1), u(1) FROM numbers AS n;
ANALYZE provisioner_jobs, workspaces, workspace_builds, chats;
";

async fn run(conn: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.expect("the rows");
}

#[tokio::main]
async fn main() {
    let server = Server::throw_away(|notice| eprintln!("{notice}")).expect("a server");
    let url = server.url("postgres");
    let mut conn = PgConnection::connect(&url).await.expect("a connection");
    migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
    let u = "CREATE FUNCTION u(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(to_hex(n), 32, '0')::uuid $$;";
    run(&mut conn, [u, ROWS].concat()).await;

    let pool = || Pool::new(PgConnectOptions::from_str(&url).expect("a URL"), pool::Settings::default());
    let (callers, daemons) = (pool(), pool());
    let (watcher, announcer) =
        (Watcher::start(&callers, Settings::default()), Watcher::start(&daemons, Settings::default()));
    let worker = Actor::system(System::ProvisionerDaemon);
    let permit = RunJobs::check(&worker, ORGANIZATION, DAEMON).expect("a daemon");
    let mut delays = Vec::new();
    for round in 1..=ROUNDS {
        let first = round * CALLS;
        let numbers = format!(
            "CREATE OR REPLACE TEMPORARY VIEW numbers AS SELECT n FROM generate_series({first}, {first} + {CALLS} - 1) AS n;"
        );
        run(&mut conn, numbers + &CHATS.replace("FROM numbers AS n", "FROM numbers")).await;
        // Each has bound its chat, which is what somebody is told of first.
        let waiting = Arc::new(Barrier::new(usize::try_from(CALLS).expect("few") + 1));
        let mut calls = JoinSet::new();
        for n in first..first + CALLS {
            let (callers, watcher, waiting) = (callers.clone(), watcher.clone(), waiting.clone());
            calls.spawn(async move {
                let bound = Arc::new(tokio::sync::Notify::new());
                let notify = bound.clone();
                let toolbox = Toolbox::new(callers, watcher, ChatId(Uuid::from_u128(n)), UserId(ONE), ORGANIZATION)
                    .on_chat_updated(Arc::new(move |_| notify.notify_one()));
                let cancel = CancellationToken::new();
                let call = toolbox.call(Tool::StartWorkspace, json!({}), &cancel);
                let (reply, _) = tokio::join!(async { (call.await, Instant::now()) }, async {
                    bound.notified().await;
                    waiting.wait().await
                });
                assert!(reply.0.text().contains("\"started\":true"), "{reply:?}");
                (n, reply.1)
            });
        }
        waiting.wait().await;
        // The last ones register.
        sleep(Duration::from_secs(2)).await;
        let mut committed = Vec::new();
        for n in first..first + CALLS {
            let (now, job) = (OffsetDateTime::now_utc(), JobId(Uuid::from_u128(n)));
            let _ = store::jobs::complete(&mut conn, &permit, job, now, None).await.expect("the job");
            committed.push(Instant::now());
            announcer.announce(Change { job, organization: ORGANIZATION });
        }
        for (n, at) in calls.join_all().await {
            delays.push(at.saturating_duration_since(committed[usize::try_from(n - first).expect("few")]));
        }
    }
    delays.sort_unstable();
    let quantile = |part: usize| delays[(delays.len() - 1) * part / 1_000].as_secs_f64() * 1e3;
    println!(
        "replies, {CALLS} calls: median {:.1} ms, p99 {:.1} ms, greatest {:.1} ms",
        quantile(500),
        quantile(990),
        quantile(1_000)
    );
}
