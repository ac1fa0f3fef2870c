//! What the HTTP router costs beside the operations that it calls, how soon followers of logs see a line, and what memory a
//! long list takes.
//!
//!     cargo bench --bench http --features serve
//!
//! Requests: autocannon (npm) on the router and on a bare axum handler that sends the same statements on the same kind of
//! pool, in turn, five times two seconds each with 16 connections; also on a handler that sends the last statement alone.
//! Followers: 1,000 web sockets on 100 jobs in this process, 10 lines a job, at 50 lines a second and as fast as they can be
//! appended; from the answer to the append until the frame is there. Memory: `coderdb serve` while one client reads 100,000 jobs. Needs npm.

use std::{
    collections::HashMap,
    process::{Command, Stdio},
    str::FromStr as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::get};
use coderdb::{
    authz::{Actor, ManageTokens, ReadJobs, ReadOrganizations, ReadQuota, ReadUsers, RunJobs, SignIn, System},
    demo::{self, DemoOptions, Regime, Scale},
    http::{self, Api},
    migrate,
    model::{
        DaemonId, JobDetails, JobFilter, JobId, LogLevel, LogSource, NewJobLog, OrganizationId, PageRequest, Quota,
        SessionToken, UserId,
    },
    pool::{self, Pool},
    postgres::Server,
    sqlx::{self, AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions},
    store::{api_keys, job_logs, jobs, organizations, quota, users},
    watch::{self, Change, Watcher},
};
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use uuid::Uuid;

const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 16;
const FOLLOWERS: usize = 1_000;
const FOLLOWED: usize = 100;
const LINES: usize = 10;
const JOBS: u64 = 100_000;
/// The organization that has most of them.
const LARGE: &str = "engineering";

/// What a bare handler needs.
#[derive(Clone)]
struct Bare {
    pool: Pool,
    organization: OrganizationId,
    user: UserId,
}

/// The statements of the router, without the router.
impl Bare {
    async fn actor(conn: &mut PgConnection, headers: &HeaderMap) -> Actor {
        let token = headers["coder-session-token"].to_str().expect("a text");
        let token = SessionToken::from_str(token).expect("a token");
        let permit = SignIn::check(&Actor::system(System::Authenticator)).expect("an authenticator");
        let signed_in = api_keys::session(conn, &permit, &token, OffsetDateTime::now_utc()).await;
        signed_in.expect("the key").expect("a session").actor
    }

    async fn list(State(bare): State<Self>, headers: HeaderMap) -> Json<Vec<JobDetails>> {
        let mut conn = bare.pool.get().await.expect("a connection");
        let actor = Self::actor(&mut conn, &headers).await;
        drop(conn);
        let mut conn = bare.pool.get().await.expect("a connection");
        let permit = ReadOrganizations::check(&actor);
        let organization = organizations::by_name(&mut conn, &permit, demo::ORGANIZATION).await.expect("it");
        Self::jobs(&mut conn, &actor, organization.id).await
    }

    async fn list_alone(State(bare): State<Self>) -> Json<Vec<JobDetails>> {
        let mut conn = bare.pool.get().await.expect("a connection");
        Self::jobs(&mut conn, &Actor::system(System::Operator), bare.organization).await
    }

    async fn jobs(conn: &mut PgConnection, actor: &Actor, organization: OrganizationId) -> Json<Vec<JobDetails>> {
        let permit = ReadJobs::check(actor, organization).expect("the right");
        let page = jobs::list(conn, &permit, &JobFilter::default(), PageRequest::first(50)).await;
        Json(page.expect("a page").rows)
    }

    async fn quota(State(bare): State<Self>, headers: HeaderMap) -> Json<Quota> {
        let mut conn = bare.pool.get().await.expect("a connection");
        let actor = Self::actor(&mut conn, &headers).await;
        drop(conn);
        let mut conn = bare.pool.get().await.expect("a connection");
        let permit = ReadOrganizations::check(&actor);
        let organization = organizations::by_name(&mut conn, &permit, demo::ORGANIZATION).await.expect("it");
        let permit = ReadUsers::check(&actor).expect("the right");
        let user = users::by_username(&mut conn, &permit, "dave").await.expect("a user");
        let permit = ReadQuota::check(&actor, user.id, organization.id).expect("the right");
        Json(quota::usage(&mut conn, &permit).await.expect("quota"))
    }

