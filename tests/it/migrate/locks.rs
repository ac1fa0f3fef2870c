//! A table that somebody else has: who that is, what is left alone, and that nobody waits for ever.

use std::time::{Duration, Instant};

use coderdb::{
    connect,
    migrate::{self, Error, Event, MigrateOptions},
    sqlx::{self, AssertSqlSafe, PgConnection},
};

use super::{
    Set, ask, empty,
    environment::{drop_role, role, url_as, with_url},
    run, until,
};
use crate::support::{
    self, fails,
    proxy::Proxy,
    streaming::{Node, Streaming},
};

#[tokio::test]
async fn a_table_that_is_never_free_is_given_up_and_whoever_has_it_idle_in_a_transaction_is_named() {
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")]);
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__two", "CREATE TABLE two (); ALTER TABLE one ADD COLUMN b integer");
    let mut reader = database.connect().await;
    run(&mut reader, "SET application_name = 'a slow report'; BEGIN; LOCK TABLE one IN ACCESS SHARE MODE").await;
    let pid: i32 = ask(&mut reader, "SELECT pg_backend_pid()").await;
    let who = format!("behind pid {pid} (client backend 'a slow report', idle in transaction for ");
    let lock_retry_budget = Duration::from_millis(400);
    let options = MigrateOptions { lock_retry_budget, ..set.options(&database) };
    match migrate::up(&mut conn, &options, |_| {}).await.unwrap_err() {
        error @ Error::TableLock { .. } => {
            let said = error.to_string();
            assert!(said.contains("no lock on one within 0s") && said.contains(&who), "{said}");
        }
        other => panic!("{other:?}"),
    }
    support::fails(
        set.up(&database).args(["--lock-patience", "400ms"]),
        6,
        &["no lock on one", &who, "nothing changed"],
    );
    // Of a statement of a file without a transaction, too: what was before it is done, and is not done again.
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NULL").await);
    let stepwise = "-- coderdb: no-transaction\nCREATE TABLE two (); ALTER TABLE one ADD COLUMN b integer";
    set.write("V0002__two", stepwise);
    support::fails(set.up(&database).args(["--lock-patience", "400ms"]), 6, &["no lock on one", &who]);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NOT NULL").await);
    run(&mut reader, "COMMIT").await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
}

/// Whoever migrates may be a superuser, or own what he migrates and see nothing of others: the least that docs/operations.md
/// names. An autovacuum steps aside after a time that only a superuser may change.
#[tokio::test]
async fn an_autovacuum_steps_aside_for_the_least_role() {
    for (more, deadlock_timeout) in [("SUPERUSER", "1s"), ("", "1s"), ("", "3s")] {
        let server = Streaming::start(0, "DROP SCHEMA coderdb CASCADE").await.primary;
        server.set(&format!("deadlock_timeout = '{deadlock_timeout}'")).await;
        let mut admin = server.connect().await;
        run(&mut admin, &format!("CREATE ROLE least LOGIN {more}; CREATE SCHEMA least AUTHORIZATION least")).await;
        run(&mut admin, "CREATE SCHEMA coderdb AUTHORIZATION least").await;
        let connect = connect::ConnectOptions::from(server.options().username("least"));
        let mut conn = connect.connect().await.unwrap();
        let set = Set::of(&[(
            "V0001__one",
            // So slow that it would take hours.
            "CREATE TABLE one (a integer) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
                 autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
             INSERT INTO one SELECT generate_series(1, 100000)",
        )]);
        let options = |set: &Set| MigrateOptions {
            migrations: set.migrations(),
            observer: Some(connect.clone()),
            ..MigrateOptions::default()
        };
        migrate::up(&mut conn, &options(&set), |_| {}).await.unwrap();
        // Before 15, a session that idles keeps its statistics to itself until it ends.
        server.run(&["DELETE FROM least.one"]).await;
        server.set("autovacuum_naptime = 1").await;
        server.set("autovacuum = on").await;
        server.until("SELECT count(*) = 1 FROM pg_stat_progress_vacuum WHERE relid = 'least.one'::regclass").await;
        set.write("V0002__two", "ALTER TABLE one ADD COLUMN b integer");
        let start = Instant::now();
        let mut said = Vec::new();
        let options = options(&set);
        let applied = migrate::up(&mut conn, &options, |event| {
            if let Event::Retrying { blockers, .. } = event {
                said.push(blockers.to_owned());
            }
        });
        applied.await.unwrap_or_else(|error| panic!("{error}"));
        println!("{more:?}: an autovacuum stepped aside after {:?}", start.elapsed());
        assert!(said.iter().all(|said| said.contains("autovacuum worker")), "{said:?}");
        let log = std::fs::read_to_string(server.socket().parent().unwrap().with_extension("log")).unwrap();
        assert!(log.contains("canceling autovacuum task"), "{log}");
    }
}

