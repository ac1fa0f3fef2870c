//! Many runners at once: each migration is applied once, and nobody fails. `CODERDB_TEST_CASES` is the number of rounds.

use std::time::Instant;

use coderdb::{
    connect::{self, Pooler},
    migrate::{self, MigrateOptions},
};
use tokio::task::JoinSet;

use super::{
    Set, ask, assert_same, clear, contents, empty,
    kill::{stepwise, transactional},
    list, run, until,
};
use crate::support::{self, Database, pgbouncer::PgBouncer, proxy::Proxy, states::number_from_env};

const RUNNERS: usize = 16;

fn rounds() -> u64 {
    number_from_env("CODERDB_TEST_CASES").unwrap_or(1)
}

/// What one runner alone leaves.
async fn undisturbed(set: &Set) -> Vec<String> {
    let (database, mut conn) = empty().await;
    migrate::up(&mut conn, &set.options(&database), |_| {}).await.unwrap();
    contents(&mut conn).await
}

/// Runners in this process, over this way to the database; how many migrations they applied.
async fn in_process(options: &connect::ConnectOptions, set: &Set) -> usize {
    let mut runners = JoinSet::new();
    for _ in 0..RUNNERS {
        let (connect, migrations) = (options.clone(), set.migrations());
        runners.spawn(async move {
            let mut conn = connect.connect().await.unwrap();
            let options = MigrateOptions { migrations, observer: Some(connect), ..MigrateOptions::default() };
            migrate::up(&mut conn, &options, |_| {}).await.unwrap_or_else(|error| panic!("{error:?}")).len()
        });
    }
    runners.join_all().await.iter().sum()
}

