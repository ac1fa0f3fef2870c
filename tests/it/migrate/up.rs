//! Migrating: once, by one runner, completely or not at all. Directly: a runner's lock is that of its session.

use std::time::Duration;

use coderdb::{
    migrate::{self, Error, Event, MigrateOptions, State},
    sqlx::{self, Connection, PgConnection},
};

use crate::support::{self, Database};

/// The advisory lock of a runner, in SQL.
const RUNNER_LOCK: &str = "SELECT pg_advisory_lock(x'636f6465726462'::bigint)";

async fn up_to(conn: &mut PgConnection, target: i64) -> Result<Vec<i64>, Error> {
    let options = MigrateOptions { target: Some(target), ..MigrateOptions::default() };
    Ok(migrate::up(conn, &options, |_| {}).await?.iter().map(|applied| applied.version).collect())
}

async fn up(conn: &mut PgConnection) -> Result<Vec<i64>, Error> {
    up_to(conn, migrate::newest()).await
}

async fn run(conn: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(conn).await.expect(sql);
}

async fn ask<T>(conn: &mut PgConnection, sql: &'static str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sql).fetch_one(conn).await.expect(sql)
}

async fn empty() -> (Database, PgConnection) {
    let database = support::empty_database().await.directly();
    let conn = database.connect().await;
    (database, conn)
}

const JOBS_WITH_FOREIGN_CODES: &str = "
    INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
    VALUES (gen_random_uuid(), 'o', '', now(), now(), '');
    INSERT INTO provisioner_jobs
        (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id,
         error_code)
    SELECT gen_random_uuid(), now(), now(), id, id, 'echo', 'file', 'workspace_build', '{}', id, code
    FROM organizations, unnest(ARRAY['OUT_OF_DISK', 'OUT_OF_DISK', 'O''NEIL', NULL, 'REQUIRED_TEMPLATE_VARIABLES']) AS code";

#[tokio::test]
async fn every_migration_is_applied_in_order_and_only_once() {
    let (_database, mut conn) = empty().await;
    let all: Vec<i64> = (1..=migrate::newest()).collect();
    assert_eq!(up(&mut conn).await.unwrap(), all);
    assert_eq!(up(&mut conn).await.unwrap(), Vec::<i64>::new());
    let status = migrate::status(&mut conn).await.unwrap();
    assert!(status.is_current());
    assert_eq!(status.version, Some(migrate::newest()));
}

#[tokio::test]
async fn status_writes_nothing_and_needs_only_a_role_that_may_read() {
    let (_database, mut conn) = empty().await;
    run(&mut conn, "SET default_transaction_read_only = on").await;
    let status = migrate::status(&mut conn).await.unwrap();
    assert_eq!(status.version, None);
    assert!(status.migrations.iter().all(|entry| entry.state == State::Pending));
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_runners_at_once_apply_each_migration_once() {
    let (database, mut conn) = empty().await;
    let mut runners = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut conn = database.connect().await;
        runners.spawn(async move { up(&mut conn).await.unwrap().len() });
    }
    let applied: usize = runners.join_all().await.iter().sum();
    assert_eq!(applied, usize::try_from(migrate::newest()).unwrap());
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await, migrate::newest());
    assert!(migrate::status(&mut conn).await.unwrap().is_current());
}

#[tokio::test]
async fn runner_processes_that_start_together_all_succeed() {
    let (database, mut conn) = empty().await;
    let mut command = std::process::Command::new(support::CODERDB);
    command.args(["migrate", "up"]).env("DATABASE_URL", database.url());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let runners: Vec<_> = (0..8).map(|_| command.spawn().unwrap()).collect();
    for mut runner in runners {
        assert!(runner.wait().unwrap().success());
    }
    assert!(migrate::status(&mut conn).await.unwrap().is_current());
}

#[tokio::test]
async fn nothing_to_do_needs_no_lock() {
    let database = support::database().await.directly();
    let (mut holder, mut conn) = (database.connect().await, database.connect().await);
    run(&mut holder, RUNNER_LOCK).await;
    assert_eq!(up(&mut conn).await.unwrap(), Vec::<i64>::new());
}

