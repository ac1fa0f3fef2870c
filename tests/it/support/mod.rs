//! One throw-away server per test run, one migrated template on it, and a clone of that for every test.
//!
//! With `CODERDB_TEST_POOLER` set to `session` or `transaction`, every test works through a PgBouncer in front of the
//! server, but for what a pooler takes away by its nature: that is done [`Database::directly`] or
//! [`Database::with_sessions`], each time with the reason.

pub mod adopted;
pub mod bound;
pub mod coder;
pub mod give_up;
pub mod golden;
pub mod history;
pub mod job_json;
pub mod licenses;
pub mod listing;
pub mod model;
pub mod objects;
pub mod operations;
pub mod pgbouncer;
pub mod policy;
pub mod proxy;
pub mod random_database;
pub mod rows;
pub mod secrets;
pub mod snapshot;
pub mod source;
pub mod states;
pub mod streaming;
pub mod terminal;
pub mod tls;
pub mod tools;

use std::{fs, future::Future, str::FromStr, sync::OnceLock, thread};

use coderdb::{
    authz::{Actor, LoadActors, ReadJobs, ReadOrganizations, ReadQuota, System},
    connect::{ConnectOptions, Pooler},
    model::{OrganizationId, UserId},
    pool::{self, Pool},
    postgres::Server,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions},
    store, testing,
};
use pgbouncer::PgBouncer;

/// The program under test.
pub const CODERDB: &str = env!("CARGO_BIN_EXE_coderdb");

/// A database of a test's own, dropped with this value.
pub struct Database {
    /// There until this is dropped.
    inner: Option<testing::Database>,
    url: String,
    pooler: Pooler,
    bound: Option<bound::Bound>,
}

impl Database {
    fn new(made: Result<testing::Database, testing::Error>) -> Self {
        let inner = made.expect("a database");
        let (url, pooler) = match pgbouncer() {
            Some(pgbouncer) => (pgbouncer.url(inner.name()), pgbouncer.mode),
            None => (inner.url(), Pooler::Session),
        };
        let url = url.replace("postgres@", &format!("postgres:{}@", secrets::CANARY));
        Self { inner: Some(inner), url, pooler, bound: Some(bound::Bound::new()) }
    }

    pub async fn connect(&self) -> PgConnection {
        self.connect_options().connect().await.expect("the test server takes connections")
    }

    pub fn name(&self) -> &str {
        self.inner().name()
    }

    fn inner(&self) -> &testing::Database {
        self.inner.as_ref().expect("it is dropped once")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL, for somebody else.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.inner().url().replace("postgres@", &format!("{user}:{password}@"))
    }

    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.url).expect("a URL")
    }

    /// What is between the tests and the server.
    pub fn pooler(&self) -> Pooler {
        self.pooler
    }

    /// A pool of connections to it.
    pub fn pool(&self, settings: pool::Settings) -> Pool {
        Pool::new(self.connect_options(), settings)
    }

    /// With what is between the tests and the server.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions::from(self.options()).pooler(self.pooler)
    }

    /// The same database, for as long as this process runs: a template.
    pub fn kept(mut self) -> Self {
        self.bound = None;
        self
    }

    /// The same database without a pooler.
    pub fn directly(mut self) -> Self {
        (self.url, self.pooler) = (self.inner().url(), Pooler::Session);
        self
    }

    /// The same database, over connections that keep their session.
    pub fn with_sessions(self) -> Self {
        if self.pooler == Pooler::Session { self } else { self.directly() }
    }

    /// A connection that keeps its session.
    pub async fn connect_with_session(&self) -> PgConnection {
        ConnectOptions::from(self.options_with_session()).connect().await.expect("the test server takes connections")
    }

    /// A pool of connections that keep their sessions.
    pub fn pool_with_sessions(&self, settings: pool::Settings) -> Pool {
        Pool::new(self.options_with_session(), settings)
    }

    fn options_with_session(&self) -> PgConnectOptions {
        match self.pooler {
            Pooler::Session => self.options(),
            Pooler::Transaction => PgConnectOptions::from_str(&self.inner().url()).expect("a URL"),
        }
    }

    /// A database with the same in it. Nobody may be connected to this one.
    pub async fn copy(&self) -> Self {
        if pgbouncer().is_some() {
            // It keeps its sessions for the next client.
            let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname =";
            execute("postgres", &format!("{end} '{}'", self.name())).await;
        }
        Self::new(self.inner().copy().await)
    }

    /// The program, with this database and nothing else of the environment that could change what it does.
    pub fn coderdb(&self) -> assert_cmd::Command {
        let mut command = coderdb();
        command.envs(self.environment());
        command
    }

    /// The variables that lead a program to it.
    pub fn environment(&self) -> Vec<(&'static str, &str)> {
        environment(&self.url, self.pooler)
    }
}

fn environment(url: &str, pooler: Pooler) -> Vec<(&'static str, &str)> {
    let pooler = (pooler == Pooler::Transaction).then_some(("CODERDB_POOLER", "transaction"));
    pooler.into_iter().chain([("DATABASE_URL", url)]).collect()
}

impl Drop for Database {
    fn drop(&mut self) {
        let inner = self.inner.take();
        // What its sessions show is looked at before they go with it.
        on_a_thread(async move {
            let inner = inner.expect("it is dropped once");
            secrets::check("pg_stat_activity", &sessions(inner.name()).await);
        });
    }
}

