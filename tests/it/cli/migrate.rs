//! What the commands of `coderdb migrate` print, for people and for machines.

use std::fs;

use coderdb::{
    migrate,
    sqlx::{self, AssertSqlSafe, PgConnection},
};
use serde_json::{Value, json};

use crate::support::{self, Database, proxy::Proxied, streaming::Streaming};

/// The version of the last file.
fn newest() -> i64 {
    i64::try_from(fs::read_dir("migrations").expect("migrations").count() - 1).expect("a number") // But the README.
}

async fn migrated_to(version: i64) -> (Database, PgConnection) {
    let database = support::empty_database().await.directly();
    let mut conn = database.connect().await;
    let options = migrate::MigrateOptions { target: Some(version), ..migrate::MigrateOptions::default() };
    migrate::up(&mut conn, &options, |_| {}).await.expect("the migrations");
    (database, conn)
}

fn text(database: &Database, args: &[&str], code: i32) -> String {
    let outcome = support::run(database.coderdb().arg("migrate").args(args));
    assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
    outcome.stdout
}

fn machine(database: &Database, args: &[&str], code: i32) -> Value {
    let text = text(database, &[args, &["-o", "json"]].concat(), code);
    serde_json::from_str(&text).expect("JSON")
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.expect("SQL");
}

#[tokio::test]
async fn a_plan_says_what_runs_and_which_tables_it_locks() {
    let (database, _conn) = migrated_to(7).await;
    let expected = [
        "VERSION NAME STATEMENTS RUNS IN",
        "V0008 provisioner_jobs_indexes 9 statement by statement",
        "V0009 other_indexes 3 statement by statement",
        "V0010 pruning_indexes 2 statement by statement",
    ];
    let plan = text(&database, &["plan"], 0);
    let lines: Vec<_> = plan.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines.starts_with(&expected.map(str::to_owned)), "{plan}");
    let locks = text(&database, &["plan", "--locks"], 0);
    let line = locks.lines().find(|line| line.contains("workspace_builds")).expect("a line");
    let words: Vec<_> = line.split_whitespace().collect();
    assert!(words.ends_with(&["workspace_builds", "ShareUpdateExclusive"]), "{line}");
    let sql = text(&database, &["plan", "--sql"], 0);
    assert!(sql.contains("-- V0008__provisioner_jobs_indexes\n") && sql.contains("CREATE INDEX CONCURRENTLY"), "{sql}");

    let plan = machine(&database, &["plan", "--locks"], 0);
    let locks = json!({ "provisioner_jobs": "ShareUpdateExclusiveLock" });
    let statements: Vec<_> =
        (1..=9).map(|n| json!({ "statement": n, "locks": locks.clone(), "rewrites": [] })).collect();
    let first = json!({
        "version": 8,
        "name": "provisioner_jobs_indexes",
        "transaction": false,
        "statements": 9,
        "locks": statements,
    });
    assert_eq!((&plan["format"], &plan["pending"][0]), (&json!(1), &first));
    text(&database, &["up"], 0);
    assert_eq!(text(&database, &["plan"], 0), "Nothing is pending.\n");
}

#[tokio::test]
async fn what_locks_and_rewrites_a_table_is_found_out_by_running_it() {
    let database = support::empty_database().await.directly();
    let mut conn = database.connect().await;
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, sql: &str| fs::write(directory.path().join(name), sql).expect("a file");
    write("V0001__base.sql", "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (n text);");
    write(
        "V0002__more.sql",
        "ALTER TABLE b ADD m text; CREATE TABLE c (a integer REFERENCES a); ALTER TABLE a ALTER id TYPE bigint; SELECT FROM b;",
    );
    write(
        "V0003__index.sql",
        "-- coderdb: no-transaction\nCREATE INDEX CONCURRENTLY i ON b (n);\nUPDATE b SET n = '';",
    );
    let migrations = migrate::Migrations::read(directory.path()).expect("migrations");
    let found = json!(migrate::locks(&mut conn, &migrations).await.expect("locks"));
    let expected = json!({
        "1": [],
        "2": [
            { "statement": 1, "locks": { "b": "AccessExclusiveLock" }, "rewrites": [] },
            { "statement": 2, "locks": { "a": "ShareRowExclusiveLock" }, "rewrites": [] },
            { "statement": 3, "locks": { "a": "AccessExclusiveLock" }, "rewrites": ["a"] },
        ],
        "3": [
            { "statement": 1, "locks": { "b": "ShareUpdateExclusiveLock" }, "rewrites": [] },
            { "statement": 2, "locks": { "b": "RowExclusiveLock" }, "rewrites": [] },
        ],
    });
    assert_eq!(found, expected, "{found:#}");
}