#[tokio::test]
async fn a_waiting_runner_says_whom_it_waits_for_and_gives_up_in_time() {
    let (database, mut conn) = empty().await;
    let mut holder = database.connect().await;
    run(&mut holder, "SET application_name = 'a slow deploy'").await;
    run(&mut holder, RUNNER_LOCK).await;
    let options = MigrateOptions { runner_lock_timeout: Duration::from_millis(50), ..MigrateOptions::default() };
    match migrate::up(&mut conn, &options, |_| {}).await.unwrap_err() {
        Error::LockBusy { holders, .. } => {
            assert_eq!((holders[0].application_name.as_str(), holders[0].address.as_str()), ("a slow deploy", "local"));
        }
        other => panic!("{other}"),
    }
    // The server hides a session's address from a role that is not its own.
    run(
        &mut conn,
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO pg_database_owner', current_database()); END $$;
         SET ROLE pg_database_owner",
    )
    .await;
    match migrate::up(&mut conn, &options, |_| {}).await.unwrap_err() {
        Error::LockBusy { holders, .. } => assert_eq!(holders[0].address, "unknown"),
        other => panic!("{other}"),
    }
    let mut impatient = database.coderdb();
    impatient.args(["migrate", "up", "--runner-lock-timeout", "0"]);
    support::fails(&mut impatient, 5, &["another runner", "a slow deploy"]);
}

#[tokio::test]
async fn a_waiting_runner_takes_over_when_the_holder_is_gone() {
    let (database, mut conn) = empty().await;
    let mut holder = database.connect().await;
    run(&mut holder, RUNNER_LOCK).await;
    let mut holder = Some(holder);
    let applied = migrate::up(&mut conn, &MigrateOptions::default(), |event| {
        if matches!(event, Event::Waiting { .. }) {
            drop(holder.take());
        }
    })
    .await
    .unwrap();
    assert_eq!(applied.len(), usize::try_from(migrate::newest()).unwrap());
}

#[tokio::test]
async fn foreign_error_codes_are_named_with_their_rows_and_nothing_changes() {
    for version in [4, 5, 6, 7] {
        let (database, mut conn) = empty().await;
        up_to(&mut conn, version - 1).await.unwrap();
        run(&mut conn, "ALTER TABLE provisioner_jobs DROP CONSTRAINT IF EXISTS provisioner_jobs_error_code_check")
            .await;
        run(&mut conn, JOBS_WITH_FOREIGN_CODES).await;

        let error = up(&mut conn).await.unwrap_err().to_string();
        for part in
            ["'OUT_OF_DISK' in 2 rows", "'O''NEIL' in 1 row", "migrations/V000", "rolled back", "Set error_code"]
        {
            assert!(error.contains(part), "V{version}: {part:?} is not in:\n{error}");
        }
        assert!(!error.contains("REQUIRED_TEMPLATE_VARIABLES' in"), "{error}");
        assert_eq!(migrate::status(&mut conn).await.unwrap().version, Some(version - 1));
        assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM provisioner_jobs").await, 5);
        let checks = "SELECT count(*) FROM pg_constraint WHERE conname = 'provisioner_jobs_error_code_check'";
        assert_eq!(ask::<i64>(&mut conn, checks).await, 0);
        support::fails(database.coderdb().args(["migrate", "up"]), 10, &["OUT_OF_DISK", "hint:"]);
    }
}

