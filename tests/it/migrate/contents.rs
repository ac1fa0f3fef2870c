//! What may stand in a file: what it leaves behind in the session, what the server would read otherwise, and what is much.

use std::{fmt::Write as _, time::Instant};

use coderdb::{
    migrate::{self, Error, Migrations},
    sqlx::PgConnection,
};

use super::{Set, ask, empty, options, run};
use crate::support::{self, fails};

/// Applies the files, each by itself, so that the session of one is not that of the next, and all in one session.
async fn applied(files: &[(&str, &str)]) -> (support::Database, PgConnection) {
    let (database, mut conn) = empty().await;
    let set = Set::of(files);
    let up = migrate::up(&mut conn, &set.options(&database), |_| {}).await;
    up.unwrap_or_else(|error| panic!("{files:?}\n{error:?}"));
    (database, conn)
}

#[tokio::test]
async fn whatever_a_migration_sets_the_next_one_and_the_history_do_not_see_it() {
    let next = "DO $$ BEGIN ASSERT current_user = session_user AND current_setting('search_path') = '\"$user\", public' \
                AND current_setting('statement_timeout') = '0' AND current_setting('standard_conforming_strings') = 'on' \
                AND current_setting('default_transaction_read_only') = 'off' AND current_setting('DateStyle') = 'ISO, MDY' \
                AND current_setting('row_security') = 'on' AND current_setting('check_function_bodies') = 'on'; END $$; \
                CREATE TABLE next ()";
    for (n, leak) in [
        "SET search_path = ''",
        "SET LOCAL search_path = ''",
        "CREATE SCHEMA elsewhere; SET search_path = elsewhere",
        "SET ROLE pg_read_all_data",
        "SET LOCAL ROLE pg_read_all_data",
        "SET SESSION AUTHORIZATION pg_read_all_data",
        "SET lock_timeout = '1ms'",
        "SET statement_timeout = '2s'",
        "SET standard_conforming_strings = off",
        "SET default_transaction_read_only = on",
        "SET DateStyle = 'German'",
        "SET row_security = off; SET check_function_bodies = off",
        "RESET ALL",
        "SET client_connection_check_interval = 0",
    ]
    .into_iter()
    .enumerate()
    {
        for directive in ["", "-- coderdb: no-transaction\n"] {
            let file = format!("{directive}CREATE TABLE first (); {leak}");
            let (_database, mut conn) = applied(&[("V0001__leaks", &file), ("V0002__next", next)]).await;
            let rows = ask::<i64>(&mut conn, "SELECT count(*) FROM coderdb.refinery_schema_history").await;
            assert_eq!(rows, 2, "{n}: {file}");
            assert!(ask::<bool>(&mut conn, "SELECT to_regclass('public.next') IS NOT NULL").await, "{file}");
        }
    }
}

#[tokio::test]
async fn what_the_caller_has_set_is_there_again_afterwards() {
    let (database, mut conn) = empty().await;
    run(&mut conn, "CREATE ROLE \"migrator's \\ \"\"own\"\"\"; CREATE SCHEMA mine").await;
    run(&mut conn, &format!("GRANT CREATE ON DATABASE {} TO \"migrator's \\ \"\"own\"\"\"", database.name())).await;
    run(&mut conn, "GRANT ALL ON SCHEMA mine TO \"migrator's \\ \"\"own\"\"\"; SET search_path = mine; SET work_mem = '5MB'; SET ROLE \"migrator's \\ \"\"own\"\"\"").await;
    let set = Set::of(&[
        ("V0001__leaks", "CREATE TABLE one (); RESET ALL; RESET ROLE; SET work_mem = '6MB'"),
        ("V0002__two", "-- coderdb: no-transaction\nSET ROLE NONE; CREATE INDEX CONCURRENTLY i ON pg_class (oid)"),
    ]);
    let options = migrate::MigrateOptions { target: Some(1), ..set.options(&database) };
    migrate::up(&mut conn, &options, |_| {}).await.unwrap();
    let now = "SELECT concat_ws(' ', current_setting('search_path'), current_setting('work_mem'), current_user)";
    assert_eq!(ask::<String>(&mut conn, now).await, "mine 5MB migrator's \\ \"own\"");
    // Also when it fails.
    migrate::up(&mut conn, &set.options(&database), |_| {}).await.unwrap_err();
    assert_eq!(ask::<String>(&mut conn, now).await, "mine 5MB migrator's \\ \"own\"");
    run(&mut conn, "RESET ROLE; DROP OWNED BY \"migrator's \\ \"\"own\"\"\"; DROP ROLE \"migrator's \\ \"\"own\"\"\"")
        .await;
}