/// A database of a role that may see nothing of others, and the way to it.
async fn least(more: &str) -> (support::Database, PgConnection, String, String) {
    let (database, mut conn) = empty().await;
    let role = role(&mut conn, &database, "least", more).await;
    run(
        &mut conn,
        &format!("ALTER DATABASE {} OWNER TO {role}; CREATE SCHEMA {role} AUTHORIZATION {role}", database.name()),
    )
    .await;
    let url = url_as(&database, &role);
    (database, conn, role, url)
}

async fn drop_least(database: &support::Database, conn: &mut PgConnection, role: &str) {
    run(conn, &format!("ALTER DATABASE {} OWNER TO postgres", database.name())).await;
    drop_role(conn, role).await;
}

#[tokio::test]
async fn whoever_is_in_the_way_is_named_without_holes_whatever_the_role_may_see() {
    let (database, mut conn, role, url) = least("").await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")]);
    let from = set.path().to_str().unwrap();
    let up = || {
        let mut up = with_url(&url, &["up", "--from", from, "--lock-patience", "400ms"]);
        up.timeout(Duration::from_mins(1));
        up
    };
    assert_eq!(support::run(&mut up()).code, 0);
    set.write("V0002__two", "ALTER TABLE one ADD COLUMN b integer");
    // Somebody else's session.
    let mut reader = database.connect().await;
    run(&mut reader, &format!("SET application_name = 'a report'; BEGIN; LOCK TABLE {role}.one IN ACCESS SHARE MODE"))
        .await;
    let pid: i32 = ask(&mut reader, "SELECT pg_backend_pid()").await;
    let hidden = format!("behind pid {pid} ('a report' of the role postgres, whose state is hidden from {role})");
    support::fails(&mut up(), 6, &["no lock on", &hidden]);
    run(&mut reader, "SET application_name = ''").await;
    let nameless = format!("behind pid {pid} (of the role postgres, whose state is hidden from {role})");
    support::fails(&mut up(), 6, &[&nameless]);
    // The holder of the runner's lock is somebody else's, too.
    run(&mut reader, "SELECT pg_advisory_lock(x'636f6465726462'::bigint)").await;
    let holder = format!("pid {pid} (\"\" from unknown)");
    support::fails(up().args(["--runner-lock-timeout", "0"]), 5, &[&holder]);
    run(&mut reader, "SELECT pg_advisory_unlock_all(); COMMIT").await;
    // Its own, with and without a name.
    let mut own = <PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    run(&mut own, "BEGIN; LOCK TABLE one IN ACCESS SHARE MODE").await;
    let pid: i32 = ask(&mut own, "SELECT pg_backend_pid()").await;
    support::fails(&mut up(), 6, &[&format!("behind pid {pid} (client backend, idle in transaction for ")]);
    run(&mut own, "COMMIT").await;
    assert_eq!(support::run(&mut up()).code, 0);
    drop_least(&database, &mut conn, &role).await;
}

#[tokio::test]
async fn a_prepared_transaction_in_the_way_is_named() {
    let server = Streaming::start(0, "DROP SCHEMA public, coderdb CASCADE; CREATE SCHEMA public").await.primary;
    let mut conn = server.connect().await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")]);
    let options = |set: &Set| MigrateOptions {
        migrations: set.migrations(),
        observer: Some(connect::ConnectOptions::from(server.options())),
        lock_retry_budget: Duration::from_millis(400),
        ..MigrateOptions::default()
    };
    migrate::up(&mut conn, &options(&set), |_| {}).await.unwrap();
    run(&mut conn, "BEGIN; INSERT INTO one VALUES (1); PREPARE TRANSACTION 'left behind'").await;
    run(&mut conn, "BEGIN; CREATE TABLE other (); PREPARE TRANSACTION 'not in the way'").await;
    set.write("V0002__two", "ALTER TABLE one ADD COLUMN b integer");
    let said = migrate::up(&mut conn, &options(&set), |_| {}).await.unwrap_err().to_string();
    let expected = "behind the prepared transaction 'left behind' of the role postgres, for ";
    assert!(said.contains(expected) && !said.contains("not in the way"), "{said}");
}