#[tokio::test]
async fn once_the_codes_are_mended_the_same_command_goes_on() {
    let (_database, mut conn) = empty().await;
    up_to(&mut conn, 3).await.unwrap();
    run(&mut conn, JOBS_WITH_FOREIGN_CODES).await;
    assert!(up(&mut conn).await.is_err());
    run(&mut conn, "UPDATE provisioner_jobs SET error_code = NULL WHERE error_code LIKE 'O%'").await;
    assert_eq!(up(&mut conn).await.unwrap(), (4..=migrate::newest()).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_the_widened_check_admits_insufficient_quota() {
    let (_database, mut conn) = empty().await;
    up_to(&mut conn, 3).await.unwrap();
    run(&mut conn, JOBS_WITH_FOREIGN_CODES).await;
    run(&mut conn, "UPDATE provisioner_jobs SET error_code = NULL").await;
    let set = "UPDATE provisioner_jobs SET error_code = 'INSUFFICIENT_QUOTA'";
    for (version, admitted) in [(4, false), (5, false), (6, true), (7, true)] {
        up_to(&mut conn, version).await.unwrap();
        assert_eq!(sqlx::raw_sql(set).execute(&mut conn).await.is_ok(), admitted, "V{version}");
    }
}

#[tokio::test]
async fn an_index_that_a_killed_build_left_invalid_is_built_anew() {
    let (_database, mut conn) = empty().await;
    up_to(&mut conn, 3).await.unwrap();
    run(&mut conn, JOBS_WITH_FOREIGN_CODES).await;
    run(&mut conn, "UPDATE provisioner_jobs SET error_code = NULL").await;
    up_to(&mut conn, 7).await.unwrap();
    // A unique index over equal rows fails and leaves what a killed build leaves.
    let fails = "CREATE UNIQUE INDEX CONCURRENTLY provisioner_jobs_organization_id_created_at_id_idx ON provisioner_jobs (type)";
    sqlx::raw_sql(fails).execute(&mut conn).await.unwrap_err();
    assert_eq!(up(&mut conn).await.unwrap(), [8, 9, 10]);
    let valid = "SELECT indisvalid AND NOT indisunique FROM pg_index \
                 WHERE indexrelid = 'provisioner_jobs_organization_id_created_at_id_idx'::regclass";
    assert!(ask::<bool>(&mut conn, valid).await);
}

#[tokio::test]
async fn an_index_that_was_built_but_not_recorded_is_recorded_and_not_built_twice() {
    let (_database, mut conn) = empty().await;
    up(&mut conn).await.unwrap();
    let oid = "SELECT 'provisioner_job_timings_job_id_idx'::regclass::oid::bigint";
    let before: i64 = ask(&mut conn, oid).await;
    run(&mut conn, "DELETE FROM coderdb.refinery_schema_history WHERE version >= 9").await;
    assert_eq!(up(&mut conn).await.unwrap(), [9, 10]);
    assert_eq!(ask::<i64>(&mut conn, oid).await, before);
}

#[tokio::test]
async fn an_index_of_the_same_name_on_another_table_is_not_taken_for_it() {
    let (_database, mut conn) = empty().await;
    up_to(&mut conn, 7).await.unwrap();
    run(&mut conn, "CREATE INDEX provisioner_job_timings_job_id_idx ON users (id)").await;
    match up(&mut conn).await.unwrap_err() {
        Error::Refused(refusal) => assert_eq!((refusal.state.as_str(), refusal.rolled_back), ("42P07", false)),
        other => panic!("{other}"),
    }
    assert_eq!(migrate::status(&mut conn).await.unwrap().version, Some(8));
    // In another schema it stands in nobody's way, and is left alone.
    run(
        &mut conn,
        "DROP INDEX provisioner_job_timings_job_id_idx; CREATE SCHEMA other; CREATE TABLE other.t (i integer);
         CREATE INDEX provisioner_job_timings_job_id_idx ON other.t (i); SET search_path = public, other",
    )
    .await;
    assert_eq!(up(&mut conn).await.unwrap(), [9, 10]);
    let tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_indexes \
                  WHERE indexname = 'provisioner_job_timings_job_id_idx'";
    assert_eq!(ask::<String>(&mut conn, tables).await, "provisioner_job_timings t");
}

#[tokio::test]
async fn a_table_lock_that_is_not_to_be_had_is_tried_again() {
    let (database, mut conn) = empty().await;
    up_to(&mut conn, 1).await.unwrap();
    let mut reader = database.connect().await;
    run(&mut reader, "BEGIN; LOCK TABLE provisioner_jobs IN ACCESS SHARE MODE").await;
    let options = MigrateOptions { lock_timeout: Duration::from_millis(20), ..MigrateOptions::default() };
    let mut reader = Some(reader);
    let mut retried = false;
    migrate::up(&mut conn, &options, |event| {
        if let Event::Retrying { version: 2, .. } = event {
            retried = true;
            drop(reader.take());
        }
    })
    .await
    .unwrap();
    assert!(retried, "the reader stood in the way");
}

#[tokio::test]
async fn a_killed_backend_leaves_nothing_half_applied_and_the_next_run_finishes() {
    let (database, mut conn) = empty().await;
    let mut killer = database.connect().await;
    up_to(&mut conn, 1).await.unwrap();
    let mut reader = database.connect().await;
    run(&mut reader, "BEGIN; LOCK TABLE provisioner_jobs IN ACCESS SHARE MODE").await;
    let pid: i32 = ask(&mut conn, "SELECT pg_backend_pid()").await;
    let victim = tokio::spawn(async move { up(&mut conn).await });
    // Awaits the moment in which the migration waits for the reader.
    loop {
        let waits: bool = sqlx::query_scalar("SELECT cardinality(pg_blocking_pids($1)) > 0")
            .bind(pid)
            .fetch_one(&mut killer)
            .await
            .unwrap();
        if waits {
            break;
        }
        tokio::task::yield_now().await;
    }
    sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut killer).await.unwrap();
    let error = victim.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "trying again helps: {error}");
    reader.close().await.unwrap();

    let mut conn = database.connect().await;
    assert_eq!(migrate::status(&mut conn).await.unwrap().version, Some(1));
    up(&mut conn).await.unwrap();
    assert!(migrate::status(&mut conn).await.unwrap().is_current());
}

