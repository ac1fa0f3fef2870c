//! Adopting and going away again beside Coder's own server, which writes, and sometimes migrates.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use coderdb::{
    migrate::{self, Adoption, Error, Event, MigrateOptions},
    sqlx::{self, AssertSqlSafe},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::{adopt, coder, dump, machine, options, run, text, texts, writer::Writer};
use crate::support::{self, Database, fails};

const TAKE: &str = "SELECT pg_advisory_lock(1037453835920848937)";
const GIVE_BACK: &str = "SELECT pg_advisory_unlock(1037453835920848937)";

/// Whether somebody of this database waits for a lock.
const WAITS: &str = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0";

#[tokio::test]
async fn adopt_and_unadopt_wait_for_coders_migrator_with_a_bound_and_leave_nothing_behind() {
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    run(&mut conn, "SET application_name = 'coderd'").await;
    run(&mut conn, TAKE).await;
    let adopt = ["migrate", "adopt", "--lock-patience", "200ms"];
    fails(
        database.coderdb().args(adopt),
        5,
        &["Coder's own migrator, or a lock on its tables, was in the way", "'coderd'", "migrate adopt` again"],
    );
    assert_eq!(dump(&database), before);
    let waiting = tokio::spawn({
        let (mut conn, options) = (database.connect().await, options(&database));
        async move { migrate::adopt(&mut conn, &options, Adoption::default(), |_| {}).await }
    });
    // It asks, and waits in nobody's way.
    assert_eq!(texts(&mut conn, WAITS).await, ["0"]);
    run(&mut conn, GIVE_BACK).await;
    waiting.await.expect("no panic").expect("adopted");
    run(&mut conn, TAKE).await;
    fails(
        database.coderdb().args(["migrate", "unadopt", "--yes", "--lock-patience", "200ms"]),
        6,
        &["Coder's own migrator", "'coderd'"],
    );
    run(&mut conn, GIVE_BACK).await;
    text(&database, &["unadopt", "--yes"], 0);
    assert_eq!(dump(&database), before);
}

/// Who mends something by hand does not take the lock of that migrator.
#[tokio::test]
async fn adopt_waits_with_a_bound_for_whoever_has_the_table_of_versions_for_himself() {
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    run(&mut conn, "SET application_name = 'by hand'").await;
    run(&mut conn, "BEGIN; LOCK TABLE schema_migrations").await;
    fails(
        database.coderdb().args(["migrate", "adopt", "--lock-patience", "200ms"]),
        5,
        &["a lock on its tables, was in the way", "'by hand'", "migrate adopt` again"],
    );
    let waiting = tokio::spawn({
        let (mut conn, options) = (database.connect().await, options(&database));
        async move { migrate::adopt(&mut conn, &options, Adoption::default(), |_| {}).await }
    });
    support::settled(&waiting, &mut database.connect().await, 1).await;
    run(&mut conn, "ROLLBACK").await;
    waiting.await.expect("no panic").expect("adopted");
    text(&database, &["unadopt", "--yes"], 0);
    assert_eq!(dump(&database), before);
}

/// As on servers from 17 on, which want the tables that Coder's migrator has for itself; here it is a catalog.
#[tokio::test]
async fn check_waits_for_whoever_has_locked_what_it_reads_as_long_as_it_is_told_to() {
    let (database, mut conn) = coder().await;
    adopt(&database).await;
    run(&mut conn, "BEGIN; LOCK TABLE pg_catalog.pg_enum").await;
    fails(database.coderdb().args(["migrate", "check"]), 5, &["Coder's own migrator, or a lock"]);
    let mut check = Command::new(support::CODERDB);
    check.env_clear().envs(database.environment()).args(["migrate", "check", "--wait", "5m"]).kill_on_drop(true);
    check.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("the program starts");
    let said = BufReader::new(check.stderr.take().expect("a pipe")).lines().next_line().await.expect("UTF-8");
    assert!(said.as_deref().is_some_and(|said| said.contains("waiting for Coder's own migrator")), "{said:?}");
    run(&mut conn, "ROLLBACK").await;
    assert!(check.wait().await.expect("its end").success());
}

#[tokio::test]
async fn unadopt_takes_away_what_another_runner_has_built_while_it_waited() {
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    run(&mut conn, "BEGIN; UPDATE provisioner_jobs SET updated_at = now()").await;
    let (waits, adopter_waits) = tokio::sync::oneshot::channel();
    let mut waits = Some(waits);
    let adopting = tokio::spawn({
        let (mut conn, options) = (database.connect().await, options(&database));
        async move {
            let on_event = |event: Event<'_>| {
                if matches!(event, Event::Building { .. }) {
                    waits.take().map(|waits| waits.send(()));
                }
            };
            migrate::adopt(&mut conn, &options, Adoption::default(), on_event).await
        }
    });
    adopter_waits.await.expect("it waits for the older transaction");
    let (waits, unadopter_waits) = tokio::sync::oneshot::channel();
    let mut waits = Some(waits);
    let unadopting = tokio::spawn({
        let (mut conn, options) = (database.connect().await, options(&database));
        async move {
            let on_event = |event: Event<'_>| {
                if matches!(event, Event::Waiting { .. }) {
                    waits.take().map(|waits| waits.send(()));
                }
            };
            migrate::unadopt(&mut conn, &options, on_event).await
        }
    });
    unadopter_waits.await.expect("it waits for the other runner");
    run(&mut conn, "COMMIT").await;
    adopting.await.expect("no panic").expect("adopted");
    assert_eq!(unadopting.await.expect("no panic").expect("gone").len(), 15);
    assert_eq!(dump(&database), before);
}

