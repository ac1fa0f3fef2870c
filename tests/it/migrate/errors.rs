//! What a person reads when the server refuses a statement: where it stands in which file, and what is left of it.

use super::{Set, empty};
use crate::support;

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
