//! The pool: fair, clean, and with an error that says who holds the connections.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use coderdb::{
    connect::{ConnectOptions, Pooler},
    migrate,
    model::{JobFilter, PageRequest},
    pool::{self, Error, Pool, Settings},
    sqlx::{self, Connection, PgConnection, postgres::PgConnectOptions},
    store, uuid,
};
use tokio::task::JoinSet;

use crate::support::{
    self,
    proxy::{Cut, Proxy},
};

fn settings(max_size: usize) -> Settings {
    Settings { max_size, ..Settings::default() }
}

/// Polls it so often at most, each time when it asks for it, and drops it then; whether it came to an end.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn pid(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await.expect("a session")
}

/// Whether the session is in no transaction, in which time would stand still, and the answers are those to the questions.
async fn is_clean(conn: &mut PgConnection, marker: i32) -> bool {
    let mut answers: Vec<(i32, time::OffsetDateTime)> = Vec::new();
    for n in [marker, marker + 1] {
        answers.push(sqlx::query_as("SELECT $1, now()").bind(n).fetch_one(&mut *conn).await.expect("an answer"));
    }
    (answers[0].0, answers[1].0) == (marker, marker + 1) && answers[0].1 < answers[1].1
}

#[tokio::test]
async fn a_connection_is_used_again_and_there_are_never_more_than_the_limit() {
    // The server's process is the same only with a session.
    let database = support::database().await.with_sessions();
    let pool = database.pool(settings(2));
    let first = pid(&mut pool.get().await.expect("a connection")).await;
    assert_eq!(pid(&mut pool.get().await.expect("a connection")).await, first);
    let mut tasks = JoinSet::new();
    for n in 0..50 {
        let pool = pool.clone();
        tasks.spawn(async move { is_clean(&mut pool.get().await.expect("a connection"), n).await });
    }
    assert_eq!(tasks.join_all().await, [true; 50]);
    let metrics = pool.metrics();
    assert!(metrics.opened <= 2 && metrics.size <= 2, "{metrics:?}");
    assert_eq!((metrics.taken, metrics.checked), (52, 0));
    assert_eq!((metrics.in_use, metrics.waiting, metrics.timed_out), (0, 0, 0));
}

#[tokio::test]
async fn to_take_a_connection_and_to_give_it_back_costs_no_round_trip() {
    // Messages are counted, and a pooler sends some of its own.
    let database = support::database().await.directly();
    let proxy = Proxy::to(&database);
    let pool = Pool::new(proxy.options().clone(), settings(1));
    drop(pool.get().await.expect("a connection"));
    proxy.take();
    for _ in 0..10 {
        drop(pool.get().await.expect("a connection"));
    }
    assert_eq!(proxy.take(), 0);
    for _ in 0..10 {
        pid(&mut pool.get().await.expect("a connection")).await;
    }
    assert_eq!(proxy.take(), 11, "one for each statement, and one to prepare it");
}

#[tokio::test]
async fn a_cut_at_any_message_is_one_error_and_the_next_borrower_finds_a_clean_session() {
    // Messages are counted, and a pooler sends some of its own.
    let database = support::database().await.directly();
    let proxy = Proxy::to(&database);
    let pool = Pool::new(proxy.options().clone(), settings(1));
    let work = async || -> sqlx::Result<()> {
        let mut connection = pool.get().await.expect("a connection");
        let mut transaction = connection.begin().await?;
        sqlx::query("CREATE TABLE left_behind ()").execute(&mut *transaction).await?;
        sqlx::query("SELECT 1").execute(&mut *transaction).await?;
        transaction.rollback().await
    };
    work().await.expect("no cut yet");
    proxy.take();
    work().await.expect("no cut yet");
    let messages = proxy.take();
    assert!(messages >= 4, "{messages}");
    for cut in (1..=messages).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
        // The statements are prepared, so that the messages are those that were counted.
        work().await.expect("no cut yet");
        proxy.cut(cut);
        work().await.expect_err("the cut");
        assert!(proxy.was_cut(), "{cut:?}");
        assert!(is_clean(&mut pool.get().await.expect("a connection"), 1).await, "{cut:?}");
    }
}

