//! What a person reads when the server refuses a statement: where it stands in which file, and what is left of it.

use coderdb::migrate::{self, Error};

use super::{Set, ask, empty, run, until};
use crate::support::{self, fails};

/// What is said of a file that fails as the second migration, without the directory of the test.
async fn said(sql: &str) -> String {
    let set = Set::of(&[("V0001__base", "CREATE TABLE base (id integer, CONSTRAINT positive CHECK (id > 0))")]);
    let (database, _conn) = empty().await;
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0002__wrong", sql);
    let outcome = support::run(&mut set.up(&database));
    assert_eq!(outcome.stdout, "");
    let directory = format!("{}/", set.path().display());
    let said = outcome.stderr.replace(&directory, "").replace("applying V0002__wrong\n", "");
    format!("{said}exit {}\n", outcome.code)
}

/// As it is printed, but for the line behind this one.
async fn golden(sql: &str, expected: &str) {
    let said = said(sql).await;
    assert_eq!(said, expected, "\n{said}\n{expected}");
}

#[tokio::test]
async fn a_position_in_the_middle_of_several_statements_is_shown() {
    golden(
        "CREATE TABLE one (a integer);\n-- a comment; with a semicolon\nINSERT INTO one VALUES (1);\n\nALTER TABLE one\n  ADD COLUMN b integer,\n  ADD COLUMN c intt;\nSELECT 1;\n",
        "error[42704]: type \"intt\" does not exist
  --> V0002__wrong.sql:7:16   (statement 3 of 4)
  |
7 |   ADD COLUMN c intt;
  |                ^
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn a_syntax_error_is_that_of_its_statement() {
    golden(
        "SELECT 1;\nSELECT 2;\nSELECT 3 FROM WHERE;",
        "error[42601]: syntax error at or near \"WHERE\"
  --> V0002__wrong.sql:3:15   (statement 3 of 3)
  |
3 | SELECT 3 FROM WHERE;
  |               ^
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn what_is_missing_at_the_end_is_shown_there() {
    golden(
        "SELECT 1;\nCREATE TABLE one (\n  a integer\n",
        "error[42601]: syntax error at end of input
  --> V0002__wrong.sql:4:1   (statement 2 of 2)
  |
4 | \n  | ^
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn a_refusal_without_a_position_is_shown_at_its_statement() {
    golden(
        "CREATE TABLE one (a integer);\n\n  -- it holds no such row\n  INSERT INTO base VALUES (1), (-2);\nSELECT 1;",
        "error[23514]: new row for relation \"base\" violates check constraint \"positive\"
  --> V0002__wrong.sql:4:3   (statement 2 of 3)
  |
4 |   INSERT INTO base VALUES (1), (-2);
  |   ^
  = detail: Failing row contains (-2).
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn a_refusal_in_a_body_is_shown_at_its_statement_with_the_hint() {
    golden(
        "DO $$\nBEGIN\n  PERFORM 1;\n  PERFORM no_such(2);\nEND $$;",
        "error[42883]: function no_such(integer) does not exist
  --> V0002__wrong.sql:1:1   (statement 1 of 1)
  |
1 | DO $$
  | ^
  = hint: No function matches the given name and argument types. You might need to add explicit type casts.
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn a_caret_stands_right_behind_tabs() {
    golden(
        "SELECT\n\t\t1, nothing;",
        "error[42703]: column \"nothing\" does not exist
  --> V0002__wrong.sql:2:6   (statement 1 of 1)
  |
2 | \t\t1, nothing;
  | \t\t   ^
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn a_caret_stands_right_behind_wide_characters_and_accents() {
    golden(
        "-- é\nSELECT 'é', '漢字', nothing;",
        "error[42703]: column \"nothing\" does not exist
  --> V0002__wrong.sql:2:19   (statement 1 of 1)
  |
2 | SELECT 'é', '漢字', nothing;
  |              \u{3000}\u{3000}   ^
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

#[tokio::test]
async fn a_statement_of_a_file_without_a_transaction_is_shown_at_its_place_in_the_file() {
    golden(
        "-- coderdb: no-transaction\nCREATE TABLE one (a integer);\n\nALTER TABLE one ADD COLUMN b intt;\nSELECT 1;",
        "error[42704]: type \"intt\" does not exist
  --> V0002__wrong.sql:4:30   (statement 2 of 3)
  |
4 | ALTER TABLE one ADD COLUMN b intt;
  |                              ^
  = state: not recorded; running again goes on behind the last statement that is done
next:  fix the statement, leave those before it as they are, and run `coderdb migrate up` again
exit 11
",
    )
    .await;
}

#[tokio::test]
async fn a_concurrent_index_that_the_catalog_cannot_be_asked_about_is_refused() {
    golden(
        "-- coderdb: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS base_id ON base (id);",
        "error: V0002__wrong.sql: statement 1: expected CREATE [UNIQUE] INDEX CONCURRENTLY name ON table, or DROP INDEX \
         CONCURRENTLY name, with plain names and without IF NOT EXISTS, which would accept an invalid index\nexit 11\n",
    )
    .await;
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_the_commit_is_no_statement() {
    golden(
        "CREATE TABLE one (a integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO one VALUES (1), (1);",
        "error[23505]: duplicate key value violates unique constraint \"one_pkey\"
  --> V0002__wrong.sql
  = detail: Key (a)=(1) already exists.
  = state: rolled back; the migration is not recorded, those before it are
next:  fix the file and run `coderdb migrate up` again
exit 10
",
    )
    .await;
}

/// What is said about the next step, when the program applies what it has itself.
async fn next(database: &support::Database, before: &str, args: &[&str]) -> (i32, String) {
    let mut conn = database.connect().await;
    run(&mut conn, before).await;
    let outcome = support::run(database.coderdb().args(["migrate", "up"]).args(args));
    let next = outcome.stderr.lines().find(|line| line.starts_with("next:")).unwrap_or_default();
    (outcome.code, next.to_owned())
}

#[tokio::test]
async fn nobody_is_told_to_fix_a_file_that_he_does_not_have() {
    let foreign_code = "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
        VALUES (gen_random_uuid(), 'o', '', now(), now(), '');
        INSERT INTO provisioner_jobs
            (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id,
             error_code)
        SELECT gen_random_uuid(), now(), now(), id, id, 'echo', 'file', 'workspace_build', '{}', id, 'OUT_OF_DISK'
        FROM organizations";
    let (database, _conn) = empty().await;
    assert_eq!(support::run(database.coderdb().args(["migrate", "up", "--target", "3"])).code, 0);
    let (code, next) = next(&database, foreign_code, &[]).await;
    assert_eq!(code, 10);
    assert!(next.contains("mend what stands in the way in the database"), "{next}");
}

#[tokio::test]
async fn a_canceled_statement_is_no_fault_of_a_file() {
    for (directive, code) in [("", 10), ("-- coderdb: no-transaction\n", 11)] {
        let set = Set::of(&[("V0001__slow", &format!("{directive}SELECT pg_sleep(60);"))]);
        let (database, mut conn) = empty().await;
        let said =
            "next:  run `coderdb migrate up` again: its time was over (--statement-timeout), or somebody canceled it";
        fails(set.up(&database).args(["--statement-timeout", "50ms"]), code, &["[57014]", said]);
        let mut program = set.spawn(database.url(), &[]);
        let sleeps = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        until(&mut conn, &format!("SELECT count(*) = 1 {sleeps}")).await;
        run(&mut conn, &format!("SELECT pg_cancel_backend(pid) {sleeps}")).await;
        assert_eq!(program.ends().await, code, "{}", program.said);
        assert!(program.said.contains(said), "{}", program.said);
    }
}

#[tokio::test]
async fn what_is_there_already_is_explained() {
    // As after `pg_dump --schema-only`: the tables, the history and the log, without their rows.
    let database = support::database().await.directly();
    let without_rows = "DELETE FROM coderdb.refinery_schema_history; DELETE FROM coderdb.migration_log";
    let (code, said) = next(&database, without_rows, &[]).await;
    assert_eq!(code, 10);
    for part in ["--schema-only", "migrate an empty database", "repair mark-applied VERSION", "migrate verify"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    // What is advised helps.
    let newest = migrate::newest().to_string();
    assert_eq!(support::run(database.coderdb().args(["migrate", "repair", "mark-applied", &newest, "--yes"])).code, 0);
    for command in ["up", "check", "verify"] {
        assert_eq!(support::run(database.coderdb().args(["migrate", command])).code, 0, "{command}");
    }
    // Without the schema coderdb, as `pg_dump --schema public` makes it.
    let (code, said) = next(&database, "DROP SCHEMA coderdb CASCADE", &[]).await;
    assert!(code == 10 && said.contains("and no history"), "{code} {said}");

    // Something of the same name, in the middle.
    for sql in [
        "CREATE TABLE two ()",
        "CREATE TYPE two AS ENUM ('a')",
        "ALTER TABLE one ADD COLUMN a integer",
        "CREATE INDEX one_b ON one (b)",
    ] {
        let (database, mut conn) = empty().await;
        let set = Set::of(&[("V0001__one", "CREATE TABLE one (b integer)")]);
        assert_eq!(support::run(&mut set.up(&database)).code, 0);
        run(&mut conn, sql).await;
        set.write("V0002__two", sql);
        fails(&mut set.up(&database), 10, &["already exists", "that no migration has made: rename or drop it"]);
    }
}

#[tokio::test]
async fn a_pooler_is_named_only_where_there_is_one() {
    let (database, mut conn) = empty().await;
    let unlocks = ("V0001__unlocks", "SELECT pg_advisory_unlock_all()");
    let outcome = support::run(&mut Set::of(&[unlocks, ("V0002__two", "CREATE TABLE two ()")]).up(&database));
    assert_eq!(outcome.code, 14, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the runner's lock was given back while it was needed"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("pooler"), "{}", outcome.stderr);
    assert!(ask::<bool>(&mut conn, "SELECT to_regclass('two') IS NULL").await);
    // A session that has the lock by itself.
    let (_database, mut conn) = empty().await;
    run(&mut conn, "SELECT pg_advisory_lock(x'636f6465726462'::bigint)").await;
    let error = migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::SessionShared), "{error:?}");
    // It was not taken from it.
    assert!(ask::<bool>(&mut conn, "SELECT pg_advisory_unlock(x'636f6465726462'::bigint)").await);
}
