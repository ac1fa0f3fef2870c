//! Where the engine keeps what it keeps, and that migrations go on in the schema where they began.

use std::process::Command;

use coderdb::{
    migrate::{self, Error, MigrateOptions},
    sqlx::PgConnection,
};

use super::{
    Set, ask, empty,
    environment::{drop_role, one, role, url_as, with_url},
    list, run,
};
use crate::support::{self, Database, fails};

const TABLES: &str = "SELECT n.nspname || '.' || c.relname FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";

fn in_schema(database: &Database, path: &str) -> String {
    format!("{}&options=-c%20search_path%3D{path}", database.url())
}

/// All but the last migration of this version, by a session of the default.
async fn all_but_the_last(database: &Database, conn: &mut PgConnection) {
    let options = MigrateOptions {
        target: Some(migrate::newest() - 1),
        ..super::options(database, migrate::Migrations::embedded())
    };
    migrate::up(conn, &options, |_| {}).await.unwrap();
}

#[tokio::test]
async fn what_the_engine_keeps_lies_in_the_schema_coderdb_and_nowhere_else() {
    let (database, mut conn) = empty().await;
    assert_eq!(support::run(&mut one().up(&database)).code, 0);
    let expected = ["coderdb.migration_log", "coderdb.refinery_schema_history", "public.one"];
    assert_eq!(list(&mut conn, TABLES).await, expected);
    // A history of another program, or of before, is its own.
    let (database, mut conn) = empty().await;
    run(
        &mut conn,
        "CREATE TABLE refinery_schema_history (version int4 PRIMARY KEY, name text, applied_on text, checksum text); \
         INSERT INTO refinery_schema_history VALUES (1, 'theirs', 'yesterday', 'x'); \
         CREATE TABLE coderdb_migration_log (id int)",
    )
    .await;
    assert_eq!(support::run(&mut one().up(&database)).code, 0);
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM public.refinery_schema_history").await, 1);
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await, 1);
}

#[tokio::test]
async fn migrations_go_on_in_the_schema_where_they_began_or_not_at_all() {
    let (database, mut conn) = empty().await;
    all_but_the_last(&database, &mut conn).await;
    let before = list(&mut conn, TABLES).await;
    // "$user" is the first of the default search_path.
    run(&mut conn, "CREATE SCHEMA postgres").await;
    let said = ["applied in the schema public", "works in postgres", "search_path"];
    fails(database.coderdb().args(["migrate", "up"]), 14, &said);
    let repair = ["migrate", "repair", "mark-applied", "2", "--yes"];
    fails(database.coderdb().args(repair), 14, &said);
    assert_eq!(list(&mut conn, TABLES).await, before);
    let rows = format!(
        "SELECT count(*) = {0} AND max(version) = {0} FROM coderdb.refinery_schema_history",
        migrate::newest() - 1
    );
    assert!(ask::<bool>(&mut conn, &rows).await);
    // Who only reads finds the tables behind the empty schema.
    database.coderdb().args(["migrate", "check"]).assert().code(3);
    fails(with_url(&in_schema(&database, "postgres"), &["check"]).args(["--wait", "0"]), 14, &said);

    assert_eq!(support::run(&mut with_url(&in_schema(&database, "public"), &["up"])).code, 0);
    assert_eq!(list(&mut conn, TABLES).await, before);
    let verified = support::run(database.coderdb().args(["migrate", "verify"]));
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    // With nothing to do there is nothing to refuse.
    database.coderdb().args(["migrate", "up"]).assert().code(0);
}

#[tokio::test]
async fn a_migration_of_several_statements_that_began_in_one_schema_is_not_ended_in_another() {
    let (database, mut conn) = empty().await;
    run(&mut conn, "CREATE SCHEMA other").await;
    let set = Set::of(&[("V0001__one", "-- coderdb: no-transaction\nCREATE TABLE one (a integer);\nSELECT 1 / 0;")]);
    fails(&mut set.up(&database), 11, &["division by zero"]);
    set.write("V0001__one", "-- coderdb: no-transaction\nCREATE TABLE one (a integer);\nCREATE TABLE two ();");
    let from = set.path().to_str().unwrap();
    let mut other = with_url(&in_schema(&database, "other"), &["up", "--from", from]);
    fails(&mut other, 14, &["applied in the schema public", "works in other"]);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('other.two') IS NULL").await);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    // One of which nothing is left may begin anywhere.
    let (database, mut conn) = empty().await;
    run(&mut conn, "CREATE SCHEMA other").await;
    fails(&mut Set::of(&[("V0001__one", "SELECT 1 / 0")]).up(&database), 10, &["division by zero"]);
    let mut other = with_url(&in_schema(&database, "other"), &["up", "--from", from]);
    assert_eq!(support::run(&mut other).code, 0);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('other.two') IS NOT NULL").await);
}