#[tokio::test]
async fn out_of_a_black_hole_comes_an_error_that_says_so_and_after_it_everything_works() {
    // The hole is between us and the server.
    let database = support::database().await.directly();
    let proxy = Proxy::to(&database);
    let brief = Duration::from_millis(100);
    let settings = Settings { deadline: brief * 3, check_timeout: brief, ..settings(1) };
    let pool = Pool::new(proxy.options().clone(), settings);
    assert!(is_clean(&mut pool.get().await.expect("a connection"), 1).await);
    proxy.black_hole(true);
    let lost = async { is_clean(&mut pool.get().await.expect("a connection that looks good"), 1).await };
    assert!(tokio::time::timeout(brief, lost).await.is_err(), "nobody answers");
    let text = pool.get().await.expect_err("nobody answers").to_string();
    assert!(text.starts_with("no connection within 300ms: no answer yet from database "), "{text}");
    proxy.black_hole(false);
    assert!(is_clean(&mut pool.get().await.expect("a new connection"), 1).await);
}

#[tokio::test]
async fn when_the_server_has_no_room_the_connections_that_there_are_go_round() {
    // A pooler has its own idea of how many connections there may be.
    let database = support::database().await.directly();
    let mut conn = database.connect().await;
    sqlx::raw_sql("CREATE ROLE few LOGIN CONNECTION LIMIT 2").execute(&mut conn).await.expect("a role");
    let options = database.options().username("few");
    let pool = Pool::new(options.clone(), Settings { deadline: Duration::from_mins(1), ..settings(5) });
    let mut tasks = JoinSet::new();
    for n in 0..50 {
        let pool = pool.clone();
        tasks.spawn(async move { is_clean(&mut pool.get().await.expect("a connection"), n).await });
    }
    assert_eq!(tasks.join_all().await, [true; 50]);
    assert!(pool.metrics().opened <= 2, "{:?}", pool.metrics());
    let _both = (pool.get().await.expect("one"), pool.get().await.expect("the other"));
    let pool = Pool::new(options, Settings { deadline: Duration::from_millis(100), ..settings(5) });
    let text = pool.get().await.expect_err("no room").to_string();
    assert!(text.contains("too many connections for role \"few\""), "{text}");
}

#[tokio::test]
async fn whoever_waits_first_is_served_first() {
    let database = support::database().await;
    let pool = database.pool(settings(1));
    let held = pool.get().await.expect("a connection");
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (waiter, served) = (pool.clone(), served.clone());
        tasks.spawn(async move {
            let _connection = waiter.get().await.expect("a connection");
            served.send(n).expect("the test listens");
        });
        while pool.metrics().waiting <= n {
            tokio::task::yield_now().await;
        }
    }
    drop(held);
    tasks.join_all().await;
    for n in 0..20 {
        assert_eq!(order.recv().await, Some(n));
    }
}

#[tokio::test]
async fn the_error_after_the_deadline_says_who_holds_the_connections() {
    let database = support::database().await;
    let pool = database.pool(Settings { deadline: Duration::from_millis(500), ..settings(2) });
    let _one = pool.get().await.expect("a connection");
    let _other = pool.get().await.expect("a connection");
    let error = pool.get().await.expect_err("none is left");
    let text = error.to_string();
    assert!(text.starts_with("no connection within 500ms; 2 of 2 are held: 1 by tests/it/pool.rs:"), "{text}");
    let Error::Timeout { holders, .. } = error else { panic!("{error:?}") };
    assert_eq!(holders.iter().map(|holder| holder.at.file()).collect::<Vec<_>>(), ["tests/it/pool.rs"; 2]);
    assert_eq!(pool.metrics().timed_out, 1);
}

