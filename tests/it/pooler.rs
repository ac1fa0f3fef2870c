//! Through a PgBouncer that lends a session per transaction: every client may meet every session.

use std::{
    collections::HashSet,
    fmt::Write as _,
    future::poll_fn,
    pin::pin,
    sync::OnceLock,
    task::Poll,
    time::{Duration, Instant},
};

use coderdb::{
    connect::Options,
    model::JobStatus,
    pool::{self, Pool},
    pooler::Pooler,
    sqlx::{
        self, AssertSqlSafe, Connection, PgConnection,
        postgres::{PgConnectOptions, PgSslMode},
    },
    watch::{Change, Settings, Watcher},
};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    connect::certificates,
    jobs::{Rows, id},
    support::{self, Database, fails, pgbouncer::PgBouncer},
};

const LONG: Duration = Duration::from_secs(30);

/// Two sessions per database.
fn pgbouncer() -> &'static PgBouncer {
    static PGBOUNCER: OnceLock<PgBouncer> = OnceLock::new();
    PGBOUNCER.get_or_init(|| PgBouncer::start(Pooler::Transaction, 2))
}

fn options(database: &Database) -> PgConnectOptions {
    pgbouncer().options(database.name())
}

async fn connect(database: &Database) -> PgConnection {
    Pooler::Transaction.connect(&options(database)).await.expect("a connection")
}