    async fn quota_alone(State(bare): State<Self>) -> Json<Quota> {
        let mut conn = bare.pool.get().await.expect("a connection");
        let permit = ReadQuota::check(&Actor::system(System::Operator), bare.user, bare.organization);
        Json(quota::usage(&mut conn, &permit.expect("the right")).await.expect("quota"))
    }
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address.to_string()
}

/// Requests per second.
fn load(url: &str, token: &str) -> f64 {
    let output = Command::new("npx")
        .args(["--yes", "autocannon@8.0.0", "--json", "--duration", "2", "--connections", &CONNECTIONS.to_string()])
        .args(["--headers", &format!("Coder-Session-Token={token}"), url])
        .stderr(Stdio::null())
        .output()
        .expect("npx");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!((&report["non2xx"], &report["errors"]), (&0.into(), &0.into()), "{report}");
    report["requests"]["average"].as_f64().expect("a number")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let server = Server::throw_away(|notice| eprintln!("{notice}")).expect("a server");
    let url = server.url("postgres");
    let mut conn = PgConnection::connect(&url).await.expect("a connection");
    migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
    let scale = Some(Scale { jobs: JOBS, regime: Regime::Calm });
    let options = DemoOptions { scale, ..DemoOptions::default() };
    let _ = demo::load(&mut conn, &options, |_| {}).await.expect("the demo");

    let operator = Actor::system(System::Operator);
    let alice = users::by_username(&mut conn, &ReadUsers::check(&operator).expect("the operator"), "alice").await;
    let user = alice.expect("alice").id;
    let (now, permit) = (OffsetDateTime::now_utc(), ManageTokens::check(&operator).expect("the operator"));
    let token = api_keys::create(&mut conn, &permit, user, "bench", now, now + time::Duration::DAY).await;
    let token = token.expect("a token").expose();
    let permit = ReadOrganizations::check(&operator);
    let organization = organizations::by_name(&mut conn, &permit, demo::ORGANIZATION).await.expect("it").id;

    let pool = || Pool::new(PgConnectOptions::from_str(&url).expect("a URL"), pool::Settings::default());
    let (ours, bare) = (pool(), Bare { pool: pool(), organization, user });
    let watcher = Watcher::start(&ours, watch::Settings::default());
    let settings = http::Settings { requests_per_minute: None, ..http::Settings::default() };
    let router = http::router(&Api::new(ours.clone(), watcher, settings));
    let ours = serve(router).await;
    let handlers = Router::new()
        .route("/list", get(Bare::list))
        .route("/list-alone", get(Bare::list_alone))
        .route("/quota", get(Bare::quota))
        .route("/quota-alone", get(Bare::quota_alone))
        .with_state(bare);
    let bare = serve(handlers).await;

    let in_organization = format!("http://{ours}/api/v2/organizations/{}", demo::ORGANIZATION);
    for (what, router, name) in [
        ("list, 50 jobs", format!("{in_organization}/provisionerjobs"), "list"),
        ("quota", format!("{in_organization}/members/dave/workspace-quota"), "quota"),
    ] {
        let mut measured: HashMap<&str, Vec<f64>> = HashMap::new();
        for _ in 0..ROUNDS {
            measured.entry("router").or_default().push(load(&router, &token));
            measured.entry("same").or_default().push(load(&format!("http://{bare}/{name}"), &token));
            measured.entry("alone").or_default().push(load(&format!("http://{bare}/{name}-alone"), &token));
        }
        let [router, same, alone] = ["router", "same", "alone"].map(|name| median(measured[name].clone()));
        println!(
            "{what}: router {router:.0}/s, bare handler with its statements {same:.0}/s ({:.2}), with the last statement \
             alone {alone:.0}/s ({:.2})",
            router / same,
            router / alone
        );
    }

    followers(&mut conn, &url, &ours, &token, organization, Some(Duration::from_millis(20))).await;
    followers(&mut conn, &url, &ours, &token, organization, None).await;
    memory(&url, &token).await;
}

