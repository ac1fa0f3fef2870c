//! Whatever is killed wherever, one plain run ends in what an undisturbed installation has.
//!
//! Each round trip of a run is cut before it is sent, and after the server has done it and before its answer is read; at
//! each, the server's process is ended, and the program is killed.

use std::collections::BTreeMap;

use coderdb::{
    migrate::{self, Error, MigrateOptions, Migrations, Outcome},
    sqlx::PgConnection,
};

use super::{Set, ask, assert_same, clear, contents, empty, options, run, until};
use crate::support::{
    self, Database,
    proxy::{Cut, Proxy},
    states::number_from_env,
};

/// One transaction each, with several statements.
pub(super) fn transactional() -> Set {
    Set::of(&[
        (
            "V0001__things",
            "CREATE TABLE things (id integer PRIMARY KEY, name text NOT NULL);\nINSERT INTO things SELECT i, 'thing ' || i FROM generate_series(1, 20) AS i;\nCREATE TYPE mood AS ENUM ('good');",
        ),
        (
            "V0002__counter",
            "CREATE TABLE counter (n integer NOT NULL);\nINSERT INTO counter VALUES (0);\nUPDATE counter SET n = n + 1;",
        ),
        (
            "V0003__columns",
            "ALTER TABLE things ADD COLUMN mood mood DEFAULT 'good';\nUPDATE counter SET n = n + 1;\nCREATE INDEX things_name_idx ON things (name);\nCREATE FUNCTION twice(i integer) RETURNS integer LANGUAGE sql AS $$ SELECT 2 * i; $$;",
        ),
    ])
}

/// What cannot share a transaction, around statements that must be done exactly once.
pub(super) fn stepwise() -> Set {
    Set::of(&[
        (
            "V0001__things",
            "CREATE TABLE things (id integer PRIMARY KEY, name text NOT NULL, state text);\nINSERT INTO things SELECT i, 'thing ' || i FROM generate_series(1, 20) AS i;\nCREATE TYPE mood AS ENUM ('good');\nCREATE INDEX things_name_idx ON things (name);\nCREATE INDEX things_state_idx ON things (state);\nCREATE TABLE counter (n integer NOT NULL);\nINSERT INTO counter VALUES (0);",
        ),
        (
            "V0002__step_by_step",
            "-- coderdb: no-transaction\n\
            CREATE UNIQUE INDEX CONCURRENTLY things_name_new ON things (name, id);\n\
            UPDATE counter SET n = n + 1;\n\
            DROP INDEX CONCURRENTLY things_name_idx;\n\
            ALTER INDEX things_name_new RENAME TO things_name_idx;\n\
            DROP INDEX CONCURRENTLY IF EXISTS things_state_idx;\n\
            ALTER TABLE things ADD CONSTRAINT positive CHECK (id > 0) NOT VALID;\n\
            ALTER TABLE things VALIDATE CONSTRAINT positive;\n\
            ALTER TYPE mood ADD VALUE 'bad';\n\
            ALTER TABLE things ADD COLUMN mood mood DEFAULT 'bad';\n\
            UPDATE counter SET n = n + 1;",
        ),
        ("V0003__after", "CREATE INDEX things_mood_idx ON things (mood);\nUPDATE counter SET n = n + 1;"),
    ])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// The network is cut.
    Cut(Cut),
    /// The server's process is ended, before the round trip reaches it.
    Backend(usize),
}

/// A database that is migrated again and again.
struct World {
    database: Database,
    observer: PgConnection,
    migrations: Migrations,
    expected: Vec<String>,
    round_trips: usize,
}

impl World {
    async fn new(migrations: Migrations) -> Self {
        let (database, mut observer) = empty().await;
        let proxy = Proxy::to(&database);
        let options = options(&database, migrations);
        let mut conn = proxy.connect_options().connect().await.unwrap();
        proxy.take();
        migrate::up(&mut conn, &options, |_| {}).await.unwrap();
        let round_trips = proxy.take();
        let expected = contents(&mut observer).await;
        Self { database, observer, migrations: options.migrations, expected, round_trips }
    }

    fn options(&self) -> MigrateOptions {
        options(&self.database, self.migrations.clone())
    }

