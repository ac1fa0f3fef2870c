//! SIGTERM and SIGINT in every phase: the exit code says which, it is never 0, and nothing is half done.

use coderdb::sqlx::PgConnection;

use super::{Program, Set, ask, empty, run, until};
use crate::support::{self, Database, proxy::Proxy};

const SIGNALS: [(&str, i32); 2] = [("TERM", 143), ("INT", 130)];

/// Two migrations that wait for the test: the first for an advisory lock, the second for a table.
fn set() -> Set {
    Set::of(&[
        ("V0001__things", "CREATE TABLE things (id integer)"),
        ("V0002__one", "ALTER TABLE things ADD COLUMN one integer; SELECT pg_advisory_xact_lock(7)"),
        ("V0003__two", "ALTER TABLE things ADD COLUMN two integer"),
    ])
}

/// A database with the first version, and somebody who keeps the next ones waiting.
async fn world(set: &Set, holds: &str) -> (Database, PgConnection, PgConnection) {
    let (database, conn) = empty().await;
    assert_eq!(support::run(set.up(&database).args(["--target", "1"])).code, 0);
    let mut holder = database.connect().await;
    run(&mut holder, holds).await;
    (database, conn, holder)
}

/// How far it is, and whether what is not recorded has left anything.
async fn versions(conn: &mut PgConnection) -> (i64, String) {
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute \
                   WHERE attrelid = 'things'::regclass AND attnum > 0 AND NOT attisdropped";
    (ask(conn, "SELECT max(version) FROM coderdb.refinery_schema_history").await, ask(conn, columns).await)
}

fn at(version: i64, columns: &str) -> (i64, String) {
    (version, columns.to_owned())
}