#[tokio::test]
async fn a_session_that_works_as_another_role_is_canceled_in_time() {
    // The role that owns the tables may not see or cancel what the role that has logged in does.
    let (database, mut conn, owner, _) = least("").await;
    let login = role(&mut conn, &database, "login", &format!("IN ROLE {owner}")).await;
    run(&mut conn, &format!("ALTER ROLE {login} SET role = '{owner}'")).await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")]);
    let from = set.path().to_str().unwrap();
    let url = url_as(&database, &login);
    assert_eq!(support::run(&mut with_url(&url, &["up", "--from", from])).code, 0);
    set.write("V0002__two", "SELECT pg_sleep(60)");
    let mut program = set.spawn(&url, &["--grace", "0s"]);
    let sleeps = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    until(&mut conn, &format!("SELECT count(*) = 1 {sleeps}")).await;
    program.signal("TERM");
    assert_eq!(program.ends().await, 143, "{}", program.said);
    // Not left behind, to end when the server misses its client.
    assert_eq!(ask::<i64>(&mut conn, &format!("SELECT count(*) {sleeps}")).await, 0);
    run(&mut conn, &format!("DROP OWNED BY {login}; DROP ROLE {login}")).await;
    drop_least(&database, &mut conn, &owner).await;
}

/// A table with an index, and a migration that builds another one, or drops that.
async fn indexed(sql: &str) -> (Set, Node, PgConnection) {
    let server = Streaming::start(0, "DROP SCHEMA public, coderdb CASCADE; CREATE SCHEMA public").await.primary;
    let mut conn = server.connect().await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer); CREATE INDEX there ON one (a)")]);
    let options = MigrateOptions { migrations: set.migrations(), ..MigrateOptions::default() };
    migrate::up(&mut conn, &options, |_| {}).await.unwrap();
    set.write("V0002__index", &format!("-- coderdb: no-transaction\n{sql}"));
    (set, server, conn)
}

const INVALID: &str = "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)";