    /// Runs again, plainly, and compares with the undisturbed run.
    async fn again(&mut self, what: &str) {
        let mut conn = self.database.connect().await;
        let up = migrate::up(&mut conn, &self.options(), |_| {}).await;
        up.unwrap_or_else(|error| panic!("{what}, and again: {error}"));
        assert_same(&contents(&mut self.observer).await, &self.expected, what);
    }

    /// Strikes once, from an empty schema on. Says how it ended.
    async fn strike(&mut self, blow: Blow) -> Result<(), Error> {
        clear(&mut self.observer).await;
        let options = self.options();
        let proxy = Proxy::to(&self.database);
        match blow {
            Blow::Cut(cut) => {
                let mut conn = proxy.connect_options().connect().await.unwrap();
                proxy.cut(cut);
                let result = migrate::up(&mut conn, &options, |_| {}).await.map(drop);
                assert!(proxy.was_cut(), "{blow:?}");
                result
            }
            Blow::Backend(n) => {
                let mut conn = proxy.connect_options().connect().await.unwrap();
                let pid: i32 = ask(&mut conn, "SELECT pg_backend_pid()").await;
                proxy.hold(Cut::BeforeItIsSent(n));
                let observer = &mut self.observer;
                let kill = async {
                    proxy.held().await;
                    assert!(ask::<bool>(observer, &format!("SELECT pg_terminate_backend({pid}, 10000)")).await);
                    proxy.release(false);
                };
                let (result, ()) = tokio::join!(migrate::up(&mut conn, &options, |_| {}), kill);
                result.map(drop)
            }
        }
    }
}

/// Some of so many round trips, evenly and from a random one on; with `CODERDB_TEST_CASES`, that many times as many.
fn some_of(round_trips: usize, step: usize) -> impl Iterator<Item = usize> {
    let cases = number_from_env("CODERDB_TEST_CASES").map_or(1, |cases| usize::try_from(cases).unwrap_or(usize::MAX));
    let step = (step / cases).max(1);
    (fastrand::usize(1..=step)..=round_trips).step_by(step)
}