/// Until the migration waits for the test, in a statement of its own.
async fn in_a_statement(conn: &mut PgConnection) {
    until(
        conn,
        "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
}

#[tokio::test]
async fn it_stops_while_it_waits_for_the_database() {
    for (signal, code) in SIGNALS {
        for command in [&["migrate", "up"][..], &["migrate", "check", "--wait", "1m"], &["migrate", "status"]] {
            let mut program = Program::spawn("postgres://nobody@127.0.0.1:1/db", command);
            program.says("waiting for the database").await;
            program.signal(signal);
            assert_eq!(program.ends().await, code, "{command:?} {signal}: {}", program.said);
        }
    }
}

#[tokio::test]
async fn it_stops_while_check_waits_for_others() {
    let set = set();
    let (database, ..) = world(&set, "SELECT 1").await;
    for (signal, code) in SIGNALS {
        let from = set.path().to_str().unwrap();
        let mut program = Program::spawn(database.url(), &["migrate", "check", "--wait", "1m", "--from", from]);
        program.says("waiting for 2 migrations").await;
        program.signal(signal);
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
    }
}

#[tokio::test]
async fn it_stops_while_it_waits_for_another_runner() {
    let set = set();
    let (database, mut conn, _holder) = world(&set, "SELECT pg_advisory_lock(x'636f6465726462'::bigint)").await;
    for (signal, code) in SIGNALS {
        let mut program = set.spawn(database.url(), &[]);
        program.says("waiting for another runner").await;
        program.signal(signal);
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
    }
    assert_eq!(versions(&mut conn).await, at(1, "id"));
}

#[tokio::test]
async fn it_stops_while_it_waits_for_a_table_and_nothing_is_changed() {
    let set = set();
    let (database, mut conn, _holder) = world(&set, "BEGIN; LOCK TABLE things IN ACCESS SHARE MODE").await;
    for (signal, code) in SIGNALS {
        let mut program = set.spawn(database.url(), &[]);
        program.says("no table lock in attempt").await;
        program.signal(signal);
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
        assert_eq!(versions(&mut conn).await, at(1, "id"));
    }
}

#[tokio::test]
async fn it_lets_a_statement_end_and_stops_before_the_next_migration() {
    for (signal, code) in SIGNALS {
        let set = set();
        let (database, mut conn, mut holder) = world(&set, "BEGIN; SELECT pg_advisory_xact_lock(7)").await;
        let mut program = set.spawn(database.url(), &["--lock-timeout", "1h", "--max-stall", "none"]);
        in_a_statement(&mut conn).await;
        program.signal(signal);
        program.says("stopping before the next migration").await;
        run(&mut holder, "COMMIT").await;
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
        assert_eq!(versions(&mut conn).await, at(2, "id one"));
        assert_eq!(support::run(&mut set.up(&database)).code, 0);
        assert_eq!(versions(&mut conn).await, at(3, "id one two"));
    }
}

#[tokio::test]
async fn it_is_no_success_when_everything_is_done_by_then() {
    for (signal, code) in SIGNALS {
        let set = set();
        let (database, mut conn, mut holder) = world(&set, "BEGIN; SELECT pg_advisory_xact_lock(7)").await;
        let args = ["--target", "2", "--lock-timeout", "1h", "--max-stall", "none"];
        let mut program = set.spawn(database.url(), &args);
        in_a_statement(&mut conn).await;
        program.signal(signal);
        program.says("stopping before the next migration").await;
        run(&mut holder, "COMMIT").await;
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
        assert_eq!(versions(&mut conn).await, at(2, "id one"));
    }
}

#[tokio::test]
async fn it_cancels_a_statement_at_the_end_of_the_grace_or_on_a_second_signal() {
    for (signal, code) in SIGNALS {
        for grace in ["0s", "1h"] {
            let set = set();
            let (database, mut conn, mut holder) = world(&set, "BEGIN; SELECT pg_advisory_xact_lock(7)").await;
            let args = ["--grace", grace, "--lock-timeout", "1h", "--max-stall", "none"];
            let mut program = set.spawn(database.url(), &args);
            in_a_statement(&mut conn).await;
            program.signal(signal);
            if grace == "1h" {
                program.says("stopping before the next migration").await;
                // The first one says how it ends.
                program.signal("TERM");
            }
            program.says("canceling the statement under way").await;
            assert_eq!(program.ends().await, code, "{signal} {grace}: {}", program.said);
            // It has waited for the end of that.
            assert_eq!(versions(&mut conn).await, at(1, "id"));
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            assert_eq!(ask::<i64>(&mut conn, waiting).await, 0);
            run(&mut holder, "COMMIT").await;
            assert_eq!(support::run(&mut set.up(&database)).code, 0);
        }
    }
}

#[tokio::test]
async fn it_cancels_the_build_of_an_index_and_the_next_run_builds_it() {
    for (signal, code) in SIGNALS {
        let set = set();
        set.write(
            "V0002__one",
            "-- coderdb: no-transaction\nALTER TABLE things ADD COLUMN one integer;\n\
                                 CREATE INDEX CONCURRENTLY things_one_idx ON things (one);",
        );
        let (database, mut conn, _holder) = world(&set, "SELECT 1").await;
        let proxy = Proxy::to(&database);
        proxy.only_the_next();
        proxy.hold_before("INDEX CONCURRENTLY");
        let mut program = set.spawn(proxy.url(), &["--grace", "0s"]);
        proxy.held().await;
        // A snapshot that is older than the index: it holds up nothing but the end of the build.
        let mut reader = database.connect().await;
        run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class").await;
        proxy.release(false);
        let waits = "SELECT count(*) = 1 FROM pg_stat_progress_create_index \
                     WHERE datname = current_database() AND phase = 'waiting for old snapshots'";
        until(&mut conn, waits).await;
        program.signal(signal);
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
        assert_eq!(versions(&mut conn).await, at(1, "id one"));
        // With nothing begun, it waits for the same.
        let mut program = set.spawn(database.url(), &[]);
        program.says("waiting for older transactions, 0 of 1, behind pid ").await;
        program.signal(signal);
        assert_eq!(program.ends().await, code, "{signal}: {}", program.said);
        run(&mut reader, "COMMIT").await;
        assert_eq!(support::run(&mut set.up(&database)).code, 0);
        assert_eq!(versions(&mut conn).await, at(3, "id one two"));
        let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'things_one_idx'::regclass";
        assert!(ask::<bool>(&mut conn, valid).await);
    }
}