#[tokio::test]
async fn a_server_that_refuses_says_so_at_once_and_one_that_is_not_there_until_the_deadline() {
    let database = support::database().await;
    let began = Instant::now();
    let elsewhere =
        Pool::new(ConnectOptions::from(database.options().database("nowhere")).pooler(database.pooler()), settings(1));
    let error = elsewhere.get().await.expect_err("no database");
    assert!(format!("{error:?}").contains("nowhere\\\" does not exist"), "{error:?}");
    // PgBouncer 1.18 has one code for what may pass and for what does not.
    if database.pooler() == Pooler::Transaction || !support::is_pooled() {
        assert!(matches!(error, Error::Connect(_)), "{error:?}");
        assert!(began.elapsed() < Settings::default().deadline);
    }
    let absent = PgConnectOptions::new().host("127.0.0.1").port(1);
    let pool = Pool::new(absent, Settings { deadline: Duration::from_millis(100), ..settings(1) });
    let text = pool.get().await.expect_err("nobody listens").to_string();
    assert!(text.contains("cannot connect to ") && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_ends_at_once_not_at_the_next_use() {
    const ROUNDS: u64 = 30;
    let database = support::database().await;
    let pool = database.pool(settings(1));
    let mut watcher = database.connect().await;
    for _ in 0..ROUNDS {
        let mut connection = pool.get().await.expect("a connection");
        let mut transaction = connection.begin().await.expect("a transaction");
        sqlx::query("LOCK TABLE users").execute(&mut *transaction).await.expect("the lock");
        drop(transaction);
        drop(connection);
        // Waits for the lock to be gone: nobody else uses the pool.
        let mut other = watcher.begin().await.expect("a transaction");
        let lock = sqlx::raw_sql("SET LOCAL lock_timeout = '10s'; LOCK TABLE users").execute(&mut *other).await;
        lock.expect("it is free");
        other.rollback().await.expect("the rollback");
        assert!(is_clean(&mut pool.get().await.expect("a connection"), 1).await);
    }
    // A rollback that is answered in the same moment looks like the end of a COPY: the busier the machine, the more often.
    let metrics = pool.metrics();
    assert!(metrics.replaced < ROUNDS && metrics.opened == metrics.replaced + 1, "{metrics:?}");
}

#[tokio::test]
async fn the_next_borrower_finds_a_clean_session_wherever_the_last_one_was_dropped() {
    let database = support::database().await;
    let pool = database.pool(settings(1));
    let (mut dropped, mut marker) = (0, 0);
    for polls in 1.. {
        let work = async {
            let mut connection = pool.get().await.expect("a connection");
            let mut transaction = connection.begin().await.expect("a transaction");
            sqlx::query("CREATE TABLE left_behind ()").execute(&mut *transaction).await.expect("a table");
            sqlx::raw_sql("SELECT 1; SELECT pg_sleep(0.001); SELECT 2")
                .fetch_all(&mut *transaction)
                .await
                .expect("rows");
            let mut inner = transaction.begin().await.expect("a savepoint");
            sqlx::query("SELECT 1").execute(&mut *inner).await.expect("a row");
            inner.commit().await.expect("the release");
            transaction.rollback().await.expect("the rollback");
            let _: Vec<i32> =
                sqlx::query_scalar("SELECT generate_series(1, 9)").fetch_all(&mut *connection).await.expect("rows");
        };
        if dropped_after(polls, work).await.is_some() {
            break;
        }
        dropped += 1;
        marker += 1;
        let mut connection = pool.get().await.expect("a connection");
        assert!(is_clean(&mut connection, marker).await, "after {polls} polls");
        let left: Option<String> = sqlx::query_scalar("SELECT to_regclass('left_behind')::text")
            .fetch_one(&mut *connection)
            .await
            .expect("an answer");
        assert_eq!(left, None, "after {polls} polls");
    }
    // How many polls there are depends on how fast the server is.
    assert!(dropped > 0);
}

#[tokio::test]
async fn a_transaction_whose_begin_was_dropped_on_its_way_is_ended() {
    let database = support::database().await;
    let pool = database.pool(settings(1));
    let mut blocker = database.connect().await;
    for statement in ["BEGIN; LOCK TABLE users", "BEGIN; LOCK TABLE users; SELECT 1 / 0"] {
        let mut block = blocker.begin().await.expect("a transaction");
        sqlx::raw_sql("LOCK TABLE users").execute(&mut *block).await.expect("the lock");
        let mut connection = pool.get().await.expect("a connection");
        let asked = sqlx::raw_sql(statement).execute(&mut *connection);
        assert!(dropped_after(1, asked).await.is_none(), "{statement:?} waits for the lock");
        drop(connection);
        block.rollback().await.expect("the rollback");
        assert!(is_clean(&mut pool.get().await.expect("a connection"), 1).await, "{statement:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_dropped_gives_nobody_the_answer_of_somebody_else() {
    let database = support::database().await;
    let pool = database.pool(settings(1));
    let mut connection = pool.get().await.expect("a connection");
    sqlx::raw_sql("CREATE TABLE copied (i int)").execute(&mut *connection).await.expect("a table");
    let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await.expect("a copy");
    copy.send(&b"1\n"[..]).await.expect("a line");
    drop(copy);
    drop(connection);
    for n in 0..3 {
        assert!(is_clean(&mut pool.get().await.expect("a connection"), n * 10).await);
    }
    // The pool has no way to know of these.
    let mut connection = pool.get().await.expect("a connection");
    assert!(connection.copy_out_raw("COPY nowhere TO STDOUT").await.is_err());
    connection.discard();
    for n in 0..3 {
        assert!(is_clean(&mut pool.get().await.expect("a connection"), n * 10).await);
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.opened, metrics.replaced, metrics.in_use, metrics.size), (3, 1, 0, 1));
}

#[tokio::test]
async fn many_that_do_not_answer_cost_the_next_borrower_one_check() {
    let database = support::database().await.with_sessions();
    let deadline = Duration::from_secs(6);
    let pool = database.pool(Settings { deadline, ..settings(8) });
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(pool.get().await.expect("a connection"));
    }
    for connection in &mut held {
        let sleep = sqlx::raw_sql("SELECT pg_sleep(20)").execute(&mut **connection);
        assert!(dropped_after(1, sleep).await.is_none());
    }
    drop(held);
    // At a second each, the checks alone would take longer than the deadline.
    assert!(is_clean(&mut pool.get().await.expect("a connection"), 1).await);
    let metrics = pool.metrics();
    assert_eq!((metrics.checked, metrics.replaced, metrics.timed_out), (1, 8, 0));
}

#[tokio::test]
async fn after_a_cut_one_borrower_sees_an_error_and_the_others_get_fresh_connections() {
    // Behind a pooler there is no session before the first statement, so none to cut.
    let database = support::database().await.directly();
    let pool = database.pool(settings(5));
    let all = async || {
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(pool.get().await.expect("a connection"));
        }
        held
    };
    drop(all().await);
    let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(cut).execute(&mut database.connect().await).await.expect("the end of the others");
    let mut first = pool.get().await.expect("a connection that looks good");
    let error = sqlx::query("SELECT 1").execute(&mut *first).await.expect_err("the server hung up");
    assert!(matches!(error, sqlx::Error::Io(_) | sqlx::Error::Database(_)), "{error:?}");
    drop(first);
    for (n, connection) in all().await.iter_mut().enumerate() {
        assert!(is_clean(connection, i32::try_from(n).expect("few")).await);
    }
    assert_eq!(pool.metrics().opened, 10);
}

#[tokio::test]
async fn connections_are_checked_after_an_idle_while_and_replaced_when_they_are_old() {
    let database = support::database().await;
    let pool = database.pool(Settings { check_after: Duration::ZERO, ..settings(1) });
    for _ in 0..3 {
        drop(pool.get().await.expect("a connection"));
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.checked, metrics.opened), (2, 1));
    let pool = database.pool(Settings { max_lifetime: Duration::ZERO, ..settings(1) });
    for _ in 0..3 {
        drop(pool.get().await.expect("a connection"));
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.checked, metrics.opened, metrics.replaced), (0, 3, 2));
}