#[tokio::test]
async fn strings_comments_and_bodies_are_left_to_the_server() {
    let sql = "CREATE TABLE texts (t text);
        INSERT INTO texts VALUES ('a;b'), ($$c;d$$), ($x$e; $$ f; $$ g$x$), (E'h\\';i'), ('COMMIT;'); -- no; end
        /* not; /* here; */ COMMIT; */
        CREATE FUNCTION outer_one() RETURNS text LANGUAGE plpgsql AS $body$
        BEGIN
            EXECUTE $inner$ INSERT INTO texts VALUES ($deep$; COMMIT; $deep$); $inner$;
            RETURN 'done;';
        END; $body$;
        CREATE FUNCTION atomic(i integer) RETURNS integer LANGUAGE sql
        BEGIN ATOMIC
            SELECT CASE WHEN i > 0 THEN 1 ELSE 2 END;
            SELECT CASE i WHEN 3 THEN 4 END;
        END;
        SELECT outer_one();;
        CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;";
    for directive in ["", "-- coderdb: no-transaction\n"] {
        let (_database, mut conn) = applied(&[("V0001__texts", &format!("{directive}{sql}"))]).await;
        let texts = "SELECT string_agg(t, '|' ORDER BY t COLLATE \"C\") FROM texts";
        assert_eq!(ask::<String>(&mut conn, texts).await, "; COMMIT; |COMMIT;|a;b|c;d|e; $$ f; $$ g|h';i");
        assert_eq!(ask::<i32>(&mut conn, "SELECT atomic(3)").await, 4);
    }
}

#[tokio::test]
async fn what_would_end_the_transaction_or_is_for_psql_is_refused_with_its_place_before_anything_runs() {
    let (database, mut conn) = empty().await;
    for (sql, place, problem) in [
        ("CREATE TABLE one ();\n  COMMIT;\nCREATE TABLE two ();", ":2:3", "begins or ends a transaction"),
        ("BEGIN;\nCREATE TABLE one ();", ":1:1", "begins or ends a transaction"),
        ("CREATE TABLE one ();\nROLLBACK TO SAVEPOINT a", ":2:1", "begins or ends a transaction"),
        ("CREATE TABLE one ();\n\\connect other", ":2:1", "a command of psql"),
        ("\\restrict abc\nCREATE TABLE one ();", ":1:1", "a command of psql"),
        ("CREATE TABLE one (a text);\nCOPY one FROM stdin;\nx\n\\.\n", ":2:1", "COPY"),
        ("CREATE TABLE one (a text);\nCOPY one (a) FROM STDIN WITH (FORMAT csv)", ":2:1", "COPY"),
        ("CREATE TABLE one (a text);\ncopy one to stdout;", ":2:1", "COPY"),
        ("CREATE TABLE one ();\nSELECT 'ü\0'", ":2:10", "a NUL byte"),
        ("\u{feff}CREATE TABLE one ();", ":1:1", "a byte order mark"),
        ("CREATE TABLE one ();\nDO $a$ $b$", ":2:4", "a quote that does not end"),
    ] {
        let set = Set::of(&[("V0001__one", sql)]);
        fails(&mut set.up(&database), 2, &["V0001__one.sql", place, problem]);
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(ask::<i64>(&mut conn, tables).await, 0);
    for (name, problem) in [("v0001__one", "V0001__lower_case_name.sql"), ("V0001__Übung", "the name is not like")] {
        fails(&mut Set::of(&[(name, "SELECT 1")]).up(&database), 2, &[name, problem]);
    }
}

#[tokio::test]
async fn a_commit_that_only_the_server_can_see_is_refused_by_it_and_nothing_is_left() {
    for directive in ["", "-- coderdb: no-transaction\n"] {
        let (database, mut conn) = empty().await;
        let set = Set::of(&[("V0001__one", &format!("{directive}DO $$ BEGIN CREATE TABLE one (); COMMIT; END $$"))]);
        fails(&mut set.up(&database), if directive.is_empty() { 10 } else { 11 }, &["[2D000]"]);
        assert!(ask::<bool>(&mut conn, "SELECT to_regclass('one') IS NULL").await);
    }
}

#[tokio::test]
async fn a_copy_to_or_from_a_file_of_the_server_is_left_to_it() {
    let (database, _conn) = empty().await;
    let set = Set::of(&[(
        "V0001__one",
        "CREATE TABLE one (a text); COPY one FROM PROGRAM 'echo x'; COPY (SELECT 1) TO '/dev/null'",
    )]);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
}

#[tokio::test]
async fn line_ends_do_not_change_a_checksum_but_everything_else_does() {
    let (database, _conn) = empty().await;
    let set = Set::of(&[("V0001__one", "CREATE TABLE one (\n  a integer\n);\n")]);
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0001__one", "CREATE TABLE one (\r\n  a integer\r\n);\r\n");
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    set.write("V0001__one", "CREATE TABLE one (\n  a integer\n); \n");
    fails(&mut set.up(&database), 12, &["V0001__one: its file differs"]);
}

#[tokio::test]
async fn a_file_that_was_edited_in_the_part_that_is_done_is_refused_and_behind_it_is_not() {
    let steps = |first: &str, last: &str| {
        format!(
            "-- coderdb: no-transaction\nCREATE TABLE one (a integer);\n{first};\nCREATE UNIQUE INDEX CONCURRENTLY one_a ON one (a);\n{last};"
        )
    };
    let set = Set::of(&[("V0001__steps", &steps("INSERT INTO one VALUES (1), (1)", "SELECT 1"))]);
    let (database, mut conn) = empty().await;
    fails(&mut set.up(&database), 11, &["[23505]", "statement 3 of 4"]);
    set.write("V0001__steps", &steps("INSERT INTO one VALUES (1), (2)", "SELECT 1"));
    fails(&mut set.up(&database), 12, &["statement 2 is done, and was another one then", "put the statement back"]);
    run(&mut conn, "DELETE FROM one WHERE ctid = '(0,1)'").await;
    set.write("V0001__steps", &steps("INSERT INTO one VALUES (1), (1)", "INSERT INTO one VALUES (3)"));
    assert_eq!(support::run(&mut set.up(&database)).code, 0);
    assert_eq!(ask::<i64>(&mut conn, "SELECT sum(a) FROM one").await, 4);
}

#[tokio::test]
async fn fifty_megabytes_are_applied_in_a_few_times_their_memory() {
    const ROWS: usize = 400_000;
    let mut sql = "CREATE TABLE big (id integer, filler text);\n".to_owned();
    let filler = "x".repeat(100_000);
    // Few statements of much, and many of little.
    for id in 0..450 {
        let _ = writeln!(sql, "INSERT INTO big VALUES ({id}, '{filler}');");
    }
    for id in 0..ROWS / 100 {
        let _ = writeln!(sql, "INSERT INTO big VALUES ({id}, 'é;');");
    }
    sql += &"-- the end\n".repeat(500_000);
    assert!(sql.len() > 50_000_000, "{}", sql.len());
    let set = Set::of(&[("V0001__big", &sql)]);
    drop(sql);
    let (database, mut conn) = empty().await;
    let start = Instant::now();
    let limited = ["-c", "ulimit -v 800000 && exec \"$@\"", "", support::CODERDB, "migrate", "up", "--from"];
    let mut program = assert_cmd::Command::new("sh");
    program.args(limited).arg(set.path()).env("DATABASE_URL", database.url());
    let applied = support::run(&mut program);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    println!("50 MB: {:?}", start.elapsed());
    assert_eq!(ask::<i64>(&mut conn, "SELECT count(*) FROM big").await, 450 + 4_000);
}

#[tokio::test]
async fn ten_thousand_migrations_are_listed() {
    let set = Set::of(&[]);
    for version in 1..=10_000 {
        set.write(&format!("V{version:05}__one_of_many"), "SELECT 1");
    }
    let (database, mut conn) = empty().await;
    let start = Instant::now();
    let migrations = set.migrations();
    println!("read after {:?}", start.elapsed());
    let options = migrate::MigrateOptions { target: Some(1), ..options(&database, migrations.clone()) };
    migrate::up(&mut conn, &options, |_| {}).await.unwrap();
    // As if they all had been applied.
    migrate::mark_applied(&mut conn, &options, 9_999).await.unwrap();
    let start = Instant::now();
    let status = migrate::status_of(&mut conn, &migrations).await.unwrap();
    println!("10,000 compared after {:?}", start.elapsed());
    assert_eq!((status.migrations.len(), status.pending().count()), (10_000, 1));
    let start = Instant::now();
    let listed = support::run(database.coderdb().args(["migrate", "status", "--from"]).arg(set.path()));
    println!("10,000 listed after {:?}", start.elapsed());
    assert_eq!((listed.code, listed.stdout.lines().count()), (0, 10_001));
    assert_eq!(
        migrate::up(&mut conn, &migrate::MigrateOptions { target: None, ..options }, |_| {}).await.unwrap().len(),
        1
    );
}

#[test]
fn a_directory_without_migrations_is_an_error_and_so_is_what_would_be_skipped_in_silence() {
    assert!(matches!(Migrations::read("/nowhere".as_ref()), Err(Error::Io { .. })));
    let said = |files: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(directory.path().join(file), "SELECT 1").unwrap();
        }
        // `lint` sees the same files.
        let lint = support::run(support::coderdb().args(["migrate", "lint"]).arg(directory.path())).code;
        (Migrations::read(directory.path()).map(|found| found.iter().count()).map_err(|error| error.to_string()), lint)
    };
    for files in
        [&[][..], &["README.md"], &["V0001__one.sql.orig", ".V0001__one.sql.swp", "V0001__one.sql~", "Version__1"]]
    {
        let (found, lint) = said(files);
        assert!(found.as_ref().is_err_and(|said| said.contains("no migration is there")), "{files:?}: {found:?}");
        assert_eq!(lint, 2, "{files:?}");
    }
    for file in [
        "V0001__init.SQL",
        "V1__init.SQL",
        "V1__init.sql",
        "v0001__init.sql",
        "V0002__two",
        "v2__two.psql",
        "init.Sql",
        "U0001__one.sql",
    ] {
        let (found, lint) = said(&["V0001__one.sql", file]);
        assert!(
            found.as_ref().is_err_and(|said| said.contains(&format!("{file}: the name is not like"))),
            "{file}: {found:?}"
        );
        assert_eq!(lint, 15, "{file}");
    }
    assert_eq!(said(&["V0001__one.sql", "V0002__two.sql.orig", "README.md"]).0, Ok(1));
}

#[tokio::test]
async fn an_empty_directory_is_no_success_of_any_command() {
    let (database, _conn) = empty().await;
    let directory = tempfile::tempdir().unwrap();
    for command in ["up", "check", "status", "plan"] {
        let mut command_line = database.coderdb();
        fails(command_line.args(["migrate", command, "--from"]).arg(directory.path()), 2, &["no migration is there"]);
    }
}
