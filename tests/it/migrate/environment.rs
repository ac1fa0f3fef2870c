//! Servers, roles and connections that a run cannot use, and what is said of it; and every exit code.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use coderdb::{
    connect,
    migrate::{self, Error, MigrateOptions, Outcome},
    sqlx::{self, Connection, PgConnection},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use super::{Program, Set, ask, clear, empty, run, until};
use crate::support::{
    self, Database, fails,
    proxy::{Cut, Proxy},
    streaming::Streaming,
};

pub(super) fn one() -> Set {
    Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")])
}

/// A role that may log in, and nothing else.
pub(super) async fn role(conn: &mut PgConnection, database: &Database, name: &str, more: &str) -> String {
    let name = format!("{}_{name}", database.name());
    run(conn, &format!("CREATE ROLE {name} LOGIN {more}")).await;
    name
}

/// Ends the role, whatever it owns and may do.
pub(super) async fn drop_role(conn: &mut PgConnection, name: &str) {
    run(conn, &format!("DROP OWNED BY {name}; DROP ROLE {name}")).await;
}

pub(super) fn url_as(database: &Database, role: &str) -> String {
    support::server().url(database.name()).replace("postgres@", &format!("{role}@"))
}

pub(super) fn with_url(url: &str, args: &[&str]) -> assert_cmd::Command {
    let mut command = support::coderdb();
    command.env("DATABASE_URL", url).arg("migrate").args(args);
    command
}