#[tokio::test]
async fn a_session_that_would_create_where_nothing_belongs_is_refused() {
    let (database, mut conn) = empty().await;
    for (path, said) in [
        ("coderdb", "no schema has been selected"),
        ("nowhere", "no schema has been selected"),
        ("pg_catalog,public", "the schema pg_catalog, which is not for that"),
        ("pg_temp", "which is not for that"),
    ] {
        fails(&mut with_url(&in_schema(&database, path), &["up"]), 14, &[said]);
    }
    run(&mut conn, "CREATE SCHEMA coderdb").await;
    fails(&mut with_url(&in_schema(&database, "coderdb"), &["up"]), 14, &["the schema coderdb, which is not for that"]);
    assert_eq!(list(&mut conn, TABLES).await, [""; 0]);
}

#[tokio::test]
async fn a_schema_of_any_name_is_migrated_verified_renamed_and_missed() {
    let (database, mut conn) = empty().await;
    run(&mut conn, "CREATE SCHEMA \"It's \"\"their\"\" own\"").await;
    let mut session = database.connect().await;
    run(&mut session, "SET search_path = \"It's \"\"their\"\" own\"").await;
    migrate::up(&mut session, &MigrateOptions::default(), |_| {}).await.unwrap();
    assert_eq!(
        list(&mut conn, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace").await,
        [""; 0]
    );
    let verified = migrate::verify(&mut session).await.unwrap();
    let drifts: Vec<_> = verified.drifts.iter().flatten().map(ToString::to_string).collect();
    assert_eq!((drifts, verified.extras.len()), (vec![], 0));

    // It is the same under another name, for those who look there.
    run(&mut conn, "ALTER SCHEMA \"It's \"\"their\"\" own\" RENAME TO renamed").await;
    fails(database.coderdb().args(["migrate", "check"]), 14, &["applied in the schema renamed", "works in public"]);
    fails(database.coderdb().args(["migrate", "verify"]), 14, &["applied in the schema renamed"]);
    let there = in_schema(&database, "renamed");
    for command in ["check", "verify", "up"] {
        let outcome = support::run(&mut with_url(&there, &[command]));
        assert_eq!(outcome.code, 0, "{command}: {}{}", outcome.stdout, outcome.stderr);
    }
    // Another schema of the old name is another one.
    run(&mut conn, "ALTER SCHEMA public RENAME TO old; CREATE SCHEMA public").await;
    fails(database.coderdb().args(["migrate", "check"]), 14, &["applied in the schema renamed"]);

    run(&mut conn, "SET client_min_messages = warning; DROP SCHEMA renamed CASCADE").await;
    for command in ["check", "verify", "status", "up", "plan"] {
        fails(
            &mut with_url(&there, &[command]),
            12,
            &["the schema that they were applied in is gone", "drop the schema coderdb"],
        );
    }
    // What is advised helps.
    run(&mut conn, "ALTER TABLE coderdb.migration_log ALTER schema SET DEFAULT 'public'::regnamespace::text").await;
    database.coderdb().args(["migrate", "check"]).assert().code(0);
    run(&mut conn, "DROP SCHEMA coderdb CASCADE").await;
    database.coderdb().args(["migrate", "up"]).assert().code(0);
}

#[tokio::test]
async fn a_dump_knows_where_its_migrations_were_applied() {
    let (database, mut conn) = empty().await;
    run(&mut conn, "CREATE SCHEMA app").await;
    let in_app = |database: &Database| in_schema(database, "app");
    all_but_the_last(&database, &mut {
        let mut app = database.connect().await;
        run(&mut app, "SET search_path = app").await;
        app
    })
    .await;
    let dump = Command::new("pg_dump")
        .arg("--no-owner")
        .arg(support::server().url(database.name()))
        .output()
        .expect("pg_dump");
    let said = String::from_utf8_lossy(&dump.stderr);
    if said.contains("server version mismatch") {
        println!("not tried: {said}");
        return;
    }
    assert!(dump.status.success(), "{said}");
    let (copy, _conn) = empty().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), dump.stdout).unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file.path()).arg(support::server().url(copy.name()));
    let restored = psql.output().expect("psql");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    fails(copy.coderdb().args(["migrate", "up"]), 14, &["applied in the schema app", "works in public"]);
    for (command, code) in [("check", 3), ("up", 0), ("check", 0), ("verify", 0)] {
        let outcome = support::run(&mut with_url(&in_app(&copy), &[command]));
        assert_eq!(outcome.code, code, "{command}: {}{}", outcome.stdout, outcome.stderr);
    }
}