#[tokio::test]
async fn what_only_looks_writes_nothing() {
    // A server of its own, because the log is that of all databases.
    let server = Streaming::start(0, "DROP SCHEMA public, coderdb CASCADE; CREATE SCHEMA public").await.primary;
    let directory = server.socket().parent().expect("its directory").to_owned();
    let url =
        format!("postgres://postgres@localhost/postgres?host={}", directory.display().to_string().replace('/', "%2F"));
    let ran = |args: &[&str], code: i32| {
        let outcome = support::run(support::coderdb().env("DATABASE_URL", &url).arg("migrate").args(args));
        assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
    };
    ran(&["up", "--target", "7"], 0);
    server.run(&["ALTER DATABASE postgres SET log_statement = 'mod'"]).await;
    let writes = || {
        let log = fs::read_to_string(directory.with_extension("log")).expect("the server's log");
        log.lines().filter(|line| line.contains("statement: ")).count()
    };
    for args in [["plan"].as_slice(), &["plan", "--locks"], &["status"], &["check"], &["history"]] {
        ran(args, if args == ["check"] { 3 } else { 0 });
        assert_eq!(writes(), 0, "{args:?}");
    }
    ran(&["up"], 0);
    assert!(writes() > 0, "the log shows what writes");
}

#[tokio::test]
async fn a_check_says_whether_schema_and_program_fit() {
    let newest = newest();
    let before = newest - 1;
    let (database, mut conn) = migrated_to(before).await;
    assert_eq!(text(&database, &["check"], 3), format!("pending: 1 migrations, from version {before} to {newest}\n"));
    let expected = json!({ "format": 1, "fit": "pending", "version": before, "newest": newest, "pending": 1 });
    assert_eq!(machine(&database, &["check"], 3), expected);
    text(&database, &["up"], 0);
    assert_eq!(text(&database, &["check"], 0), format!("fits: the schema is at version {newest}\n"));
    let newer = "INSERT INTO coderdb.refinery_schema_history
                 SELECT max(version) + 1, 'more', '2026-01-01T00:00:00Z', '1' FROM coderdb.refinery_schema_history";
    run(&mut conn, newer).await;
    let more = newest + 1;
    let expected = format!("fits: the schema is at version {more}, newer than {newest}, and compatible\n");
    assert_eq!(text(&database, &["check"], 0), expected);
    run(&mut conn, "UPDATE coderdb.refinery_schema_history SET name = 'breaking_more' WHERE name = 'more'").await;
    let said = text(&database, &["check"], 13);
    let expected = format!("does not fit: V{more:04}__breaking_more: was applied by a newer coderdb");
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(machine(&database, &["check"], 13)["fit"], "too_new");
    run(&mut conn, "UPDATE coderdb.refinery_schema_history SET checksum = '1' WHERE version = 3").await;
    assert_eq!(machine(&database, &["check"], 12)["fit"], "diverged");
}

#[tokio::test]
async fn a_check_is_one_round_trip() {
    let database = support::database().await.directly();
    let mut proxied = Proxied::connect(&database).await;
    proxied.take();
    let status = migrate::status(&mut proxied.conn).await.expect("a status");
    assert!(status.is_current());
    assert_eq!(proxied.take(), 1);
}

#[tokio::test]
async fn a_check_does_not_wait_for_a_database_unless_it_is_told_to() {
    let mut nowhere = support::coderdb();
    nowhere.env("DATABASE_URL", "postgres://u@127.0.0.1:1/db");
    support::fails(nowhere.args(["migrate", "check"]), 4, &["cannot reach"]);
    support::fails(nowhere.args(["--wait", "2s"]), 4, &["waiting for the database"]);
}

#[tokio::test]
async fn what_happens_is_logged_for_machines_under_stable_names() {
    let (database, _conn) = migrated_to(newest() - 2).await;
    let outcome = support::run(database.coderdb().env("CODERDB_LOG", "json").args(["migrate", "up"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let lines: Vec<Value> = outcome.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let applied = of("migrate.applied");
    assert_eq!((applied.len(), of("migrate.started").len(), of("note").len()), (2, 2, 2), "{}", outcome.stderr);
    assert_eq!((&applied[0]["version"], &applied[0]["level"]), (&json!(newest() - 1), &json!("INFO")));
    assert!(applied[0]["milliseconds"].is_u64() && applied[0]["time"].is_string(), "{}", applied[0]);
    support::fails(database.coderdb().env("CODERDB_LOG", "yes").args(["migrate", "status"]), 2, &["CODERDB_LOG"]);
}

#[tokio::test]
async fn a_check_waits_until_somebody_else_has_migrated() {
    let (database, mut conn) = migrated_to(7).await;
    let mut waiting = tokio::process::Command::new(support::CODERDB)
        .args(["migrate", "check", "--wait", "5m"])
        .env_clear()
        .envs(database.environment())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program");
    // It has looked once when it says that it waits.
    let mut said = [0; 7];
    let stderr = waiting.stderr.as_mut().expect("a pipe");
    tokio::io::AsyncReadExt::read_exact(stderr, &mut said).await.expect("a note");
    assert_eq!(&said, b"waiting");
    migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the rest");
    let output = waiting.wait_with_output().await.expect("an end");
    let expected = format!("fits: the schema is at version {}\n", newest());
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), expected.as_bytes()));
    let (database, _conn) = migrated_to(7).await;
    text(&database, &["check", "--wait", "1ms"], 3);
}