/// The permits of an operator, for tests of what they open.
pub fn read_jobs(organization: impl Into<OrganizationId>) -> ReadJobs {
    ReadJobs::check(&operator(), organization.into()).expect("an operator may read jobs")
}

pub fn read_quota(user: impl Into<UserId>, organization: impl Into<OrganizationId>) -> ReadQuota {
    ReadQuota::check(&operator(), user.into(), organization.into()).expect("an operator may read quota")
}

pub fn read_organizations() -> ReadOrganizations {
    ReadOrganizations::check(&operator())
}

pub fn operator() -> Actor {
    Actor::system(System::Operator)
}

/// A person who may do everything: the owner of the site.
pub async fn site_owner(conn: &mut PgConnection) -> Actor {
    const ID: &str = "ffffffff-0000-4000-8000-000000000000";
    sqlx::query(
        "INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, rbac_roles)
         VALUES ($1::uuid, 'owner@example.com', 'site-owner', '', now(), now(), 'active', '{owner}')
         ON CONFLICT DO NOTHING",
    )
    .bind(ID)
    .execute(&mut *conn)
    .await
    .expect("an owner");
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
    let id = UserId(ID.parse().expect("an id"));
    store::actors::load(conn, &permit, id).await.expect("the owner")
}

/// Waits until so many sessions of the database wait for a lock, or the task is done.
pub async fn settled<T>(task: &tokio::task::JoinHandle<T>, conn: &mut PgConnection, waiting: i64) {
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0";
    while !task.is_finished()
        && sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut *conn).await.expect("a count") < waiting
    {
        tokio::task::yield_now().await;
    }
}

/// What a command did.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn run(command: &mut assert_cmd::Command) -> Outcome {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("no signal");
    for stream in [&output.stdout, &output.stderr] {
        secrets::check("the output of the program", &String::from_utf8_lossy(stream));
    }
    Outcome { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a command that must fail like this: with the exit code, with all of these texts, and without a result.
pub fn fails(command: &mut assert_cmd::Command, code: i32, parts: &[&str]) {
    let outcome = run(command);
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part:?} is not in:\n{}", outcome.stderr);
    }
}

/// The program without any database, and without whatever configures one where the tests run.
pub fn coderdb() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(CODERDB);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // What is not there at once is not waited for.
    command.env("CODERDB_WAIT_TIMEOUT", "0");
    // The demo is the same in every run.
    command.env("CODERDB_DEMO_AT", "2026-05-07T09:00:00Z");
    command
}

/// A migrated database.
pub async fn database() -> Database {
    server();
    Database::new(testing::Database::new().await)
}

/// A database without anything in it.
pub async fn empty_database() -> Database {
    server();
    Database::new(testing::Database::empty().await)
}

/// The same with another encoding than UTF-8.
pub async fn empty_database_in(encoding: &str) -> Database {
    server();
    let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    Database::new(testing::Database::with_options(&options).await)
}

/// Whether there is one between the tests and the server.
pub fn is_pooled() -> bool {
    pgbouncer().is_some()
}

/// The one in front of every database, where the environment asks for it.
fn pgbouncer() -> Option<&'static PgBouncer> {
    static PGBOUNCER: OnceLock<Option<PgBouncer>> = OnceLock::new();
    let start = || match std::env::var("CODERDB_TEST_POOLER").ok()?.parse().expect("session or transaction") {
        // A test waits for what it does itself on another connection.
        Pooler::Session => Some(PgBouncer::start(Pooler::Session, 50)),
        Pooler::Transaction => Some(PgBouncer::start(Pooler::Transaction, 4)),
    };
    PGBOUNCER.get_or_init(start).as_ref()
}

/// The server of this process, with one rule more.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<&Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        secrets::watch();
        let server = testing::server().expect("a PostgreSQL server for the tests");
        let rules = server.data_dir().join("data/pg_hba.conf");
        let trusting = fs::read_to_string(&rules).expect("the rules of the server");
        fs::write(&rules, format!("local all +with_password scram-sha-256\n{trusting}")).expect("one more rule");
        server
    })
}

/// A role that the server asks for its password, which the others need not have.
pub async fn role_with_password(conn: &mut PgConnection, name: &str, password: &str) {
    let role = format!(
        "DO $$ BEGIN CREATE ROLE with_password; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE with_password; SELECT pg_reload_conf()"
    );
    sqlx::raw_sql(AssertSqlSafe(role)).execute(conn).await.expect("a role");
    let without = server().url("postgres").replace("postgres@", &format!("{name}@"));
    // The reload reaches new connections in its own time.
    while PgConnection::connect(&without).await.is_ok() {}
}

/// All that the server shows of the sessions in a database.
pub async fn sessions(database: &str) -> String {
    let mut conn = PgConnection::connect(&server().url("postgres")).await.expect("the test server takes connections");
    let shown = "SELECT coalesce(string_agg(s::text, E'\n'), '') FROM pg_stat_activity AS s WHERE datname = $1";
    sqlx::query_scalar(shown).bind(database).fetch_one(&mut conn).await.expect("the sessions")
}

async fn execute(database: &str, sql: &str) {
    let mut conn = PgConnection::connect(&server().url(database)).await.expect("the test server takes connections");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.expect("the statement");
    conn.close().await.expect("a clean end");
}

/// Runs on a thread of its own, because the caller may be inside of a runtime.
fn on_a_thread(future: impl Future<Output = ()> + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future);
    })
}
