//! Through a PgBouncer that lends a session per transaction: every client may meet every session.

use std::{future::poll_fn, pin::pin, sync::OnceLock, task::Poll, time::Duration};

use coderdb::{
    connect::{ConnectOptions, Error, Pooler},
    model::JobStatus,
    pool::{self, Pool},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    watch::{Change, Settings, Watcher},
};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    self, Database, fails,
    pgbouncer::{PgBouncer, Program},
    rows::{Rows, id},
};

const LONG: Duration = Duration::from_secs(30);

/// Two sessions per database.
fn pgbouncer() -> &'static PgBouncer {
    static PGBOUNCER: OnceLock<PgBouncer> = OnceLock::new();
    PGBOUNCER.get_or_init(|| PgBouncer::start(Pooler::Transaction, 2))
}

fn options_of(pgbouncer: &PgBouncer, database: &Database) -> ConnectOptions {
    ConnectOptions::from(pgbouncer.options(database.name())).pooler(Pooler::Transaction)
}

fn options(database: &Database) -> ConnectOptions {
    options_of(pgbouncer(), database)
}

async fn connect(database: &Database) -> PgConnection {
    options(database).connect().await.expect("a connection")
}

fn pool(database: &Database, max_size: usize) -> Pool {
    Pool::new(options(database), pool::Settings { max_size, deadline: LONG, ..pool::Settings::default() })
}

async fn execute(conn: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(conn).await.expect(sql);
}

async fn sum(conn: &mut PgConnection, a: i32, b: i32) -> i32 {
    sqlx::query_scalar("SELECT $1 + $2").bind(a).bind(b).fetch_one(conn).await.expect("a sum")
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map_or_else(|| error.to_string(), Into::into)
}

/// Uses a statement on one session, and again when only the other one is free.
async fn moved(options: &ConnectOptions) -> sqlx::Result<i32> {
    const STATEMENT: &str = "SELECT $1 + pg_backend_pid() * 0";
    let connect = || async { options.connect().await.expect("a connection") };
    let (mut conn, mut one, mut other) = (connect().await, connect().await, connect().await);
    let mut transaction = conn.begin().await?;
    sqlx::query_scalar::<_, i32>(STATEMENT).bind(1).fetch_one(&mut *transaction).await?;
    let pid = "SELECT pg_backend_pid()::text";
    let mine = sqlx::raw_sql(pid).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    let (mut one, other) = (one.begin().await?, other.begin().await?);
    let taken = sqlx::raw_sql(pid).fetch_one(&mut *one).await?;
    let text = |row| sqlx::Row::get::<String, _>(&row, 0);
    if text(taken) == text(mine) {
        other.rollback().await?;
    } else {
        one.rollback().await?;
    }
    sqlx::query_scalar(STATEMENT).bind(2).fetch_one(&mut conn).await
}

/// Poolers that do not keep statements, each with two sessions.
fn forgetful() -> Vec<(&'static str, PgBouncer)> {
    let keeps = Program::KeepsStatements;
    let mut all = vec![
        ("none kept", PgBouncer::start_as(keeps, Pooler::Transaction, 2, "max_prepared_statements = 0")),
        (
            "not asked to in session mode",
            PgBouncer::start_as(keeps, Pooler::Session, 2, "max_prepared_statements = 200"),
        ),
    ];
    if Program::Installed.path() != keeps.path() {
        all.push(("too old", PgBouncer::start_as(Program::Installed, Pooler::Transaction, 2, "")));
    }
    all
}

#[tokio::test]
async fn connecting_takes_a_pooler_only_if_a_statement_is_there_on_whatever_session_it_meets() {
    let database = support::database().await;
    assert_eq!(moved(&options(&database)).await.expect("the statement"), 2);
    for (why, pgbouncer) in forgetful() {
        let database = support::database().await;
        let options = options_of(&pgbouncer, &database);
        if pgbouncer.mode == Pooler::Transaction {
            let unasked = moved(&options.clone().pooler(Pooler::Session)).await.expect_err(why);
            assert_eq!(code(&unasked), "26000", "{why}: {unasked}");
        }
        // More than once: an attempt leaves nothing behind that changes the answer to the next.
        for _ in 0..5 {
            let error = options.connect().await.expect_err(why);
            assert!(matches!(error, Error::ForgetsStatements { .. }) && !error.is_passing(), "{why}: {error:?}");
        }
    }
    let database = database.directly();
    let direct = ConnectOptions::from(database.options()).pooler(Pooler::Transaction);
    assert!(matches!(direct.connect().await, Err(Error::ForgetsStatements { .. })));
}

