//! Who may adopt, and as whom services work.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use coderdb::sqlx::PgConnection;

use super::{coder, dump, dump_of, needs::prepare_all, run, texts};
use crate::support::{self, Database};

/// A login of this database alone; roles belong to the whole server.
async fn role(conn: &mut PgConnection, database: &Database, name: &str) -> String {
    let role = format!("{}_{name}", database.name());
    run(conn, &format!("CREATE ROLE {role} LOGIN")).await;
    role
}

fn program(database: &Database, role: &str, args: &[&str]) -> assert_cmd::Command {
    let mut command = support::coderdb();
    command.env("DATABASE_URL", database.url_as(role, "")).arg("migrate").args(args);
    command
}

fn text(database: &Database, role: &str, args: &[&str]) -> String {
    let outcome = support::run(&mut program(database, role, args));
    assert_eq!(outcome.code, 0, "{args:?}: {}", outcome.stderr);
    outcome.stdout
}

/// Gives all tables to a role, as in a deployment.
async fn owned(conn: &mut PgConnection, database: &Database) -> String {
    let owner = role(conn, database, "owner").await;
    let give = format!(
        "DO $$ DECLARE relation regclass; BEGIN
            FOR relation IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') LOOP
                EXECUTE format('ALTER TABLE %s OWNER TO {owner}', relation);
            END LOOP; END $$;
         ALTER SCHEMA public OWNER TO {owner}"
    );
    run(conn, &give).await;
    owner
}

#[tokio::test]
async fn the_owner_of_the_tables_does_everything_and_still_dumps_them() {
    let (database, mut conn) = coder().await;
    let owner = owned(&mut conn, &database).await;
    run(&mut conn, &format!("GRANT CREATE ON DATABASE {} TO {owner}", database.name())).await;
    let before = dump(&database);
    text(&database, &owner, &["adopt", "--with-error-code-check"]);
    assert!(text(&database, &owner, &["check"]).contains("fits"));
    text(&database, &owner, &["verify"]);
    // What its own backup does.
    dump_of(&database.url_as(&owner, ""), "--no-sync");
    text(&database, &owner, &["unadopt", "--yes"]);
    assert_eq!(dump(&database), before);
}

#[tokio::test]
async fn an_owner_who_may_create_no_schema_is_told_what_to_run() {
    let (database, mut conn) = coder().await;
    let owner = owned(&mut conn, &database).await;
    let create = format!("CREATE SCHEMA coderdb AUTHORIZATION {owner}");
    let grant = format!("GRANT CREATE ON DATABASE {} TO {owner}", database.name());
    support::fails(&mut program(&database, &owner, &["adopt"]), 14, &[&create, &grant]);
    run(&mut conn, &create).await;
    text(&database, &owner, &["adopt"]);
}

#[tokio::test]
async fn print_sql_and_print_grants_refuse_what_adopt_refuses() {
    let (database, mut conn) = coder().await;
    let service = role(&mut conn, &database, "service").await;
    for nobody in ["", "public", "nobody of this name"] {
        let mut command = program(&database, "postgres", &["adopt", "--print-grants", nobody]);
        support::fails(&mut command, 14, &[&format!("there is no role {nobody:?}")]);
    }
    run(&mut conn, "CREATE SCHEMA elsewhere").await;
    for print in [&["adopt", "--print-sql"][..], &["adopt", "--print-grants", &service]] {
        for (path, current) in [("elsewhere,public", "elsewhere"), ("elsewhere", "elsewhere")] {
            let mut command = program(&database, "postgres", print);
            command.env("PGOPTIONS", format!("-c search_path={path}"));
            let said = format!("in the schema public, and this session works in {current}");
            support::fails(&mut command, 14, &[&said, "PGOPTIONS='-c search_path=public'"]);
        }
    }
    // A name with lines in it runs nothing.
    run(&mut conn, "CREATE PUBLICATION \"all\nDROP TABLE users;\" FOR ALL TABLES").await;
    let script = text(&database, "postgres", &["adopt", "--print-sql"]);
    assert!(
        script.contains("\n-- Then only with --yes: the publication all DROP TABLE users; is FOR ALL TABLES"),
        "{script}"
    );
    run(&mut conn, "CREATE INDEX provisioner_jobs_running_idx ON provisioner_jobs (id)").await;
    let mut command = program(&database, "postgres", &["adopt", "--print-sql"]);
    support::fails(&mut command, 14, &["another index has the name provisioner_jobs_running_idx"]);
}