fn pool(database: &Database, max_size: usize) -> Pool {
    let options = Options::from(options(database)).pooler(Pooler::Transaction);
    Pool::new(options, pool::Settings { max_size, deadline: LONG, ..pool::Settings::default() })
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
async fn moved(database: &Database, pooler: Pooler) -> sqlx::Result<i32> {
    const STATEMENT: &str = "SELECT $1 + pg_backend_pid() * 0";
    let connect = || async { pooler.connect(&options(database)).await.expect("a connection") };
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

#[tokio::test]
async fn a_statement_is_there_on_whatever_session_it_meets_and_with_the_driver_alone_it_is_not() {
    let database = support::database().await;
    let alone = moved(&database, Pooler::Session).await.expect_err("it was prepared on the other session");
    assert_eq!(code(&alone), "26000", "{alone}");
    let database = support::database().await;
    assert_eq!(moved(&database, Pooler::Transaction).await.expect("the statement"), 2);
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
                // The same names for different statements, of different types, some of them without a name.
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
                    2 => {
                        let query = sqlx::query_scalar::<_, i64>(sql).persistent(false);
                        let found = query.bind(i64::from(n)).fetch_one(&mut conn).await.expect("the number");
                        assert_eq!(found, i64::from(n));
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
    let statements = "SELECT count(*) FROM pg_prepared_statements";
    let named: i64 = sqlx::query_scalar(statements).fetch_one(&mut connect(&database).await).await.expect("a count");
    assert_eq!(named, 0, "nothing with a name reaches the server");
}

#[tokio::test]
async fn an_error_is_that_of_its_statement_and_the_next_one_works() {
    let database = support::database().await;
    let mut conn = connect(&database).await;
    execute(&mut conn, "CREATE TABLE t (i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)").await;
    for n in 0..5 {
        for (sql, expected) in [
            ("SELECT 1 / $1", "22012"),
            ("SELEC $1", "42601"),
            ("SELECT $1 FROM nowhere", "42P01"),
            ("INSERT INTO t SELECT $1 FROM generate_series(1, 2)", "23505"),
            ("SELECT 1 / (3 - i) + $1 FROM generate_series(1, 5) AS i", "22012"),
        ] {
            let error = sqlx::query(sql).bind(0).execute(&mut conn).await.expect_err(sql);
            assert_eq!(code(&error), expected, "{sql}");
            assert_eq!(sum(&mut conn, n, 40).await, n + 40, "after {sql}");

            let mut transaction = conn.begin().await.expect("a transaction");
            let found = sqlx::query(sql).bind(0).execute(&mut *transaction).await;
            // A deferred constraint is looked at at the end.
            assert_eq!(found.is_ok(), expected == "23505", "{sql}");
            if expected != "23505" {
                let aborted = sqlx::query("SELECT $1").bind(1).execute(&mut *transaction).await.expect_err("aborted");
                assert_eq!(code(&aborted), "25P02");
            }
            transaction.rollback().await.expect("the rollback");
            assert_eq!(sum(&mut conn, n, 41).await, n + 41, "after {sql} in a transaction");
        }
        let error = sqlx::raw_sql("SELECT 1; SELECT 1 / 0; SELECT 2").fetch_all(&mut conn).await.expect_err("zero");
        assert_eq!(code(&error), "22012");
        // A statement that fails to be prepared again, and can be prepared when its table is back.
        let select = "SELECT count(*) FROM there WHERE $1";
        execute(&mut conn, "CREATE TABLE there ()").await;
        let count = || sqlx::query_scalar::<_, i64>(select).bind(true);
        assert_eq!(count().fetch_one(&mut conn).await.expect("a count"), 0);
        execute(&mut conn, "ALTER TABLE there RENAME TO elsewhere").await;
        assert_eq!(code(&count().fetch_one(&mut conn).await.expect_err("it is elsewhere")), "42P01");
        execute(&mut conn, "ALTER TABLE elsewhere RENAME TO there; INSERT INTO there DEFAULT VALUES").await;
        assert_eq!(count().fetch_one(&mut conn).await.expect("a count"), 1);
        execute(&mut conn, "DROP TABLE there").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_stay_on_their_session() {
    const CLIENTS: i64 = 40;
    let database = support::database().await;
    let mut conn = connect(&database).await;
    execute(&mut conn, "CREATE TABLE account (id int, amount bigint); INSERT INTO account VALUES (1, 1000), (2, 0)")
        .await;
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let options = options(&database);
        clients.spawn(async move {
            let mut conn = Pooler::Transaction.connect(&options).await.expect("a connection");
            for keeps in [true, false] {
                let mut transaction = conn.begin().await.expect("a transaction");
                let sql = "UPDATE account SET amount = amount + $2 WHERE id = $1";
                for (id, amount) in [(1, -n), (2, n)] {
                    let mut part = transaction.begin().await.expect("a savepoint");
                    sqlx::query(sql).bind(id).bind(amount).execute(&mut *part).await.expect("a row");
                    part.commit().await.expect("the release");
                }
                let pids = "SELECT pg_backend_pid() + $1 * 0";
                let pid = sqlx::query_scalar::<_, i32>(pids).bind(0).fetch_one(&mut *transaction).await.expect("a pid");
                let again = sqlx::query_scalar::<_, i32>(pids).bind(0).fetch_one(&mut *transaction).await;
                assert_eq!(again.expect("a pid"), pid);
                if keeps {
                    transaction.commit().await.expect("the commit");
                } else {
                    // Rolled back by the driver with the next statement, of which there is one or none.
                    drop(transaction);
                    if n % 2 == 0 {
                        assert_eq!(sum(&mut conn, 1, 2).await, 3);
                    }
                }
            }
        });
    }
    clients.join_all().await;
    let amounts: Vec<i64> = sqlx::query_scalar("SELECT amount FROM account WHERE $1 ORDER BY id")
        .bind(true)
        .fetch_all(&mut conn)
        .await
        .expect("the amounts");
    let moved = CLIENTS * (CLIENTS - 1) / 2;
    assert_eq!(amounts, [1000 - moved, moved]);
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
async fn whoever_ends_in_the_middle_of_its_questions_leaves_no_answer_to_somebody_else() {
    let database = support::database().await;
    // One session: whoever comes next gets it.
    let pgbouncer = PgBouncer::start(Pooler::Transaction, 1);
    let options = pgbouncer.options(database.name());
    let connect = async || Pooler::Transaction.connect(&options).await.expect("a connection");
    execute(&mut connect().await, "CREATE TABLE copied (i int)").await;
    let mut conn = connect().await;
    let mut copy = conn.copy_in_raw("COPY copied FROM STDIN").await.expect("a copy");
    copy.send(&b"1\n"[..]).await.expect("a line");
    drop(copy);
    // The driver does not know that the copy has an end to come, and asks the next thing.
    let slow = sqlx::raw_sql("SELECT pg_sleep(0.2), 'of somebody else'").execute(&mut conn).await;
    assert_eq!(code(&slow.expect_err("the end of the copy")), "57014");
    drop(conn);
    let mut next = connect().await;
    for n in 0..3 {
        assert_eq!(sum(&mut next, 20, n).await, 20 + n);
    }
}

#[tokio::test]
async fn copies_go_through_also_those_that_fail_or_are_given_up() {
    let database = support::database().await;
    let mut conn = connect(&database).await;
    execute(&mut conn, "CREATE TABLE t (i int, s text)").await;
    let mut expected = 0;
    for _ in 0..2 {
        let mut lines = String::new();
        for n in 0..50_000 {
            writeln!(lines, "{n}\ta text that is a little longer than the number").expect("a line");
        }
        let mut copy = conn.copy_in_raw("COPY t FROM STDIN").await.expect("a copy");
        copy.send(lines.as_bytes()).await.expect("the lines");
        assert_eq!(copy.finish().await.expect("the end"), 50_000);
        expected += 50_000;

        let mut copy = conn.copy_in_raw("COPY t FROM STDIN").await.expect("a copy");
        copy.send(&b"no number\tx\n"[..]).await.expect("a line");
        assert_eq!(code(&copy.finish().await.expect_err("no number")), "22P02");
        // The driver is out of step after that: the connection goes, too.
        let mut given_up = connect(&database).await;
        let mut copy = given_up.copy_in_raw("COPY t FROM STDIN").await.expect("a copy");
        copy.send(&b"1\tx\n"[..]).await.expect("a line");
        drop(copy);
        drop(given_up);

        let count = "SELECT count(*) FROM t WHERE $1";
        let count: i64 = sqlx::query_scalar(count).bind(true).fetch_one(&mut conn).await.expect("a count");
        assert_eq!(count, expected);
        let mut length = 0;
        let mut copy = conn.copy_out_raw("COPY t TO STDOUT").await.expect("a copy");
        while let Some(chunk) = std::future::poll_fn(|context| copy.as_mut().poll_next(context)).await {
            length += chunk.expect("a chunk").len();
        }
        drop(copy);
        assert_eq!(length, usize::try_from(expected).expect("a size") / 50_000 * lines.len());
        assert_eq!(sum(&mut conn, 1, 2).await, 3);
    }
}

#[tokio::test]
async fn what_is_larger_than_any_buffer_goes_through_in_both_directions() {
    let database = support::database().await;
    let mut conn = connect(&database).await;
    for length in [0, 1, 16_383, 16_384, 16_385, 65_536, 20_000_000] {
        let text = "x".repeat(length);
        let query = sqlx::query_as::<_, (String, i32)>("SELECT $1 || $2, length($1)");
        let (both, found) = query.bind(&text).bind("y").fetch_one(&mut conn).await.expect("the texts");
        assert_eq!((both.len(), usize::try_from(found)), (length + 1, Ok(length)));
    }
    // A statement, too.
    let long = format!("SELECT $1 + {}1", "0 + ".repeat(300)) + &" ".repeat(1_000_000);
    for n in 0..3 {
        let found: i32 =
            sqlx::query_scalar(AssertSqlSafe(long.clone())).bind(n).fetch_one(&mut conn).await.expect("a sum");
        assert_eq!(found, n + 1);
    }
}

#[tokio::test]
async fn more_statements_than_the_driver_remembers_are_forgotten_and_prepared_again() {
    let database = support::database().await;
    let mut conn = connect(&database).await;
    for _ in 0..2 {
        for n in 0..250 {
            let sql = AssertSqlSafe(format!("SELECT $1 + {n}"));
            let found: i32 = sqlx::query_scalar(sql).bind(1).fetch_one(&mut conn).await.expect("a sum");
            assert_eq!(found, n + 1);
        }
        assert_eq!(conn.cached_statements_size(), 100);
    }
    conn.clear_cached_statements().await.expect("an answer");
    assert_eq!(sum(&mut conn, 1, 2).await, 3);
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
    assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");
    assert_eq!(sum(&mut connect(&database).await, 1, 2).await, 3);
}

#[tokio::test]
async fn a_pool_gets_over_a_pooler_that_is_restarted() {
    let database = support::database().await;
    let pgbouncer = PgBouncer::start(Pooler::Transaction, 2);
    let settings = pool::Settings { max_size: 4, deadline: LONG, ..Default::default() };
    let pool = Pool::new(Options::from(pgbouncer.options(database.name())).pooler(Pooler::Transaction), settings);
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

/// The sockets of connections that are on their way, of all tests of this process.
fn sockets() -> HashSet<String> {
    let prefix = format!("coderdb-{}-", std::process::id());
    let names = std::fs::read_dir(std::env::temp_dir()).expect("a directory");
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

#[tokio::test]
async fn a_connection_that_ends_leaves_no_task_and_no_file_behind() {
    let database = support::database().await;
    let pgbouncer = PgBouncer::start(Pooler::Transaction, 2);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let none_is_left = async || {
        let (began, mut left) = (Instant::now(), sockets());
        while tasks() > 0 || !left.is_empty() {
            assert!(began.elapsed() < LONG, "{} tasks, {left:?}", tasks());
            tokio::task::yield_now().await;
            // Those of other tests go, too, and others come.
            left = &left & &sockets();
        }
    };
    let options = pgbouncer.options(database.name());
    let connect = || async { Pooler::Transaction.connect(&options).await.expect("a connection") };
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(connect().await);
    }
    assert_eq!(tasks(), 10);
    // Closed; dropped; dropped in the middle of an answer, and of a transaction.
    for (n, mut conn) in connections.into_iter().enumerate() {
        match n % 4 {
            0 => conn.close().await.expect("a clean end"),
            1 => {}
            2 => {
                let rows = sqlx::query("SELECT repeat('x', $1) FROM generate_series(1, 1000)").bind(10_000);
                assert!(dropped_after(1, rows.fetch_all(&mut conn)).await.is_none());
            }
            _ => drop(conn.begin().await.expect("a transaction")),
        }
    }
    none_is_left().await;
    // Refused, and given up on its way.
    let refused = options.clone().username("nobody");
    Pooler::Transaction.connect(&refused).await.expect_err("no such user");
    for polls in 1.. {
        if dropped_after(polls, Pooler::Transaction.connect(&options)).await.is_some() {
            break;
        }
    }
    none_is_left().await;
    // The pooler hangs up.
    let idle = connect().await;
    drop(pgbouncer);
    none_is_left().await;
    drop(idle);
}

#[tokio::test]
async fn what_is_not_possible_is_refused_in_words_that_say_what_is() {
    for mode in [PgSslMode::Allow, PgSslMode::Prefer, PgSslMode::Require, PgSslMode::VerifyCa] {
        let options = PgConnectOptions::new().host("127.0.0.1").port(1).ssl_mode(mode).password("canary");
        let error = Pooler::Transaction.connect(&options).await.expect_err("no such mode").to_string();
        assert!(error.contains("sslmode must be") && !error.contains("canary"), "{error}");
    }
    let options = PgConnectOptions::new().host("127.0.0.1").port(1).ssl_mode(PgSslMode::Disable);
    let error = Pooler::Transaction.connect(&options).await.expect_err("nobody listens");
    assert!(matches!(&error, sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused), "{error:?}");
}

#[tokio::test]
async fn over_tcp_it_is_encrypted_with_whom_the_certificate_names_and_with_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = std::process::id();
    // Addresses of this machine that no other run of the tests has.
    let [here, there] = [3, 4].map(|n| format!("127.{}.{}.{n}", pid >> 8 & 0xff, pid & 0xff));
    let (trusted, certificate, key) = certificates(directory.path(), &here);
    let (stranger, ..) = certificates(directory.path(), "stranger.example");
    let _pgbouncer = PgBouncer::start_with_tls(&format!("{here},{there}"), &certificate, &key);
    let database = support::empty_database().await;
    let connect = async |host: &str, tls: &str| {
        let url = format!("postgres://postgres@{host}/{}?{tls}", database.name());
        url.parse::<Options>().expect("a URL").pooler(Pooler::Transaction).connect().await
    };
    let verify = format!("sslmode=verify-full&sslrootcert={trusted}");
    let mut conn = connect(&here, &verify).await.expect("a connection");
    assert_eq!(sum(&mut conn, 1, 2).await, 3);
    for (host, tls, says) in [
        (&*there, verify.clone(), "NotValidForName"),
        (&*here, format!("sslmode=verify-full&sslrootcert={stranger}"), "InvalidCertificate"),
        (&*here, "sslmode=verify-full".to_owned(), "UnknownIssuer"),
        (&*here, "sslmode=verify-full&sslrootcert=/nowhere".to_owned(), "/nowhere"),
        (&*here, format!("{verify}&sslcert={trusted}"), "without a client's certificate"),
        (&*here, "sslmode=require".to_owned(), "sslmode must be disable or verify-full"),
        (&*here, "sslmode=disable".to_owned(), "SSL required"),
    ] {
        let error = connect(host, &tls).await.expect_err(&tls);
        assert!(format!("{error:?}").contains(says), "{tls}: {error:?}");
    }
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
    let listens = Settings { poll: Duration::from_hours(1), ..Settings::default() };
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