/// Strikes at every so many round trips, and checks what is said of each lost commit.
async fn strike_everywhere(migrations: Migrations, step: usize) -> BTreeMap<String, usize> {
    let mut world = World::new(migrations).await;
    let mut outcomes = BTreeMap::new();
    for n in some_of(world.round_trips, step) {
        for blow in [Blow::Cut(Cut::BeforeItIsSent(n)), Blow::Cut(Cut::BeforeItsAnswer(n)), Blow::Backend(n)] {
            let result = world.strike(blow).await;
            let outcome = match &result {
                Ok(()) => "applied",
                Err(Error::Unavailable(_)) => "unavailable",
                Err(Error::LostCommit(lost)) => {
                    // Only the server's own end can come between.
                    let is_done = matches!(blow, Blow::Cut(Cut::BeforeItsAnswer(_)));
                    let expected = if is_done { Outcome::Committed } else { Outcome::RolledBack };
                    assert_eq!(lost.outcome, expected, "{blow:?}");
                    if is_done { "lost and committed" } else { "lost and rolled back" }
                }
                Err(other) => panic!("{blow:?}: {other:?}"),
            };
            *outcomes.entry(outcome.to_owned()).or_default() += 1;
            world.again(&format!("{blow:?}, {outcome}")).await;
        }
    }
    println!("{} round trips: {outcomes:?}", world.round_trips);
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_or_ended_anywhere_a_transactional_migration_ends_well_when_run_again() {
    let outcomes = strike_everywhere(transactional().migrations(), 1).await;
    assert_eq!((outcomes["lost and committed"], outcomes["lost and rolled back"]), (3, 6));
    // Only the lock was not given back.
    assert_eq!(outcomes["applied"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_or_ended_anywhere_a_migration_without_a_transaction_ends_well_when_run_again() {
    let outcomes = strike_everywhere(stepwise().migrations(), 3).await;
    if number_from_env("CODERDB_TEST_CASES").is_some_and(|cases| cases >= 3) {
        // Three migrations, and seven statements with a transaction of their own.
        assert_eq!((outcomes["lost and committed"], outcomes["lost and rolled back"]), (10, 20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_or_ended_anywhere_the_migrations_of_this_version_end_well_when_run_again() {
    assert!(!strike_everywhere(Migrations::embedded(), 12).await.is_empty());
}

/// Kills the program at every so many round trips of its migrating session. The next run is one of the program, too.
async fn kill_everywhere(set: &Set, step: usize) {
    let (database, mut observer) = empty().await;
    let proxy = Proxy::to(&database);
    proxy.only_the_next();
    assert_eq!(set.spawn(proxy.url(), &[]).ends().await, 0);
    let round_trips = proxy.take();
    let expected = contents(&mut observer).await;
    // The first answer is that to the greeting.
    for n in some_of(round_trips - 1, step) {
        for cut in [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n + 1)] {
            clear(&mut observer).await;
            proxy.only_the_next();
            proxy.hold(cut);
            let mut program = set.spawn(proxy.url(), &[]);
            tokio::select! {
                () = proxy.held() => {}
                // The last of them comes behind the report.
                code = program.ends() => panic!("{cut:?} of {round_trips}: {code}"),
            }
            program.kill().await;
            proxy.release(true);
            let again = support::run(&mut set.up(&database));
            assert_eq!(again.code, 0, "{cut:?}: {}", again.stderr);
            assert_same(&contents(&mut observer).await, &expected, &format!("{cut:?}"));
        }
    }
    println!("{round_trips} round trips");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_killed_anywhere_ends_well_when_it_is_started_again() {
    kill_everywhere(&transactional(), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_killed_anywhere_without_a_transaction_ends_well_when_it_is_started_again() {
    kill_everywhere(&stepwise(), 6).await;
}

/// An index that is built, or dropped, while somebody is in the way of that.
const CONCURRENT: [&str; 2] =
    ["CREATE UNIQUE INDEX CONCURRENTLY made ON things (name)", "DROP INDEX CONCURRENTLY things_name_idx"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_concurrent_index_it_heals_what_is_left_invalid() {
    for sql in CONCURRENT {
        for kill in ["the server's process", "the program"] {
            let what = format!("{sql}, {kill}");
            let (database, mut observer) = empty().await;
            let things = "CREATE TABLE things (name text); CREATE INDEX things_name_idx ON things (name); \
                          INSERT INTO things VALUES ('a')";
            let set = Set::of(&[("V0001__things", things)]);
            assert_eq!(support::run(&mut set.up(&database)).code, 0);
            set.write("V0002__index", &format!("-- coderdb: no-transaction\n{sql};"));
            let proxy = Proxy::to(&database);
            proxy.only_the_next();
            proxy.hold_before("INDEX CONCURRENTLY");
            let mut program = set.spawn(proxy.url(), &[]);
            proxy.held().await;
            // Whom it has seen by now, it waits for with nothing begun.
            let mut reader = database.connect().await;
            run(&mut reader, "BEGIN; INSERT INTO things VALUES ('b')").await;
            proxy.release(false);
            let waits = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                         AND cardinality(pg_blocking_pids(pid)) > 0";
            until(&mut observer, &format!("SELECT count(*) = 1 {waits}")).await;
            let invalid = "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive) \
                           AND indrelid = 'things'::regclass";
            assert_eq!(ask::<i64>(&mut observer, invalid).await, 1, "{what}");
            if kill == "the program" {
                program.kill().await;
                until(&mut observer, &format!("SELECT count(*) = 0 {waits}")).await;
            } else {
                run(&mut observer, &format!("SELECT pg_terminate_backend(pid) {waits}")).await;
                assert_eq!(program.ends().await, 4, "{what}");
            }
            assert_eq!(ask::<i64>(&mut observer, invalid).await, 1, "{what}");
            run(&mut reader, "COMMIT").await;

            let again = support::run(&mut set.up(&database));
            assert_eq!(again.code, 0, "{what}: {}", again.stderr);
            assert_eq!(ask::<i64>(&mut observer, invalid).await, 0, "{what}");
            let indexes = "SELECT coalesce(string_agg(indexname, ' ' ORDER BY indexname), '') FROM pg_indexes WHERE tablename = 'things'";
            let expected = if sql.starts_with("CREATE") { "made things_name_idx" } else { "" };
            assert_eq!(ask::<String>(&mut observer, indexes).await, expected, "{what}");
        }
    }
}