#[tokio::test]
async fn connecting_is_refused_when_another_client_left_a_statement_of_that_name() {
    let (_, pgbouncer) = forgetful().swap_remove(0);
    let database = support::database().await;
    let unasked = options_of(&pgbouncer, &database).pooler(Pooler::Session);
    let mut held = Vec::new();
    // On both sessions.
    for _ in 0..2 {
        let mut conn = unasked.connect().await.expect("a connection");
        execute(&mut conn, "BEGIN").await;
        sum(&mut conn, 1, 2).await;
        held.push(conn);
    }
    for conn in &mut held {
        execute(conn, "COMMIT").await;
    }
    let error = options_of(&pgbouncer, &database).connect().await.expect_err("the name is taken");
    assert!(matches!(error, Error::ForgetsStatements { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_clients_share_two_sessions_and_each_gets_its_own_answers() {
    const CLIENTS: i32 = 300;
    let database = support::database().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        // One after the other: no socket keeps so many waiting.
        let mut conn = connect(&database).await;
        clients.spawn(async move {
            for round in 0..12 {
                // The same names for different statements, and the same text for different types.
                let (kind, n) = ((client + round) % 4, client * 100 + round);
                let sql = AssertSqlSafe(match kind {
                    0 => format!("SELECT $1 + {}", client % 7),
                    1 => format!("SELECT $1 * 2, '{client}'::text"),
                    2 => "SELECT $1".to_owned(),
                    _ => format!("SELECT ($1::text || '{round}')::text"),
                });
                match kind {
                    0 => {
                        let found: i32 = sqlx::query_scalar(sql).bind(n).fetch_one(&mut conn).await.expect("a sum");
                        assert_eq!(found, n + client % 7);
                    }
                    1 => {
                        let found: (i32, String) =
                            sqlx::query_as(sql).bind(n).fetch_one(&mut conn).await.expect("a row");
                        assert_eq!(found, (n * 2, client.to_string()));
                    }
                    2 if client % 2 == 0 => {
                        let query = sqlx::query_scalar::<_, i64>(sql).bind(i64::from(n));
                        assert_eq!(query.fetch_one(&mut conn).await.expect("the number"), i64::from(n));
                    }
                    2 => {
                        let query = sqlx::query_scalar::<_, bool>(sql).bind(n % 3 == 0);
                        assert_eq!(query.fetch_one(&mut conn).await.expect("an answer"), n % 3 == 0);
                    }
                    _ => {
                        let text = n.to_string();
                        let found: String =
                            sqlx::query_scalar(sql).bind(&text).fetch_one(&mut conn).await.expect("a text");
                        assert_eq!(found, format!("{text}{round}"));
                    }
                }
            }
            conn.close().await.expect("a clean end");
        });
    }
    clients.join_all().await;
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut direct = PgConnection::connect(&support::server().url(database.name())).await.expect("a connection");
    let sessions: i64 = sqlx::query_scalar(sessions).fetch_one(&mut direct).await.expect("a count");
    assert!(sessions <= 2, "{sessions}");
}

/// Polls it so often at most, and drops it then; whether it came to an end.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| match (future.as_mut().poll(context), left) {
        (Poll::Ready(done), _) => Poll::Ready(Some(done)),
        (Poll::Pending, 0 | 1) => Poll::Ready(None),
        (Poll::Pending, _) => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn whatever_is_dropped_on_its_way_the_next_borrower_gets_its_own_answer() {
    let database = support::database().await;
    let pool = pool(&database, 1);
    let mut marker = 0;
    for polls in 1.. {
        // Texts that no connection knows yet, so that a prepare is dropped, too.
        let work = async {
            let mut connection = pool.get().await.expect("a connection");
            let number = |n: usize| AssertSqlSafe(format!("SELECT generate_series($1, $1 + {n})"));
            let rows: Vec<i32> =
                sqlx::query_scalar(number(polls)).bind(0).fetch_all(&mut *connection).await.expect("rows");
            assert_eq!(rows.len(), polls + 1);
            let mut transaction = connection.begin().await.expect("a transaction");
            sqlx::query("CREATE TABLE left_behind ()").execute(&mut *transaction).await.expect("a table");
            let mut inner = transaction.begin().await.expect("a savepoint");
            sqlx::query("SELECT $1").bind(1).execute(&mut *inner).await.expect("a row");
            inner.commit().await.expect("the release");
            sqlx::raw_sql("SELECT 1; SELECT 2").execute(&mut *transaction).await.expect("rows");
            transaction.rollback().await.expect("the rollback");
        };
        let done = dropped_after(polls, work).await.is_some();
        marker += 10;
        let mut connection = pool.get().await.expect("a connection");
        assert_eq!(sum(&mut connection, marker, 1).await, marker + 1, "after {polls} polls");
        let left: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
            .bind("left_behind")
            .fetch_one(&mut *connection)
            .await
            .expect("an answer");
        assert_eq!(left, None, "after {polls} polls");
        if done {
            break;
        }
    }
    assert!(marker > 10, "nothing was dropped");
}

#[tokio::test]
async fn rows_are_never_read_by_columns_that_they_no_longer_have() {
    let database = support::database().await;
    let (mut conn, mut other) = (connect(&database).await, connect(&database).await);
    execute(&mut other, "CREATE TABLE t (a bigint, b timestamptz); INSERT INTO t VALUES (1, 'epoch')").await;
    let read = || sqlx::query_as::<_, (i64, Option<time::OffsetDateTime>)>("SELECT * FROM t WHERE $1").bind(true);
    read().fetch_one(&mut conn).await.expect("a row");
    // Both have eight bytes.
    execute(&mut other, "ALTER TABLE t DROP a; ALTER TABLE t ADD a bigint DEFAULT 2").await;
    let error = read().fetch_one(&mut conn).await.expect_err("the columns have changed");
    assert_eq!(code(&error), "0A000", "{error:?}");
    // The pooler's sessions have the statement also for clients that come later: docs/operations.md.
    pgbouncer().reconnect(database.name()).await;
    let rows = sqlx::query_as::<_, (Option<time::OffsetDateTime>, i64)>("SELECT * FROM t WHERE $1").bind(true);
    assert_eq!(rows.fetch_one(&mut connect(&database).await).await.expect("a row").1, 2);
}

#[tokio::test]
async fn a_pool_gets_over_a_pooler_that_is_restarted() {
    let database = support::database().await;
    let pgbouncer = PgBouncer::start(Pooler::Transaction, 2);
    let settings = pool::Settings { max_size: 4, deadline: LONG, ..Default::default() };
    let pool = Pool::new(options_of(&pgbouncer, &database), settings);
    let mut held = pool.get().await.expect("a connection");
    assert_eq!(sum(&mut held, 1, 2).await, 3);
    let pgbouncer = pgbouncer.restart();
    let lost = sqlx::query("SELECT $1").bind(1).execute(&mut *held).await.expect_err("it is gone");
    assert!(matches!(lost, sqlx::Error::Io(_) | sqlx::Error::Database(_)), "{lost:?}");
    drop(held);
    for n in 0..10 {
        assert_eq!(sum(&mut pool.get().await.expect("a connection"), n, 2).await, n + 2);
    }
    drop(pgbouncer);
}

#[tokio::test]
async fn the_command_line_works_through_it_and_does_not_migrate() {
    let database = support::empty_database().await.directly();
    let coderdb = || {
        let mut command = support::coderdb();
        command.env("DATABASE_URL", pgbouncer().url(database.name())).env("CODERDB_POOLER", "transaction");
        command
    };
    for command in [&["migrate", "up"][..], &["demo"]] {
        fails(coderdb().args(command), 14, &["a transaction pooler", "direct connection", "CODERDB_POOLER"]);
    }
    fails(coderdb().args(["migrate", "status"]).env("CODERDB_POOLER", "both"), 2, &["CODERDB_POOLER"]);
    assert_eq!(support::run(coderdb().args(["migrate", "status", "--exit-code"])).code, 3);
    assert_eq!(support::run(database.coderdb().args(["migrate", "up"])).code, 0);
    // With nothing to do there is nothing to refuse.
    assert_eq!(support::run(coderdb().args(["migrate", "up"])).code, 0);
    assert_eq!(support::run(coderdb().arg("demo")).code, 0);
    let list = support::run(coderdb().args(["provisioner", "jobs", "list", "--status", "failed"]));
    assert_eq!((list.code, list.stdout.lines().count()), (0, 4), "{}", list.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_does_not_listen_but_hears_by_the_poll_and_is_heard() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    let database = &rows.database;
    let poll = Duration::from_millis(20);
    let deaf = Watcher::start(&pool(database, 4), Settings { poll, ..Settings::default() });
    let listens =
        Settings { poll: Duration::from_hours(1), poll_organizations: Duration::from_hours(1), ..Settings::default() };
    let hears = Watcher::start(&database.pool_with_sessions(pool::Settings::default()), listens);
    let (job, permit) = (coderdb::model::JobId(id(1)), support::read_jobs(id(1)));
    let mut direct = database.connect_with_session().await;
    let listeners = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    while sqlx::query_scalar::<_, i64>(listeners).fetch_one(&mut direct).await.expect("a count") != 1 {
        tokio::task::yield_now().await;
    }
    let waiters = [deaf.clone(), hears.clone()]
        .map(|watcher| tokio::spawn(async move { watcher.wait(&permit, job, LONG).await.expect("the job").status }));
    let [deaf_one, other] = waiters;
    sqlx::raw_sql("UPDATE provisioner_jobs SET completed_at = now()").execute(&mut direct).await.expect("an update");
    assert_eq!(deaf_one.await.expect("the task"), JobStatus::Succeeded);
    deaf.announce(Change { job, organization: permit.organization() });
    assert_eq!(timeout(LONG, other).await.expect("in time").expect("the task"), JobStatus::Succeeded);
    let count: i64 = sqlx::query_scalar(listeners).fetch_one(&mut direct).await.expect("a count");
    assert_eq!(count, 1, "only the one with a session listens");
}