/// It has what it altered for itself until all of its files are done.
#[tokio::test]
async fn check_and_plan_do_not_wait_for_coders_migrator_to_end() {
    let (database, mut conn) = coder().await;
    let migrates =
        "BEGIN; TRUNCATE schema_migrations; LOCK TABLE provisioner_jobs, workspace_builds IN ACCESS EXCLUSIVE MODE";
    run(&mut conn, migrates).await;
    let said = "this database was made by Coder: run `coderdb migrate adopt`";
    fails(database.coderdb().args(["migrate", "check"]), 12, &[said]);
    run(&mut conn, "ROLLBACK").await;
    adopt(&database).await;
    run(&mut conn, migrates).await;
    let began = Instant::now();
    for command in [&["check"][..], &["adopt", "--plan"]] {
        let outcome = support::run(database.coderdb().arg("migrate").args(command));
        // Servers from 17 on want the table whose expressions they show.
        assert!([0, 5].contains(&outcome.code), "{}", outcome.stderr);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    run(&mut conn, "ROLLBACK").await;
    assert!(text(&database, &["check"], 0).starts_with("adopted from Coder's version 440: fits"));
}

#[tokio::test]
async fn up_takes_the_lock_of_coders_migrator_for_what_is_a_transaction() {
    let (database, mut conn) = (support::empty_database().await.directly(), None);
    let conn = conn.insert(database.connect().await);
    run(conn, TAKE).await;
    let patient = MigrateOptions { lock_retry_budget: Duration::from_millis(300), ..options(&database) };
    let error = migrate::up(&mut database.connect().await, &patient, |_| {}).await.expect_err("the lock is held");
    assert!(matches!(&error, Error::TableLock(lock) if lock.blockers.contains("Coder's own migrator")), "{error}");
    run(conn, GIVE_BACK).await;
    migrate::up(&mut database.connect().await, &patient, |_| {}).await.expect("migrated");
}

/// It updates jobs, and alters their table: whoever builds an index meanwhile would wait for it, and it for him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_of_coder_that_meets_the_build_of_an_index_comes_first() {
    let (database, mut conn) = coder().await;
    let adopting = tokio::spawn({
        let (mut conn, options) = (database.connect().await, options(&database));
        async move { migrate::adopt(&mut conn, &options, Adoption::default(), |_| {}).await }
    });
    // One after the other, so that a build meets one in any case.
    for _ in 0..10 {
        run(&mut conn, "BEGIN; UPDATE provisioner_jobs SET updated_at = now(); SELECT pg_sleep(0.1)").await;
        let alter =
            "ALTER TABLE provisioner_jobs ADD COLUMN zone text; ALTER TABLE provisioner_jobs DROP COLUMN zone; COMMIT";
        run(&mut conn, alter).await;
    }
    adopting.await.expect("no panic").expect("adopted");
    assert_eq!(machine(&database, &["verify"], 0)["clean"], true);
}

/// Killed anywhere, a plain run ends well, and the writer has seen nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_beside_a_writer_a_plain_run_ends_well_and_no_statement_of_it_fails() {
    let rounds = support::states::number_from_env("CODERDB_TEST_CASES").unwrap_or(1) * 5;
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    let writer = Writer::start(&database).await;
    rows(&mut conn, support::states::number_from_env("CODERDB_TEST_JOBS").unwrap_or(20_000)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let usual = writer.taken().1;
    let length = timed(&database, &["adopt"]);
    let back = timed(&database, &["unadopt", "--yes"]);
    for _ in 0..rounds {
        killed(&database, &["adopt"], length).await;
        text(&database, &["adopt"], 0);
        assert_eq!(machine(&database, &["verify"], 0)["clean"], true);
        killed(&database, &["unadopt", "--yes"], back).await;
        text(&database, &["unadopt", "--yes"], 0);
        assert_eq!(dump(&database), before);
    }
    let worst = writer.taken().1;
    if support::states::number_from_env("CODERDB_TEST_CASES").is_some() {
        for _ in 0..5 {
            let mut medians = Vec::new();
            for command in [&["adopt"][..], &["unadopt", "--yes"]] {
                let _ = writer.taken();
                tokio::time::sleep(Duration::from_secs(4)).await;
                medians.push(writer.taken().0);
                text(&database, command, 0);
            }
            println!("{medians:?} is the median without, and with what this layer adds");
        }
    }
    let done = writer.end().await;
    println!(
        "{done} transactions, at worst {usual:?} before, and {worst:?} beside {rounds} rounds of {length:?} and {back:?}"
    );
    assert!(worst < usual + Duration::from_secs(2), "{usual:?} before, {worst:?} beside it");
}

fn timed(database: &Database, args: &[&str]) -> Duration {
    let began = Instant::now();
    text(database, args, 0);
    began.elapsed()
}

/// Starts the program, and kills it somewhere before its usual end.
async fn killed(database: &Database, args: &[&str], length: Duration) {
    let mut command = Command::new(support::CODERDB);
    command.env_clear().envs(database.environment()).arg("migrate").args(args).kill_on_drop(true);
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    tokio::time::sleep(length.mul_f64(fastrand::f64())).await;
    child.kill().await.expect("a child");
}

async fn rows(conn: &mut sqlx::PgConnection, jobs: u64) {
    let history = format!(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, completed_at, organization_id, initiator_id, provisioner,
            storage_method, type, input, file_id, worker_id)
         SELECT gen_random_uuid(), now() - n * interval '1 minute', now(), now(), now(), md5('organization')::uuid, md5('user')::uuid, 'terraform',
            'file', 'workspace_build', '{{}}', md5('file')::uuid, md5('daemon')::uuid FROM generate_series(1, {jobs}) AS n"
    );
    sqlx::raw_sql(AssertSqlSafe(history)).execute(conn).await.expect("rows");
}