#[tokio::test]
async fn a_history_that_does_not_fit_is_an_error_that_names_the_migration() {
    for (change, problem) in [
        (
            "UPDATE coderdb.refinery_schema_history SET checksum = '1' WHERE version = 3",
            "V0003__validate_provisioner_job_logs_cap",
        ),
        ("DELETE FROM coderdb.refinery_schema_history WHERE version = 2", "was never applied, though a later one was"),
        (
            "INSERT INTO coderdb.refinery_schema_history VALUES (0, 'from_elsewhere', '2026-01-01T00:00:00Z', '1')",
            "V0000__from_elsewhere: was applied by another coderdb",
        ),
        ("UPDATE coderdb.refinery_schema_history SET checksum = 'x' WHERE version = 3", "malformed at version 3"),
    ] {
        let database = support::database().await.directly();
        let mut conn = database.connect().await;
        run(&mut conn, change).await;
        support::fails(database.coderdb().args(["migrate", "up"]), 12, &[problem]);
    }
}

#[tokio::test]
async fn a_newer_schema_fits_unless_a_newer_migration_breaks_this_version() {
    let database = support::database().await.directly();
    let mut conn = database.connect().await;
    run(&mut conn, "INSERT INTO coderdb.refinery_schema_history VALUES (98, 'more', '2026-01-01T00:00:00Z', '1')")
        .await;
    for command in ["up", "check"] {
        assert_eq!(support::run(database.coderdb().args(["migrate", command])).code, 0, "{command}");
    }
    run(
        &mut conn,
        "INSERT INTO coderdb.refinery_schema_history VALUES (99, 'breaking_more', '2026-01-01T00:00:00Z', '1')",
    )
    .await;
    support::fails(database.coderdb().args(["migrate", "up"]), 13, &["V0099__breaking_more"]);
    assert_eq!(support::run(database.coderdb().args(["migrate", "check"])).code, 13);
    assert_eq!(support::run(database.coderdb().args(["migrate", "status", "--exit-code"])).code, 13);
}

#[tokio::test]
async fn a_history_of_refinerys_smaller_type_is_read_and_goes_on() {
    let (_database, mut conn) = empty().await;
    up_to(&mut conn, 7).await.unwrap();
    run(&mut conn, "ALTER TABLE coderdb.refinery_schema_history ALTER version TYPE integer").await;
    assert_eq!(up(&mut conn).await.unwrap(), [8, 9, 10]);
    run(&mut conn, "ALTER TABLE coderdb.refinery_schema_history ALTER version TYPE text").await;
    assert!(matches!(migrate::status(&mut conn).await, Err(Error::Sql(_))));
}

#[tokio::test]
async fn status_tells_scripts_by_its_exit_code_whether_anything_is_pending() {
    let (database, mut conn) = empty().await;
    database.coderdb().args(["migrate", "status"]).assert().code(0);
    database.coderdb().args(["migrate", "status", "--exit-code"]).assert().code(3);
    up(&mut conn).await.unwrap();
    database.coderdb().args(["migrate", "status", "--exit-code"]).assert().code(0);
    run(&mut conn, "DELETE FROM coderdb.refinery_schema_history WHERE version = 2").await;
    database.coderdb().args(["migrate", "status", "--exit-code"]).assert().code(12);
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_a_usage_error() {
    let (database, _conn) = empty().await;
    support::fails(database.coderdb().args(["migrate", "up", "--target", "99"]), 2, &["there is no version 99"]);
}

#[tokio::test]
async fn refinerys_own_tools_can_read_the_history() {
    let database = support::database().await.directly();
    let mut conn = database.connect().await;
    // Its own statements, in a session with this search_path.
    run(&mut conn, "SET search_path = coderdb").await;
    run(
        &mut conn,
        "CREATE TABLE IF NOT EXISTS refinery_schema_history(
             version int8 PRIMARY KEY,
             name VARCHAR(255),
             applied_on VARCHAR(255),
             checksum VARCHAR(255));",
    )
    .await;
    let query = "SELECT version, name, applied_on, checksum FROM refinery_schema_history ORDER BY version ASC;";
    let rows: Vec<(i64, String, String, String)> = sqlx::query_as(query).fetch_all(&mut conn).await.unwrap();
    let versions: Vec<_> = rows.iter().map(|(version, ..)| *version).collect();
    assert_eq!(versions, (1..=migrate::newest()).collect::<Vec<_>>());
    assert!(rows[0].1 == "base" && rows[0].3.parse::<u64>().is_ok(), "{:?}", rows[0]);
}

#[tokio::test]
async fn the_locks_in_a_plan_are_those_that_the_server_takes() {
    let (_database, mut conn) = empty().await;
    let found = migrate::locks(&mut conn, &migrate::Migrations::embedded()).await.expect("the migrations");
    let found = serde_json::to_string_pretty(&found).expect("JSON") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migrate/locks.json");
    if std::env::var_os("CODERDB_UPDATE").is_some() {
        std::fs::write(path, &found).expect("a file");
    }
    let written = std::fs::read_to_string(path).expect("a file");
    assert!(found == written, "src/migrate/locks.json is out of date: run scripts/prepare. It should be:\n{found}");
}