#[tokio::test]
async fn a_role_that_may_create_nothing_is_told_so_before_anything_is_done() {
    let (database, mut conn) = empty().await;
    run(&mut conn, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let role = role(&mut conn, &database, "poor", "").await;
    let set = one();
    let url = url_as(&database, &role);
    let from = set.path().to_str().unwrap().to_owned();
    let mut up = with_url(&url, &["up", "--from", &from]);
    let database_right = format!("CREATE on the database {}, for the schema coderdb", database.name());
    fails(&mut up, 14, &[&role, "CREATE on the schema public", &database_right]);
    // Nor when there is no schema at all to create anything in.
    let mut up = with_url(&format!("{url}&options=-c%20search_path%3Dnowhere"), &["up", "--from", &from]);
    fails(&mut up, 14, &["no schema has been selected to create in"]);
    // Nor when the history is there, but not for this role.
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__two", "CREATE TABLE two (a integer)");
    run(&mut conn, &format!("GRANT CREATE ON SCHEMA public TO {role}")).await;
    let tables = ["SELECT and INSERT on coderdb.refinery_schema_history", "SELECT and INSERT on coderdb.migration_log"];
    fails(&mut with_url(&url, &["up", "--from", &from]), 14, &tables);
    run(&mut conn, &format!("GRANT ALL ON coderdb.refinery_schema_history, coderdb.migration_log TO {role}")).await;
    // What can be done before the table of somebody else is not done.
    set.write("V0002__two", "CREATE TABLE two ()");
    set.write("V0003__three", "CREATE INDEX one_a ON one (a)");
    set.write("V0004__four", "ALTER TABLE IF EXISTS ONLY one ADD COLUMN b integer");
    fails(&mut with_url(&url, &["up", "--from", &from]), 14, &["to own one, as a member of postgres"]);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NULL").await);
    // A member of the owner is one.
    run(&mut conn, &format!("CREATE ROLE {role}_owner ROLE {role}; ALTER TABLE one OWNER TO {role}_owner")).await;
    run(&mut conn, &format!("GRANT CREATE ON SCHEMA public TO {role}_owner")).await;
    let applied = support::run(&mut with_url(&url, &["up", "--from", &from]));
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    // What only the server knows is refused by it.
    set.write("V0005__five", "DO $$ BEGIN ALTER TABLE pg_catalog.pg_class ADD COLUMN b integer; END $$");
    fails(
        &mut with_url(&url, &["up", "--from", &from]),
        14,
        &["[42501]", "must be owner of table pg_class", "rolled back"],
    );
    drop_role(&mut conn, &format!("{role}_owner")).await;
    drop_role(&mut conn, &role).await;
}

#[tokio::test]
async fn a_role_that_may_only_read_sees_what_is_pending_and_plan_and_status_write_nothing() {
    let (database, mut conn) = empty().await;
    let set = one();
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__two", "CREATE TABLE two (a integer)");
    let role = role(&mut conn, &database, "reader", "IN ROLE pg_read_all_data").await;
    run(&mut conn, &format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    let from = set.path().to_str().unwrap();
    for (args, code) in [
        (&["status"][..], 0),
        (&["status", "--exit-code"], 3),
        (&["check"], 3),
        (&["plan"], 0),
        (&["plan", "--sql"], 0),
        (&["history"], 0),
    ] {
        let outcome = support::run(with_url(&url_as(&database, &role), args).args(["--from", from]));
        assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
    }
    fails(with_url(&url_as(&database, &role), &["up"]).args(["--from", from]), 14, &["may only read"]);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NULL").await);
    drop_role(&mut conn, &role).await;
}

#[tokio::test]
async fn plan_status_check_and_history_send_nothing_but_select_in_read_only_transactions() {
    let server = Streaming::start(0, "DROP SCHEMA public, coderdb CASCADE; CREATE SCHEMA public").await.primary;
    let data = server.socket().parent().unwrap().to_owned();
    let url = format!("{}&options=-c%20log_statement%3Dall", connect_url(&data));
    for args in [&["plan"][..], &["plan", "--sql"], &["status"], &["check"], &["history"], &["plan", "-o", "json"]] {
        let outcome = support::run(&mut with_url(&url, args));
        assert!([0, 3].contains(&outcome.code), "{args:?}: {}", outcome.stderr);
    }
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    let is_statement = |said: &str| said.starts_with("statement: ") || said.starts_with("execute ");
    let said =
        |line: &str| line.split_once("LOG:  ").map(|(_, said)| said.to_owned()).filter(|said| is_statement(said));
    let statements: Vec<_> = log.lines().filter_map(said).collect();
    assert!(statements.len() >= 12, "{log}");
    for statement in statements {
        let sql = statement.split_once(": ").unwrap().1;
        // What is asked when it connects, in one message, too.
        if sql.starts_with("SET TRANSACTION ISOLATION LEVEL READ COMMITTED;SELECT pg_is_in_recovery()") {
            continue;
        }
        // One message: what holds for its own transaction, and what it asks.
        let parts: Vec<_> = sql.split("; ").map(|part| part.split_whitespace().next().unwrap_or_default()).collect();
        assert_eq!(parts, ["SET", "SELECT", "SELECT"], "{sql}");
        assert!(sql.starts_with("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY;"), "{sql}");
    }
}

#[tokio::test]
async fn a_session_that_is_read_only_by_default_is_refused_and_waits_for_no_lock() {
    let (database, _conn) = empty().await;
    let mut holder = database.connect().await;
    run(&mut holder, "SELECT pg_advisory_lock(x'636f6465726462'::bigint)").await;
    let url = format!("{}&options=-c%20default_transaction_read_only%3Don", database.url());
    let set = one();
    let from = set.path().to_str().unwrap();
    fails(&mut with_url(&url, &["up", "--from", from]), 14, &["default_transaction_read_only is on"]);
}

#[tokio::test]
async fn on_a_standby_everything_reads_and_nothing_migrates() {
    let mut streaming = Streaming::start(1, "").await;
    let standby = connect_url(streaming.standby().socket().parent().unwrap());
    for args in [&["status", "--exit-code"][..], &["check"], &["plan"], &["up"], &["history"]] {
        let outcome = support::run(&mut with_url(&standby, args));
        assert_eq!(outcome.code, 0, "{args:?}: {}", outcome.stderr);
    }
    let behind = Set::of(&[("V0001__one", "SELECT 1")]);
    let from = behind.path().to_str().unwrap();
    streaming.primary.run(&["DELETE FROM coderdb.refinery_schema_history"]).await;
    streaming.standby().until("SELECT count(*) = 0 FROM coderdb.refinery_schema_history").await;
    fails(&mut with_url(&standby, &["up", "--from", from]), 14, &["is a standby; migrate on the primary"]);
}

fn connect_url(socket_directory: &std::path::Path) -> String {
    let directory = socket_directory.display().to_string().replace('/', "%2F");
    format!("postgres://postgres@localhost/postgres?host={directory}")
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_again() {
    let (database, mut conn) = empty().await;
    let role = format!("{}_locked", database.name());
    support::role_with_password(&mut conn, &role, "right").await;
    let url = database.url_as(&role, "wr0ng");
    // It would wait for an hour.
    let mut program = Program::spawn(&url, &["migrate", "up", "--wait-timeout", "1h"]);
    assert_eq!(program.ends().await, 2);
    assert!(program.said.contains("password authentication failed") && !program.said.contains("wr0ng"));
    assert!(!program.said.contains("waiting"), "{}", program.said);
    drop_role(&mut conn, &role).await;
}

/// Says once that the server starts, and leads to it from then on.
fn starting(database: &Database) -> (String, tempfile::TempDir) {
    const SOCKET: &str = ".s.PGSQL.5432";
    let server = database.options().get_socket().unwrap().join(SOCKET);
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
    tokio::spawn(async move {
        let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let (mut first, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 8];
        first.read_exact(&mut greeting).await.unwrap();
        first
            .write_all(&[b"E", &u32::try_from(fields.len() + 4).unwrap().to_be_bytes()[..], fields].concat())
            .await
            .unwrap();
        drop(first);
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = UnixStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let host = directory.path().display().to_string().replace('/', "%2F");
    (format!("postgres://postgres@localhost/{}?host={host}&sslmode=disable", database.name()), directory)
}

#[tokio::test]
async fn a_database_that_starts_is_waited_for() {
    let (database, mut conn) = empty().await;
    let (url, _directory) = starting(&database);
    let set = one();
    let mut program = set.spawn(&url, &[]);
    let said = program.says("waiting for the database").await;
    assert!(said.contains("starting up"), "{said}");
    assert_eq!(program.ends().await, 0, "{}", program.said);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one') IS NOT NULL").await);
    // And no longer than it is told.
    let (url, _directory) = starting(&database);
    let mut program = Program::spawn(&url, &["migrate", "status", "--wait-timeout", "0s"]);
    assert_eq!(program.ends().await, 4, "{}", program.said);
}

#[tokio::test]
async fn a_server_without_room_is_waited_for() {
    let (database, mut conn) = empty().await;
    run(&mut conn, &format!("ALTER DATABASE {} CONNECTION LIMIT 0", database.name())).await;
    let role = role(&mut conn, &database, "crowd", "SUPERUSER").await;
    // A limit holds for those who are no superusers.
    run(&mut conn, &format!("ALTER ROLE {role} NOSUPERUSER; GRANT CREATE ON SCHEMA public TO {role}")).await;
    run(&mut conn, &format!("GRANT CREATE ON DATABASE {} TO {role}", database.name())).await;
    let set = one();
    let mut program = set.spawn(&url_as(&database, &role), &[]);
    let said = program.says("waiting for the database").await;
    assert!(said.contains("too many connections"), "{said}");
    run(&mut conn, &format!("ALTER DATABASE {} CONNECTION LIMIT -1", database.name())).await;
    assert_eq!(program.ends().await, 0, "{}", program.said);
    drop_role(&mut conn, &role).await;
}

#[tokio::test]
async fn without_room_for_a_second_connection_it_does_without() {
    let (database, mut conn) = empty().await;
    let role = role(&mut conn, &database, "single", "CONNECTION LIMIT 1").await;
    run(&mut conn, &format!("GRANT CREATE ON SCHEMA public TO {role}")).await;
    run(&mut conn, &format!("GRANT CREATE ON DATABASE {} TO {role}", database.name())).await;
    let outcome = support::run(with_url(&url_as(&database, &role), &["up", "-o", "json", "--from"]).arg(one().path()));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("\"delay_milliseconds\": null"), "{}", outcome.stdout);
    drop_role(&mut conn, &role).await;
}

#[tokio::test]
async fn a_full_disk_is_an_unfit_environment_and_nothing_is_left() {
    let (database, mut conn) = empty().await;
    // What the server gets from a full disk, from the one that every machine has.
    let full = "CREATE TABLE one (a integer); COPY (SELECT repeat('x', 100000)) TO '/dev/full'";
    let set = Set::of(&[("V0001__full", full)]);
    fails(&mut set.up(&database), 14, &["[53100]", "No space left on device", "rolled back"]);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one') IS NULL").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_looked_up_and_if_nobody_can_be_asked_that_is_said_in_time() {
    let (database, mut observer) = empty().await;
    let there = Some(connect::ConnectOptions::from(database.options()));
    let nowhere = Some("postgres://nobody@127.0.0.1:1/db".parse().unwrap());
    for (observing, expected) in [(there, Outcome::Committed), (None, Outcome::Unknown), (nowhere, Outcome::Unknown)] {
        let (mut lost_commits, mut n) = (0, 0);
        loop {
            n += 1;
            clear(&mut observer).await;
            let proxy = Proxy::to(&database);
            let mut conn = proxy.connect_options().connect().await.unwrap();
            let options = MigrateOptions { observer: observing.clone(), ..one().options(&database) };
            proxy.cut(Cut::BeforeItsAnswer(n));
            let start = Instant::now();
            match migrate::up(&mut conn, &options, |_| {}).await {
                Err(Error::LostCommit(lost)) => {
                    lost_commits += 1;
                    assert_eq!(lost.outcome, expected);
                    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
                    assert!(ask::<bool>(&mut observer, "SELECT to_regclass('one') IS NOT NULL").await);
                }
                Err(Error::Unavailable(_)) => {}
                // The unlock was cut, or nothing was.
                Ok(_) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
        // A second one where a run repeated a step before, on a busy machine.
        assert_ne!(lost_commits, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_does_not_keep_the_program_from_ending() {
    let (database, mut conn) = empty().await;
    let proxy = Proxy::to(&database);
    let set = Set::of(&[("V0001__slow", "CREATE TABLE one (); SELECT pg_advisory_xact_lock(7)")]);
    run(&mut conn, "SELECT pg_advisory_lock(7)").await;
    let mut program = set.spawn(proxy.url(), &["--grace", "0s", "--lock-timeout", "1h", "--max-stall", "none"]);
    until(
        &mut conn,
        "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    proxy.black_hole(true);
    program.signal("TERM");
    assert_eq!(program.ends().await, 143, "{}", program.said);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one') IS NULL").await);
}

#[tokio::test]
async fn a_database_without_a_history_or_with_an_older_one_is_brought_up_again() {
    // The history was dropped: what is there is in the way, and nothing is changed.
    let set = one();
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    run(&mut conn, "DROP TABLE coderdb.refinery_schema_history").await;
    fails(&mut set.up(&database), 10, &["[42P07]", "relation \"one\" already exists"]);
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await, 0);
    let from = set.path().to_str().unwrap();
    let repair = ["migrate", "repair", "mark-applied", "1", "--yes", "--from", from];
    assert_eq!(support::run(database.coderdb().args(repair)).code, 0);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);

    // A dump of an older version was restored: what is newer is applied again.
    set.write(
        "V0002__two",
        "-- coderdb: no-transaction\nCREATE TABLE two (); CREATE INDEX CONCURRENTLY one_a ON one (a);",
    );
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    run(
        &mut conn,
        "DROP TABLE two; DROP INDEX one_a; DELETE FROM coderdb.refinery_schema_history WHERE version = 2; \
                    DELETE FROM coderdb.migration_log WHERE version = 2",
    )
    .await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NOT NULL AND to_regclass('one_a') IS NOT NULL").await);
    // Also when the log is newer than the history, as when only that was put back.
    run(&mut conn, "DROP TABLE two; DROP INDEX one_a; DELETE FROM coderdb.refinery_schema_history WHERE version = 2")
        .await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NOT NULL AND to_regclass('one_a') IS NOT NULL").await);
}

#[tokio::test]
async fn a_deadlock_with_the_application_is_tried_again() {
    let (database, mut conn) = empty().await;
    let set = Set::of(&[("V0001__base", "CREATE TABLE a (i integer)")]);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__both", "ALTER TABLE a ADD COLUMN j integer; SELECT pg_advisory_xact_lock(7)");
    let mut other = database.connect().await;
    run(&mut other, "BEGIN; SET LOCAL deadlock_timeout = '1h'; SELECT pg_advisory_xact_lock(7)").await;
    // Nobody looks and gives way, and nothing times out: only the server finds the deadlock.
    let mut victim = database.connect().await;
    let options = MigrateOptions {
        observer: None,
        max_stall: None,
        lock_timeout: Duration::from_hours(1),
        ..set.options(&database)
    };
    let up = tokio::spawn(async move {
        let mut retries = 0;
        let applied = migrate::up(&mut victim, &options, |event| {
            retries += u32::from(matches!(event, migrate::Event::Retrying { .. }));
        })
        .await;
        (applied.map(|applied| applied.len()), retries)
    });
    support::settled(&up, &mut conn, 1).await;
    let other_half = tokio::spawn(async move {
        // Waits for the migration, which waits for this one.
        let waits = sqlx::raw_sql("LOCK TABLE a IN ACCESS SHARE MODE; COMMIT");
        waits.execute(&mut other).await.map(drop).map_err(|error| error.to_string())
    });
    let (applied, retries) = up.await.unwrap();
    other_half.await.unwrap().unwrap();
    assert_eq!((applied.unwrap(), retries > 0), (1, true));
}

/// Every code of the contract, each with one way to it.
#[tokio::test]
async fn the_exit_codes() {
    let mut table = String::new();
    let mut row = |what: &str, outcome: support::Outcome| {
        let _ = writeln!(table, "{:>3}  {what}", outcome.code);
    };
    let (database, mut conn) = empty().await;
    let set = one();
    let from = set.path().to_str().unwrap().to_owned();
    let migrate = |args: &[&str]| support::run(database.coderdb().arg("migrate").args(args).args(["--from", &from]));
    let nowhere = |url: &str| support::run(&mut with_url(url, &["status", "--wait-timeout", "0s"]));

    row("check: pending", migrate(&["check"]));
    row("status --exit-code: pending", migrate(&["status", "--exit-code"]));
    row("status: pending", migrate(&["status"]));
    row("plan", migrate(&["plan"]));
    run(&mut conn, "SELECT pg_advisory_lock(x'636f6465726462'::bigint)").await;
    row("up: another runner has the lock", migrate(&["up", "--runner-lock-timeout", "0s"]));
    run(&mut conn, "SELECT pg_advisory_unlock_all()").await;
    row("up: applied", migrate(&["up"]));
    row("up: nothing to do", migrate(&["up"]));
    row("check: fits", migrate(&["check"]));
    row("up: an unknown target", migrate(&["up", "--target", "9"]));
    row("up: a wrong argument", migrate(&["up", "--grace", "soon"]));
    row("repair without --yes", migrate(&["repair", "accept", "1"]));
    row("status: unreachable", nowhere("postgres://nobody@127.0.0.1:1/db"));
    row("status: a wrong URL", nowhere("mysql://nobody@127.0.0.1:1/db"));

    let mut reader = database.connect().await;
    run(&mut reader, "BEGIN; LOCK TABLE one IN ACCESS SHARE MODE").await;
    set.write("V0002__two", "ALTER TABLE one ADD COLUMN b integer");
    row("up: no table lock", migrate(&["up", "--lock-patience", "300ms"]));
    reader.close().await.unwrap();
    set.write("V0002__two", "ALTER TABLE one ADD COLUMN b intt");
    row("up: refused, rolled back", migrate(&["up"]));
    set.write("V0002__two", "-- coderdb: no-transaction\nCREATE TABLE two (); ALTER TABLE one ADD COLUMN b intt");
    row("up: refused, partly applied", migrate(&["up"]));
    set.write("V0002__two", "-- coderdb: no-transaction\nCREATE TABLE zwei (); ALTER TABLE one ADD COLUMN b integer");
    row("up: edited midway", migrate(&["up"]));
    set.write("V0002__two", "ALTER TABLE pg_catalog.pg_class ADD COLUMN b integer");
    run(&mut conn, "DELETE FROM coderdb.migration_log").await;
    row("up: no privilege", migrate(&["up"]));
    set.write("V0001__one", "SELECT 1");
    row("up: an edited file", migrate(&["up"]));
    row("check: an edited file", migrate(&["check"]));
    set.write("V0001__one", "COMMIT");
    row("up: a file that is no migration", migrate(&["up"]));
    set.write("V0001__one", "CREATE TABLE one (a integer)");
    run(&mut conn, "INSERT INTO coderdb.refinery_schema_history VALUES (2, 'two', '2026-01-01T00:00:00Z', '1'), (3, 'breaking_three', '2026-01-01T00:00:00Z', '1')").await;
    std::fs::remove_file(set.path().join("V0002__two.sql")).unwrap();
    row("up: too new", migrate(&["up"]));
    row("check: too new", migrate(&["check"]));
    assert_eq!(table, include_str!("../golden/exit_codes.txt"), "\n{table}");
}