/// How soon a line is there; `pace` is the time from one line to the next.
async fn followers(
    conn: &mut PgConnection,
    url: &str,
    address: &str,
    token: &str,
    organization: OrganizationId,
    pace: Option<Duration>,
) {
    let daemon = DaemonId(Uuid::new_v4());
    let first = if pace.is_some() { 0xf000_u128 } else { 0xe000 };
    let id = |n: usize| Uuid::from_u128(first + n as u128);
    let sql = format!(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, organization_id, initiator_id, provisioner,
             storage_method, type, input, file_id, worker_id)
         SELECT lpad(to_hex({first} + n), 32, '0')::uuid, now(), now(), now(), '{organization}', u.id, 'echo', 'file',
             'template_version_import', '{{}}', u.id, '{daemon}'
         FROM generate_series(0, {FOLLOWED} - 1) AS n, users AS u WHERE u.username = 'alice';
         INSERT INTO template_versions (id, organization_id, created_at, updated_at, name, readme, job_id, created_by)
         SELECT j.id, j.organization_id, now(), now(), 'bench-' || j.id, '', j.id, j.initiator_id
         FROM provisioner_jobs AS j WHERE j.worker_id = '{daemon}'"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await.expect("jobs");
    let writers = Pool::new(PgConnectOptions::from_str(url).expect("a URL"), pool::Settings::default());
    let announcer = Watcher::start(&writers, watch::Settings::default());

    // The moment at which each line was committed, by its text.
    let committed: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let mut sockets = tokio::task::JoinSet::new();
    for n in 0..FOLLOWERS {
        let follow = format!("ws://{address}/api/v2/templateversions/{}/logs?follow", id(n % FOLLOWED));
        let mut request = follow.into_client_request().expect("a request");
        request.headers_mut().insert("Coder-Session-Token", token.parse().expect("a header"));
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("a socket");
        sockets.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < LINES {
                if let Message::Text(text) = socket.next().await.expect("a frame").expect("a frame") {
                    let line: serde_json::Value = serde_json::from_str(&text).expect("a line");
                    seen.push((line["output"].as_str().expect("a text").to_owned(), Instant::now()));
                }
            }
            seen
        });
    }
    let permit = RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, daemon).expect("a daemon");
    let mut turn = pace.map(tokio::time::interval);
    for line in 0..LINES {
        for job in 0..FOLLOWED {
            if let Some(turn) = &mut turn {
                turn.tick().await;
            }
            let output = format!("{job} {line}");
            let log = NewJobLog {
                created_at: OffsetDateTime::now_utc(),
                source: LogSource::Provisioner,
                level: LogLevel::Info,
                stage: "bench".to_owned(),
                output: output.clone(),
            };
            let _ = job_logs::append(conn, &permit, JobId(id(job)), &[log]).await.expect("it is appended");
            committed.lock().expect("it").insert(output, Instant::now());
            announcer.announce(Change { job: JobId(id(job)), organization });
        }
    }
    let committed = committed.lock().expect("it").clone();
    let mut delays: Vec<f64> = sockets
        .join_all()
        .await
        .into_iter()
        .flatten()
        .map(|(line, at)| at.saturating_duration_since(committed[&line]).as_secs_f64() * 1000.0)
        .collect();
    delays.sort_by(f64::total_cmp);
    let at = |per_mille: usize| delays[(delays.len() - 1) * per_mille / 1000];
    println!(
        "followers: {FOLLOWERS} on {FOLLOWED} jobs, {}, {} frames: median {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        pace.map_or("as fast as possible".to_owned(), |pace| format!("a line each {pace:?}")),
        delays.len(),
        at(500),
        at(990),
        at(1000)
    );
}

/// What a service takes to send all jobs.
async fn memory(url: &str, token: &str) {
    let mut service = tokio::process::Command::new(env!("CARGO_BIN_EXE_coderdb"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("DATABASE_URL", url)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the service");
    let mut said = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(service.stderr.take().expect("it")));
    let address = loop {
        let line = said.next_line().await.expect("a line").expect("a line");
        if let Some((_, address)) = line.split_once("listening on http://") {
            break address.to_owned();
        }
    };
    let peak = |id: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let id = service.id().expect("it runs");
    let get = async |limit: u64| {
        let target = format!("http://{address}/api/v2/organizations/{LARGE}/provisionerjobs?limit={limit}");
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--fail", "--header", &format!("Coder-Session-Token: {token}"), &target])
            .output()
            .await
            .expect("curl");
        assert!(output.status.success());
        output.stdout
    };
    get(500).await;
    let before = peak(id);
    let began = Instant::now();
    let body = get(0).await;
    let elapsed = began.elapsed();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("a list");
    println!(
        "memory: {} jobs, {} MB, in {:.1} s: the peak grew from {} MB to {} MB",
        rows.len(),
        body.len() / 1_000_000,
        elapsed.as_secs_f64(),
        before / 1024,
        peak(id) / 1024
    );
    let _ = tokio::time::timeout(Duration::from_secs(5), service.kill()).await;
}