/// Runs this test in a process of its own, whose pools nobody else uses; false in that process.
fn runs_alone(test: &str) -> bool {
    const ALONE: &str = "CODERDB_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = alone.args(["--exact", test]).env(ALONE, "1").output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    true
}

/// What the library logs until the guard is dropped, on this thread.
fn logged() -> (tracing::subscriber::DefaultGuard, Arc<Mutex<Vec<u8>>>) {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("the log").write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (tracing::subscriber::set_default(subscriber), log.0)
}

/// Does both on each connection that there is: an operation of the library, and a statement of the service's own.
async fn list_and_own(pool: &Pool) -> Result<(), String> {
    #[derive(sqlx::Type)]
    #[sqlx(type_name = "mood", rename_all = "lowercase")]
    enum Mood {
        Good,
    }
    let (permit, page) = (support::read_jobs(uuid::Uuid::nil()), PageRequest::first(10));
    let held = [pool.get().await.expect("one"), pool.get().await.expect("the other")];
    for mut connection in held {
        let listed = store::jobs::list(&mut connection, &permit, &JobFilter::default(), page).await;
        listed.map_err(|error| format!("{error:?}"))?;
        for own in ["SELECT n FROM own WHERE $1 <> 'bad'", "SELECT $1::text"] {
            let own = sqlx::query(own).bind(Mood::Good).execute(&mut *connection).await;
            own.inspect_err(pool::tell).map_err(|error| format!("{error:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn connections_whose_statements_no_longer_fit_are_replaced_at_the_first_error() {
    if runs_alone("pool::connections_whose_statements_no_longer_fit_are_replaced_at_the_first_error") {
        return;
    }
    // PgBouncer has such statements on its own sessions: docs/operations.md.
    let database = support::database().await.directly();
    let pool = database.pool(settings(2));
    let mut admin = database.connect().await;
    let own = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE own (n int)";
    sqlx::raw_sql(own).execute(&mut admin).await.expect("what is the service's own");
    list_and_own(&pool).await.expect("nothing has changed");
    for (change, code) in [
        // As after `pg_restore --clean`: all tables and types have other numbers.
        ("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS coderdb CASCADE", "0A000"),
        ("ALTER TABLE own ALTER n TYPE bigint", "0A000"),
        ("DROP TYPE mood; CREATE TYPE mood AS ENUM ('good', 'bad')", "XX000"),
        ("", "26000"),
    ] {
        let (_guard, log) = logged();
        if change.is_empty() {
            let mut connection = pool.get().await.expect("a connection");
            sqlx::raw_sql("DEALLOCATE ALL").execute(&mut *connection).await.expect("an answer");
        } else {
            sqlx::raw_sql(change).execute(&mut admin).await.expect("the change");
        }
        if change.starts_with("DROP SCHEMA") {
            migrate::up(&mut admin, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
            sqlx::raw_sql(own).execute(&mut admin).await.expect("what is the service's own");
        }
        let before = pool.metrics();
        let error = list_and_own(&pool).await.expect_err("it is not what was prepared");
        assert!(error.contains(&format!("code: \"{code}\"")), "{change}: {error}");
        for _ in 0..3 {
            list_and_own(&pool).await.expect("new connections");
        }
        let after = pool.metrics();
        assert_eq!((after.opened - before.opened, after.replaced - before.replaced), (2, 2), "{change}");
        let log = String::from_utf8(log.lock().expect("the log").clone()).expect("a text");
        assert_eq!(log.matches("the schema has changed below a prepared statement").count(), 1, "{change}: {log}");
    }
}

#[tokio::test]
async fn a_closed_pool_serves_nobody() {
    let database = support::database().await;
    let pool = database.pool(settings(1));
    let held = pool.get().await.expect("a connection");
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    while pool.metrics().waiting == 0 {
        tokio::task::yield_now().await;
    }
    pool.close();
    assert!(matches!(waiter.await.expect("the task"), Err(Error::Closed)));
    drop(held);
    assert!(matches!(pool.get().await, Err(Error::Closed)));
    assert_eq!(pool.metrics().size, 0);
}

#[test]
fn a_pool_shows_no_password() {
    let options = PgConnectOptions::new().password("canary");
    let shown = format!("{:?}", Pool::new(options, Settings::default()));
    assert!(shown.contains("max_size: 10") && !shown.contains("canary"), "{shown}");
}