#[tokio::test]
async fn the_history_says_who_did_what_from_where_and_with_which_program() {
    let (database, mut conn) = migrated_to(7).await;
    run(&mut conn, "DROP TABLE coderdb.migration_log").await;
    let up = machine(&database, &["up"], 0);
    assert_eq!(
        (&up["format"], &up["applied"][0]["version"], &up["applied"][1]["name"]),
        (&json!(1), &json!(8), &json!("other_indexes"))
    );
    assert!(up["applied"][0]["delay_milliseconds"].is_u64(), "{up}");
    let history = machine(&database, &["history"], 0);
    let rows = history["history"].as_array().expect("a list");
    let actions: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["version"].as_i64().unwrap_or_default(),
                row["action"].as_str().unwrap_or_default(),
                row["statement"].as_i64(),
            )
        })
        .collect();
    let before: Vec<_> = (1..=7).map(|version| (version, "applied", None)).collect();
    let statements = |version, count| (1..=count).map(move |n| (version, "statement", Some(n)));
    let logged = [(8, 9), (9, 3), (10, 2)]
        .into_iter()
        .flat_map(|(version, count)| statements(version, count).chain([(version, "applied", None)]));
    let logged: Vec<_> = logged.collect();
    assert_eq!(actions, [before, logged].concat());
    let (old, new) = (&rows[0], rows.last().expect("a row"));
    assert!(old["role"].is_null() && old["program"].is_null() && old["at"].is_string(), "{old}");
    let program = format!("coderdb {}", env!("CARGO_PKG_VERSION"));
    let user = database.options().get_username().to_owned();
    assert_eq!((&new["program"], &new["role"], &new["address"]), (&json!(program), &json!(user), &json!("local")));
    assert!(new["milliseconds"].is_u64() && new["at"].as_str().expect("a time").ends_with('Z'), "{new}");
    let table = text(&database, &["history"], 0);
    assert!(table.lines().count() == 1 + rows.len() && table.contains("statement 1"), "{table}");
}

#[tokio::test]
async fn a_repair_needs_a_yes_and_stands_in_the_history() {
    let (database, mut conn) = migrated_to(7).await;
    run(&mut conn, "UPDATE coderdb.refinery_schema_history SET checksum = '1' WHERE version = 3").await;
    support::fails(database.coderdb().args(["migrate", "repair", "accept", "3"]), 2, &["--yes"]);
    support::fails(database.coderdb().args(["migrate", "repair", "accept", "99", "--yes"]), 2, &["no version 99"]);
    text(&database, &["check"], 12);
    let accepted = text(&database, &["repair", "accept", "3", "--yes"], 0);
    assert_eq!(accepted, "V0003__validate_provisioner_job_logs_cap\n");
    assert_eq!(text(&database, &["repair", "accept", "3", "--yes"], 0), "There is nothing to repair.\n");
    text(&database, &["check"], 3);

    let marked = machine(&database, &["repair", "mark-applied", "9", "--yes"], 0);
    let names = ["V0008__provisioner_jobs_indexes", "V0009__other_indexes"];
    assert_eq!(marked, json!({ "format": 1, "repaired": names }));
    text(&database, &["up"], 0);
    text(&database, &["check"], 0);

    run(&mut conn, "CREATE TABLE twice (n integer); INSERT INTO twice VALUES (1), (1)").await;
    sqlx::raw_sql("CREATE UNIQUE INDEX CONCURRENTLY twice_n ON twice (n)")
        .execute(&mut conn)
        .await
        .expect_err("a duplicate");
    assert_eq!(text(&database, &["repair", "drop-invalid-indexes", "--yes"], 0), "twice_n\n");
    let history = machine(&database, &["history"], 0);
    let repairs: Vec<_> = history["history"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["action"].as_str().expect("a text"))
        .filter(|action| !["applied", "statement"].contains(action))
        .collect();
    assert_eq!(repairs, ["accepted", "marked", "marked", "dropped"]);
}