/// Takes the advice as it stands.
#[tokio::test]
async fn adopt_says_how_to_work_in_a_schema_with_an_odd_name() {
    let (database, mut conn) = coder().await;
    run(&mut conn, "ALTER SCHEMA public RENAME TO \"An \"\"odd\"\" \\ one's\"").await;
    let plan = ["adopt", "--plan"];
    let advice = support::run(&mut program(&database, "postgres", &plan)).stderr;
    let (_, advice) = advice.split_once("PGOPTIONS=").expect("advice");
    let (options, _) = advice.split_once(", or ALTER ROLE").expect("another one");
    let mut shell = assert_cmd::Command::new("sh");
    shell.args(["-c", &format!("PGOPTIONS={options} exec {} migrate adopt --plan", support::CODERDB)]);
    let outcome = support::run(shell.env("DATABASE_URL", database.url_as("postgres", "")));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("A database of Coder, version 440"), "{}", outcome.stdout);
}

#[tokio::test]
async fn another_role_prints_what_the_owner_is_to_run_and_records_it_then() {
    let (database, mut conn) = coder().await;
    let owner = owned(&mut conn, &database).await;
    let other = role(&mut conn, &database, "other").await;
    let needs = format!("to own provisioner_jobs, as a member of {owner}");
    support::fails(&mut program(&database, &other, &["adopt"]), 14, &[&needs, "--print-sql"]);
    let script = text(&database, &other, &["adopt", "--print-sql", "--with-error-code-check"]);
    assert!(script.contains(&format!("CREATE SCHEMA coderdb AUTHORIZATION \"{other}\"")), "{script}");
    assert!(script.contains("GRANT SELECT ON schema_migrations TO"), "{script}");
    assert!(script.contains("After unadopt: REVOKE SELECT ON schema_migrations FROM"), "{script}");
    let mut psql = Command::new("psql");
    psql.args(["-qX", "-v", "ON_ERROR_STOP=1"]).arg(support::server().url(database.name())).stdin(Stdio::piped());
    let mut psql = psql.spawn().expect("psql");
    psql.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("the script");
    assert!(psql.wait().expect("its end").success(), "{script}");
    text(&database, &other, &["adopt", "--with-error-code-check"]);
    text(&database, &other, &["verify"]);
    // What its own backup does.
    dump_of(&database.url_as(&owner, ""), "--no-sync");
    support::fails(&mut program(&database, &other, &["unadopt", "--yes"]), 14, &["to own provisioner_jobs"]);
    let needs = format!("to own the schema coderdb, as a member of {other}");
    support::fails(&mut program(&database, &owner, &["unadopt", "--yes"]), 14, &[&needs]);
    // Whoever serves looks with no rights but the printed ones.
    let service = role(&mut conn, &database, "service").await;
    assert!(text(&database, &service, &["check"]).contains("fits"));
}

#[tokio::test]
async fn a_role_with_the_printed_grants_and_no_others_may_do_every_statement() {
    let (database, mut conn) = coder().await;
    let service = role(&mut conn, &database, "service").await;
    let before = dump(&database);
    super::adopt(&database).await;
    let grants = text(&database, "postgres", &["adopt", "--print-grants", &service]);
    run(&mut conn, &grants).await;
    let statements = prepare_all(&mut conn).await;
    run(&mut conn, &format!("SET ROLE {service}")).await;
    for (name, types, statement) in statements {
        run(
            &mut conn,
            &format!("PREPARE s ({}) AS {statement}", types.join(", ")).replace("PREPARE s () AS", "PREPARE s AS"),
        )
        .await;
        // The server asks for the rights before it plans to do anything.
        let nulls = vec!["NULL"; types.len()].join(", ");
        let explained = texts(&mut conn, &format!("EXPLAIN EXECUTE s ({nulls})").replace(" ()", "")).await;
        assert!(!explained.is_empty(), "{name}");
        run(&mut conn, "DEALLOCATE s").await;
    }
    assert!(text(&database, &service, &["check"]).contains("adopted from Coder's version 440: fits"));
    // And back again, as docs/operations.md says.
    let revokes: Vec<_> =
        grants.lines().map(|grant| grant.replacen("GRANT", "REVOKE", 1).replacen(" TO ", " FROM ", 1)).collect();
    run(&mut conn, "RESET ROLE").await;
    run(&mut conn, &revokes.join("\n")).await;
    text(&database, "postgres", &["unadopt", "--yes"]);
    assert_eq!(dump(&database), before);
}