#[tokio::test]
async fn an_index_waits_for_older_transactions_within_the_lock_retry_budget_and_names_them() {
    for sql in ["CREATE INDEX CONCURRENTLY made ON one (a)", "DROP INDEX CONCURRENTLY there"] {
        let (set, server, mut conn) = indexed(sql).await;
        let dump = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM one";
        let mut held_up = vec![
            (dump, "COMMIT", "(client backend 'somebody', idle in transaction for "),
            ("BEGIN; INSERT INTO one VALUES (1)", "COMMIT", "(client backend 'somebody', idle in transaction for "),
            (
                "BEGIN; INSERT INTO one VALUES (1); PREPARE TRANSACTION 'left'",
                "ROLLBACK PREPARED 'left'",
                "the prepared transaction 'left' of the role postgres",
            ),
        ];
        if sql.starts_with("CREATE") {
            held_up.push(("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1", "COMMIT", "(client backend 'somebody', "));
        }
        for (begin, end, who) in held_up {
            let mut other = server.connect().await;
            run(&mut other, &format!("SET application_name = 'somebody'; {begin}")).await;
            let observer = Some(connect::ConnectOptions::from(server.options()));
            for observer in [observer, None] {
                let lock_retry_budget = Duration::from_millis(300);
                let options = MigrateOptions {
                    migrations: set.migrations(),
                    observer,
                    lock_retry_budget,
                    ..MigrateOptions::default()
                };
                let mut said = String::new();
                let error = migrate::up(&mut conn, &options, |event| {
                    if let Event::Building { progress, .. } = event {
                        said = format!("{progress:?}");
                    }
                })
                .await
                .unwrap_err();
                let Error::OlderTransactions(older) = &error else { panic!("{begin}: {error:?}") };
                assert!(older.blockers.contains(who) && !older.is_left, "{begin}: {error}");
                assert!(said.contains("waiting for older transactions") && said.contains(who), "{begin}: {said}");
                assert_eq!(ask::<i64>(&mut conn, INVALID).await, 0, "{begin}");
            }
            run(&mut other, end).await;
        }
        // Who has read the table, and looks at nothing now, is in nobody's way.
        let mut reader = server.connect().await;
        if sql.starts_with("CREATE") {
            run(&mut reader, "BEGIN; SELECT FROM one").await;
        }
        let options = MigrateOptions { migrations: set.migrations(), ..MigrateOptions::default() };
        assert_eq!(migrate::up(&mut conn, &options, |_| {}).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_index_that_met_a_transaction_on_its_way_is_given_up_and_what_is_left_of_it_is_dropped_or_named() {
    for sql in ["CREATE INDEX CONCURRENTLY made ON one (a)", "DROP INDEX CONCURRENTLY there"] {
        for (begin, is_left) in
            [("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1", false), ("BEGIN; INSERT INTO one VALUES (1)", true)]
        {
            if sql.starts_with("DROP") && !is_left {
                continue;
            }
            let what = format!("{sql}: {begin}");
            let (database, mut conn) = empty().await;
            let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer); CREATE INDEX there ON one (a)")]);
            assert_eq!(support::run(&mut set.up(&database)).code, 0);
            set.write("V0002__index", &format!("-- coderdb: no-transaction\n{sql};"));
            let proxy = Proxy::to(&database);
            proxy.only_the_next();
            proxy.hold_before("INDEX CONCURRENTLY");
            let mut program = set.spawn(proxy.url(), &["--lock-patience", "1500ms", "--lock-timeout", "300ms"]);
            proxy.held().await;
            let mut other = database.connect().await;
            run(&mut other, &format!("SET application_name = 'somebody'; {begin}")).await;
            proxy.release(false);
            program.says("behind pid ").await;
            assert_eq!(program.ends().await, 6, "{what}: {}", program.said);
            let left = if is_left { "it is left invalid, and the next run drops it" } else { "nothing changed" };
            for part in ["has waited for older transactions for 1s, behind pid ", "'somebody'", left, "--lock-patience"]
            {
                assert!(program.said.contains(part), "{what}: {part:?} is not in {}", program.said);
            }
            assert_eq!(ask::<i64>(&mut conn, INVALID).await, i64::from(is_left), "{what}");
            // As long as it is there, it is not built anew, either.
            let mut again = set.up(&database);
            fails(
                again.args(["--lock-patience", "100ms"]),
                6,
                &["has waited for older transactions", "'somebody'", left],
            );
            run(&mut other, "COMMIT").await;
            assert_eq!(support::run(&mut set.up(&database)).code, 0);
            assert_eq!(ask::<i64>(&mut conn, INVALID).await, 0, "{what}");
        }
    }
}

#[tokio::test]
async fn an_index_names_whose_snapshot_it_waits_for_whatever_the_role_may_see() {
    let (database, mut conn, role, url) = least("").await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")]);
    let from = set.path().to_str().unwrap();
    assert_eq!(support::run(&mut with_url(&url, &["up", "--from", from])).code, 0);
    set.write("V0002__index", "-- coderdb: no-transaction\nCREATE INDEX CONCURRENTLY one_a ON one (a)");
    let mut other = database.connect().await;
    run(&mut other, "SET application_name = 'a dump'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    let pid: i32 = ask(&mut other, "SELECT pg_backend_pid()").await;
    let who = format!("behind pid {pid} ('a dump' of the role postgres, whose state is hidden from {role})");
    let mut up = with_url(&url, &["up", "--from", from, "--lock-patience", "1s"]);
    fails(&mut up, 6, &["waiting for older transactions, 0 of 1", &who, "nothing changed"]);
    let there = "SELECT count(*) FROM pg_class WHERE relname = 'one_a'";
    assert_eq!(ask::<i64>(&mut conn, there).await, 0);
    run(&mut other, "COMMIT").await;
    assert_eq!(support::run(&mut up).code, 0);
    drop_least(&database, &mut conn, &role).await;
}

#[tokio::test]
async fn a_repair_leaves_an_index_alone_that_somebody_else_builds() {
    let (database, mut conn, role, url) = least("").await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (a integer)")]);
    let from = set.path().to_str().unwrap();
    assert_eq!(support::run(&mut with_url(&url, &["up", "--from", from])).code, 0);
    let mut writer = database.connect().await;
    run(&mut writer, &format!("BEGIN; INSERT INTO {role}.one VALUES (1)")).await;
    let mut builder = database.connect().await;
    let build = format!("CREATE INDEX CONCURRENTLY one_a ON {role}.one (a)");
    let building = tokio::spawn(async move { run(&mut builder, &build).await });
    until(&mut conn, "SELECT count(*) = 1 FROM pg_index AS i WHERE NOT indisvalid").await;
    let repair = || support::run(&mut with_url(&url, &["repair", "drop-invalid-indexes", "--yes"]));
    assert_eq!(repair().stdout, "There is nothing to repair.\n");
    run(&mut writer, "COMMIT").await;
    building.await.unwrap();
    assert!(
        ask::<bool>(&mut conn, &format!("SELECT indisvalid FROM pg_index WHERE indexrelid = '{role}.one_a'::regclass"))
            .await
    );
    run(&mut conn, &format!("INSERT INTO {role}.one VALUES (2), (2)")).await;
    let twice = format!("CREATE UNIQUE INDEX CONCURRENTLY one_b ON {role}.one (a)");
    sqlx::raw_sql(AssertSqlSafe(twice)).execute(&mut conn).await.unwrap_err();
    assert_eq!(repair().stdout, "one_b\n");
    drop_least(&database, &mut conn, &role).await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_missed() {
    let set = Set::of(&[("V0001__one", "SELECT 1"), ("V0002__two", "SELECT 2"), ("V0003__three", "SELECT 3")]);
    let (database, _conn) = empty().await;
    assert_eq!(support::run(set.up(&database).args(["--target", "2"])).code, 0);
    std::fs::remove_file(set.path().join("V0001__one.sql")).unwrap();
    support::fails(&mut set.up(&database), 12, &["V0001__one: was applied by another coderdb"]);
}
