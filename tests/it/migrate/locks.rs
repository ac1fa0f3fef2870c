//! A table that somebody else has: who that is, what is left alone, and that nobody waits for ever.

use std::time::{Duration, Instant};

use coderdb::{
    connect,
    migrate::{self, Error, Options},
};

use super::{Set, ask, empty, run};
use crate::support::{self, streaming::Streaming};

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
    let patience = Duration::from_millis(400);
    let options = Options { patience, ..set.options(&database) };
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

#[tokio::test]
async fn an_autovacuum_steps_aside() {
    let server = Streaming::start(0, "DROP SCHEMA coderdb CASCADE; CREATE SCHEMA mine").await.primary;
    let mut conn = server.connect().await;
    run(&mut conn, "SET search_path = mine").await;
    let set = Set::of(&[(
        "V0001__one",
        // So slow that it would take hours.
        "CREATE TABLE one (a integer) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
             autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
         INSERT INTO one SELECT generate_series(1, 100000)",
    )]);
    let second = Some(connect::Options::from(server.options()));
    let options = |set: &Set| Options { migrations: set.migrations(), second: second.clone(), ..Options::default() };
    migrate::up(&mut conn, &options(&set), |_| {}).await.unwrap();
    run(&mut conn, "DELETE FROM one").await;
    server.set("autovacuum_naptime = 1").await;
    server.set("autovacuum = on").await;
    server.until("SELECT count(*) = 1 FROM pg_stat_progress_vacuum WHERE relid = 'mine.one'::regclass").await;
    set.write("V0002__two", "ALTER TABLE one ADD COLUMN b integer");
    let start = Instant::now();
    migrate::up(&mut conn, &options(&set), |_| {}).await.unwrap_or_else(|error| panic!("{error}"));
    println!("an autovacuum stepped aside after {:?}", start.elapsed());
    let log = std::fs::read_to_string(server.socket().parent().unwrap().with_extension("log")).unwrap();
    assert!(log.contains("canceling autovacuum task"), "{log}");
}

#[tokio::test]
async fn a_file_that_is_gone_is_missed() {
    let set = Set::of(&[("V0001__one", "SELECT 1"), ("V0002__two", "SELECT 2"), ("V0003__three", "SELECT 3")]);
    let (database, _conn) = empty().await;
    assert_eq!(support::run(set.up(&database).args(["--target", "2"])).code, 0);
    std::fs::remove_file(set.path().join("V0001__one.sql")).unwrap();
    support::fails(&mut set.up(&database), 12, &["V0001__one: was applied by another coderdb"]);
}