async fn race(sets: &[Set], through: Option<&PgBouncer>) {
    for set in sets {
        let expected = undisturbed(set).await;
        let (database, mut conn) = empty().await;
        let options = match through {
            Some(pgbouncer) => connect::ConnectOptions::from(pgbouncer.options(database.name())),
            None => connect::ConnectOptions::from(database.options()),
        };
        let all = set.migrations().iter().count();
        for round in 1..=rounds() {
            for applied in [0, 1] {
                clear(&mut conn).await;
                if applied == 1 {
                    let first = MigrateOptions { target: Some(1), ..set.options(&database) };
                    migrate::up(&mut conn, &first, |_| {}).await.unwrap();
                }
                assert_eq!(in_process(&options, set).await, all - applied, "round {round}");
                assert_same(&contents(&mut conn).await, &expected, &format!("round {round}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_runners_at_once_apply_everything_once() {
    race(&[transactional(), stepwise()], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_runners_at_once_apply_everything_once_through_a_pooler_of_sessions() {
    let pgbouncer = PgBouncer::start(Pooler::Session, 50);
    race(&[stepwise()], Some(&pgbouncer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_programs_at_once_all_succeed_with_fresh_and_with_pending_work() {
    let pgbouncer = PgBouncer::start(Pooler::Session, 50);
    let set = stepwise();
    let expected = undisturbed(&set).await;
    let (database, mut conn) = empty().await;
    for round in 1..=rounds() {
        for (applied, url) in [(0, database.url().to_owned()), (1, pgbouncer.url(database.name()))] {
            clear(&mut conn).await;
            if applied == 1 {
                assert_eq!(support::run(set.up(&database).args(["--target", "1"])).code, 0);
            }
            let mut programs: Vec<_> = (0..RUNNERS).map(|_| set.spawn(&url, &[])).collect();
            for program in &mut programs {
                assert_eq!(program.ends().await, 0, "round {round}: {}", program.said);
            }
            assert_same(&contents(&mut conn).await, &expected, &format!("round {round}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_of_transactions_that_nobody_named_a_runner_is_refused_or_works_but_nothing_is_done_twice() {
    let pgbouncer = PgBouncer::start(Pooler::Transaction, 4);
    let set = stepwise();
    let expected = undisturbed(&set).await;
    let (database, mut conn) = empty().await;
    let mut refused = 0;
    for round in 1..=rounds() {
        clear(&mut conn).await;
        let mut programs: Vec<_> = (0..RUNNERS).map(|_| set.spawn(&pgbouncer.url(database.name()), &[])).collect();
        for program in &mut programs {
            let code = program.ends().await;
            assert!([0, 14].contains(&code), "round {round}: {code} {}", program.said);
            refused += usize::from(code == 14);
        }
        // Locks that nobody gives back end with the sessions of the pooler.
        run(
            &mut conn,
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks \
             WHERE locktype = 'advisory') AND datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
        assert_eq!(support::run(&mut set.up(&database)).code, 0);
        assert_same(&contents(&mut conn).await, &expected, &format!("round {round}"));
    }
    // None, when all of them met the one session that has the lock.
    println!("{refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_versions_that_race_both_succeed_and_the_newer_one_wins() {
    for breaking in [false, true] {
        let newer = stepwise();
        let old = "ALTER TABLE things ADD COLUMN last integer";
        newer.write(if breaking { "V0004__breaking_last" } else { "V0004__last" }, old);
        let older = first_of(&newer, 2);
        let expected = undisturbed(&newer).await;
        let (database, mut conn) = empty().await;
        for round in 1..=rounds() {
            clear(&mut conn).await;
            let mut programs: Vec<_> =
                (0..8).map(|n| (n % 2, [&newer, &older][n % 2].spawn(database.url(), &[]))).collect();
            for (is_older, program) in &mut programs {
                let code = program.ends().await;
                let is_fine = code == 0 || (*is_older == 1 && breaking && code == 13);
                assert!(is_fine, "round {round}: {code} {}", program.said);
            }
            assert_same(&contents(&mut conn).await, &expected, &format!("round {round}"));
        }
    }
}

/// The first files of a set.
fn first_of(set: &Set, count: usize) -> Set {
    let first = Set::of(&[]);
    let mut files: Vec<_> = std::fs::read_dir(set.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().take(count) {
        std::fs::copy(file, first.path().join(file.file_name().unwrap())).unwrap();
    }
    first
}

/// A migration that takes as long as there is a row, or half a minute.
fn slow() -> Set {
    Set::of(&[
        ("V0001__slow", "CREATE TABLE slow (is_slow boolean); INSERT INTO slow VALUES (true)"),
        ("V0002__waits", "SELECT pg_sleep(30) FROM slow"),
    ])
}

async fn slow_database(set: &Set) -> (Database, coderdb::sqlx::PgConnection) {
    let (database, conn) = empty().await;
    assert_eq!(support::run(set.up(&database).args(["--target", "1"])).code, 0);
    (database, conn)
}

const SLEEPS: &str = "SELECT count(*) = 1 FROM pg_stat_activity \
                      WHERE datname = current_database() AND wait_event = 'PgSleep'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_killed_in_a_long_statement_is_replaced_by_a_waiter_that_named_it() {
    for victim in ["the program", "the server's process"] {
        let set = slow();
        let (database, mut conn) = slow_database(&set).await;
        let mut holder = set.spawn(database.url(), &[]);
        until(&mut conn, SLEEPS).await;
        let pid = list(
            &mut conn,
            "SELECT pid::text FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        )
        .await;
        let mut waiters: Vec<_> = (0..3).map(|_| set.spawn(database.url(), &[])).collect();
        for waiter in &mut waiters {
            let said = waiter.says("waiting for another runner").await;
            assert!(said.contains(&format!("pid {} (\"coderdb", pid[0])) && said.contains("from local"), "{said}");
        }
        // Whoever comes next finds nothing to wait for.
        run(&mut conn, "DELETE FROM slow").await;
        let killed = Instant::now();
        if victim == "the program" {
            holder.kill().await;
        } else {
            run(&mut conn, &format!("SELECT pg_terminate_backend({})", pid[0])).await;
        }
        until(&mut conn, "SELECT count(*) = 2 FROM coderdb.refinery_schema_history").await;
        println!("{victim} killed, replaced after {:?}", killed.elapsed());
        for waiter in &mut waiters {
            assert_eq!(waiter.ends().await, 0, "{}", waiter.said);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runners_that_wait_while_an_index_is_built_beside_its_users_are_in_nobodys_way() {
    let (database, mut conn) = empty().await;
    let set = Set::of(&[("V0001__things", "CREATE TABLE things (id integer)")]);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__index", "-- coderdb: no-transaction\nCREATE INDEX CONCURRENTLY things_id_idx ON things (id);");
    let proxy = Proxy::to(&database);
    proxy.only_the_next();
    proxy.hold_before("INDEX CONCURRENTLY");
    let mut holder = set.spawn(proxy.url(), &[]);
    proxy.held().await;
    let mut writer = database.connect().await;
    run(&mut writer, "BEGIN; INSERT INTO things VALUES (1)").await;
    proxy.release(false);
    let builds = "SELECT count(*) = 1 FROM pg_stat_progress_create_index WHERE datname = current_database()";
    until(&mut conn, builds).await;
    let mut waiters: Vec<_> = (0..RUNNERS).map(|_| set.spawn(database.url(), &[])).collect();
    for waiter in &mut waiters {
        waiter.says("waiting for another runner").await;
    }
    run(&mut writer, "COMMIT").await;
    assert_eq!(holder.ends().await, 0, "{}", holder.said);
    for waiter in &mut waiters {
        assert_eq!(waiter.ends().await, 0, "{}", waiter.said);
    }
    assert!(
        ask::<bool>(&mut conn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'things_id_idx'::regclass").await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_schemas_that_race_one_is_migrated_and_the_other_is_refused() {
    let (database, mut conn) = empty().await;
    run(&mut conn, "CREATE SCHEMA one; CREATE SCHEMA two").await;
    let set = transactional();
    let url = |schema: &str| format!("{}&options=-c%20search_path%3D{schema}", database.url());
    let mut programs: Vec<_> = (0..8).map(|n| set.spawn(&url(["one", "two"][n % 2]), &[])).collect();
    let mut codes = Vec::new();
    for program in &mut programs {
        codes.push(program.ends().await);
    }
    let home: String = ask(&mut conn, "SELECT DISTINCT schema FROM coderdb.migration_log").await;
    let expected = if home == "one" { [0, 14] } else { [14, 0] };
    assert_eq!(codes, expected.repeat(4), "{home}");
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await, 3);
    assert_eq!(ask::<i32>(&mut conn, &format!("SELECT n FROM {home}.counter")).await, 2);
    let others = "SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace \
                  WHERE nspname IN ('one', 'two', 'public') AND nspname <> (SELECT schema FROM coderdb.migration_log LIMIT 1))";
    assert_eq!(ask::<i64>(&mut conn, others).await, 0);
}