#[tokio::test]
async fn a_file_that_refinery_would_run_instead_of_the_next_one_is_not_run() {
    let (database, mut conn) = empty().await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one ()"), ("V0002__two", "CREATE TABLE IF NOT EXISTS two ()")]);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0003__three", "CREATE TABLE three ()");
    // The history loses a row when it is read for the third time, which is when refinery reads it.
    run(
        &mut conn,
        "ALTER TABLE coderdb.refinery_schema_history RENAME TO rows; \
         CREATE VIEW coderdb.refinery_schema_history AS SELECT * FROM coderdb.rows WHERE version <> 2 OR set_config( \
         'test.looks', (coalesce(nullif(current_setting('test.looks', true), ''), '0')::integer + 1)::text, false) <> '3'",
    )
    .await;
    let mut session = database.connect().await;
    let error = migrate::up(&mut session, &set.options(&database), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Mixed { expected: Some(3), .. }), "{error:?}");
    assert!(error.to_string().contains("VALUES (2, 'two'"), "{error}");
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('three') IS NULL").await);
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.rows").await, 2);
    // Once it reads what is there, it goes on.
    run(&mut conn, "CREATE OR REPLACE VIEW coderdb.refinery_schema_history AS SELECT * FROM coderdb.rows").await;
    assert_eq!(migrate::up(&mut session, &set.options(&database), |_| {}).await.unwrap()[0].version, 3);
}

#[tokio::test]
async fn everybody_may_read_what_is_applied_and_whoever_is_allowed_to_who_did_it() {
    let (database, mut conn) = empty().await;
    // Whatever a careful administrator has taken away.
    run(
        &mut conn,
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC; \
         ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM PUBLIC",
    )
    .await;
    assert_eq!(support::run(database.coderdb().args(["migrate", "up"])).code, 0);
    let role = role(&mut conn, &database, "reader", "").await;
    run(&mut conn, &format!("GRANT USAGE ON SCHEMA public TO {role}")).await;
    let url = url_as(&database, &role);
    for args in [&["check"][..], &["status", "--exit-code"], &["plan"], &["verify"], &["up"]] {
        let outcome = support::run(&mut with_url(&url, args));
        assert_eq!(outcome.code, 0, "{args:?}: {}", outcome.stderr);
    }
    fails(&mut with_url(&url, &["history"]), 14, &["permission denied for table migration_log"]);
    run(&mut conn, &format!("GRANT SELECT ON coderdb.migration_log TO {role}")).await;
    assert_eq!(support::run(&mut with_url(&url, &["history"])).code, 0);
    // What was taken away again is not given back.
    run(&mut conn, "REVOKE USAGE ON SCHEMA coderdb FROM PUBLIC; DELETE FROM coderdb.refinery_schema_history WHERE version = (SELECT max(version) FROM coderdb.refinery_schema_history)").await;
    database.coderdb().args(["migrate", "up"]).assert().code(0);
    fails(&mut with_url(&url, &["check"]), 14, &["permission denied for schema coderdb"]);
    drop_role(&mut conn, &role).await;
}

#[tokio::test]
async fn a_role_without_the_database_migrates_once_an_administrator_has_made_the_schema() {
    let (database, mut conn) = empty().await;
    let role = role(&mut conn, &database, "owner", "").await;
    run(&mut conn, &format!("CREATE SCHEMA app AUTHORIZATION {role}; ALTER ROLE {role} SET search_path = app")).await;
    let url = url_as(&database, &role);
    fails(&mut with_url(&url, &["up"]), 14, &[&format!("CREATE on the database {}", database.name())]);
    assert_eq!(list(&mut conn, TABLES).await, [""; 0]);
    run(&mut conn, &format!("CREATE SCHEMA coderdb AUTHORIZATION {role}")).await;
    for command in ["up", "check", "verify"] {
        let outcome = support::run(&mut with_url(&url, &[command]));
        assert_eq!(outcome.code, 0, "{command}: {}{}", outcome.stdout, outcome.stderr);
    }
    drop_role(&mut conn, &role).await;
}
