//! What other runners were seen to do wrong, one by one.

use coderdb::migrate::State;

use super::{Program, Set, ask, empty, run, until};
use crate::support::{
    self, fails,
    streaming::Streaming,
    tls::{addresses, certificates},
};

#[tokio::test]
async fn e1_killed_between_a_migration_and_its_history_row_nothing_of_it_is_left() {
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()")]);
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__two", "CREATE TABLE two ()");
    let mut holder = database.connect().await;
    run(&mut holder, "BEGIN; LOCK TABLE coderdb.refinery_schema_history IN SHARE MODE").await;
    let mut program = set.spawn(database.url(), &["--lock-timeout", "1h", "--max-stall", "none"]);
    let recording = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                     AND query LIKE '%INSERT INTO %.refinery_schema_history%'";
    until(&mut conn, &format!("SELECT count(*) = 1 {recording}")).await;
    program.kill().await;
    until(&mut conn, &format!("SELECT count(*) = 0 {recording}")).await;
    run(&mut holder, "COMMIT").await;
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NULL").await);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NOT NULL").await);
}

#[tokio::test]
async fn e2_eight_runners_on_a_fresh_database_all_succeed() {
    let set = Set::of(&[("V0001__one", "CREATE TYPE mood AS ENUM ('good'); CREATE TABLE one (mood mood)")]);
    for trial in 1..=5 {
        let (database, mut conn) = empty().await;
        let mut programs: Vec<_> = (0..8).map(|_| set.spawn(database.url(), &[])).collect();
        for program in &mut programs {
            assert_eq!(program.ends().await, 0, "trial {trial}: {}", program.said);
        }
        assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await, 1);
    }
}

#[tokio::test]
async fn e3_an_applied_migration_that_was_edited_is_refused() {
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()")]);
    let (database, _conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0001__one", "CREATE TABLE one (a integer)");
    set.write("V0002__two", "CREATE TABLE two ()");
    fails(&mut set.up(&database), 12, &["V0001__one: its file differs from what was applied"]);
}

#[tokio::test]
async fn e4_of_two_files_with_one_version_neither_runs() {
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()"), ("V0001__two", "CREATE TABLE two ()")]);
    let (database, mut conn) = empty().await;
    fails(&mut set.up(&database), 2, &["V0001__one.sql", "V0001__two.sql", "has the version of"]);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(ask::<i64>(&mut conn, tables).await, 0);
}

#[tokio::test]
async fn e5_a_version_that_comes_after_a_higher_one_is_refused_and_not_applied() {
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()"), ("V0003__three", "CREATE TABLE three ()")]);
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__two", "CREATE TABLE two ()");
    fails(&mut set.up(&database), 12, &["V0002__two: was never applied, though a later one was"]);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NULL").await);
    let status = coderdb::migrate::status_of(&mut conn, &set.migrations()).await.unwrap();
    assert_eq!(status.migrations[1].state, State::Skipped);
}

#[tokio::test]
async fn e6_a_migration_that_resets_the_search_path_is_recorded_and_the_next_one_is_not_affected() {
    let set = Set::of(&[
        // As pg_dump writes it.
        ("V0001__dump", "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.one ();"),
        ("V0002__two", "CREATE TABLE two ()"),
    ]);
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await, 2);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('public.two') IS NOT NULL").await);
}

#[tokio::test]
async fn e7_a_syntax_error_is_shown_with_its_file_line_and_column() {
    let set = Set::of(&[(
        "V0001__teams",
        "CREATE TABLE one ();\n\nCREATE TABLE teams (\n  id uuid,\n  name text nt null\n);\n",
    )]);
    let (database, mut conn) = empty().await;
    let parts = [
        "error[42601]: syntax error at or near \"nt\"",
        "V0001__teams.sql:5:13   (statement 2 of 2)",
        "\n5 |   name text nt null\n  |             ^\n",
        "rolled back",
    ];
    fails(&mut set.up(&database), 10, &parts);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one') IS NULL").await);
}

#[tokio::test]
async fn e8_an_interrupt_during_a_migration_is_no_success() {
    let set = Set::of(&[("V0001__slow", "CREATE TABLE one (); SELECT pg_sleep(60)")]);
    let (database, mut conn) = empty().await;
    let mut program = set.spawn(database.url(), &["--grace", "0s"]);
    until(
        &mut conn,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )
    .await;
    program.signal("INT");
    assert_eq!(program.ends().await, 130);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one') IS NULL").await);
}

#[tokio::test]
async fn e10_whether_anything_is_pending_is_an_exit_code() {
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()")]);
    let (database, _conn) = empty().await;
    let asked =
        |args: &[&str]| support::run(database.coderdb().arg("migrate").args(args).arg("--from").arg(set.path()));
    assert_eq!((asked(&["check"]).code, asked(&["status", "--exit-code"]).code), (3, 3));
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert_eq!((asked(&["check"]).code, asked(&["status", "--exit-code"]).code), (0, 0));
}

#[tokio::test]
async fn e11_several_concurrent_indexes_in_one_file_are_built() {
    let set = Set::of(&[
        ("V0001__one", "CREATE TABLE one (a integer, b integer)"),
        (
            "V0002__indexes",
            "-- coderdb: no-transaction\nCREATE INDEX CONCURRENTLY one_a ON one (a);\nCREATE INDEX CONCURRENTLY one_b ON one (b);",
        ),
    ]);
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert_eq!(
        ask::<i64>(&mut conn, "SELECT count(*) FROM pg_index WHERE indrelid = 'one'::regclass AND indisvalid").await,
        2
    );
}

#[tokio::test]
async fn e12_a_unique_index_that_failed_is_built_once_the_rows_are_mended() {
    let set = Set::of(&[
        ("V0001__one", "CREATE TABLE one (a integer); INSERT INTO one VALUES (1), (1)"),
        ("V0002__index", "-- coderdb: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY one_a ON one (a);"),
    ]);
    let (database, mut conn) = empty().await;
    fails(
        &mut set.up(&database),
        11,
        &["[23505]", "V0002__index.sql:2:1   (statement 1 of 1)", "(a)=(1) is duplicated", "not recorded"],
    );
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_a'::regclass";
    // It would keep writers from what it has failed on.
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one_a') IS NULL").await);
    run(&mut conn, "DELETE FROM one; INSERT INTO one VALUES (1)").await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert!(ask::<bool>(&mut conn, valid).await);
}

#[tokio::test]
async fn e13_it_migrates_a_server_that_proves_its_name_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let [here, there] = addresses();
    let (trusted, certificate, key) = certificates(directory.path(), &here);
    let mut server = Streaming::start(0, "DROP SCHEMA public, coderdb CASCADE; CREATE SCHEMA public").await.primary;
    server.serve_tls(&[&here, &there], &certificate, &key);
    server.end("INT");
    server.restart().await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()")]);
    let up = async |host: &str| {
        let url = format!("postgres://postgres@{host}/postgres?sslmode=verify-full&sslrootcert={trusted}");
        let mut program = set.spawn(&url, &[]);
        (program.ends().await, program)
    };
    let (code, program): (i32, Program) = up(&there).await;
    assert!(code == 2 && program.said.contains("not valid for name"), "{code} {}", program.said);
    let (code, program) = up(&here).await;
    assert_eq!(code, 0, "{}", program.said);
}
