//! What a person types by mistake gets an answer that says what to do, an exit code, and changes nothing.

use coderdb::sqlx;

use crate::support::{self, fails, run};

#[tokio::test]
async fn bad_arguments_are_named_with_what_was_expected() {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    let id = "c0de0000-ffff-4000-8000-ffffffffffff";
    let cases: &[(&[&str], i32, &[&str])] = &[
        (
            &["--status", "lost"],
            2,
            &["lost", "pending", "running", "succeeded", "canceling", "canceled", "failed", "unknown"],
        ),
        (&["--transition", "pause"], 2, &["pause", "start", "stop", "delete"]),
        (&["--id", "not-a-uuid"], 2, &["not-a-uuid", "--id"]),
        (&["--limit", "-1"], 2, &["-1", "--limit"]),
        (&["--limit", "4294967296"], 2, &["4294967296", "--limit"]),
        (&["--limit", "many"], 2, &["many", "--limit"]),
        (&["--tag", "no-value"], 2, &["no-value", "KEY=VALUE"]),
        (&["--column", "colour"], 2, &["colour", "template display name"]),
        (&["--output", "xml"], 2, &["xml", "table", "json"]),
        (&["--frobnicate"], 2, &["--frobnicate"]),
        (&["--initiator", "nobody"], 1, &["error: initiator not found: nobody"]),
        (&["--initiator", id], 1, &["error: initiator not found: c0de0000-ffff"]),
        (&["--initiator", "me"], 1, &["error: initiator not found: me", "CODERDB_USER"]),
        (&["--org", "atlantis"], 1, &["error: organization not found: atlantis", "check --org and CODER_ORGANIZATION"]),
        (&["--org", "default"], 1, &["error: organization not found: default", "check --org and CODER_ORGANIZATION"]),
        (&["--org", id], 1, &["error: organization not found: c0de0000-ffff"]),
        (&["--template", "none"], 1, &["error: template not found: none"]),
        (&["--template", id], 1, &["error: template not found: c0de0000-ffff"]),
        (&["--workspace", "alice/none"], 1, &["error: workspace not found: alice/none", "by its id if it"]),
        (&["--workspace", id], 1, &["error: workspace not found: c0de0000-ffff"]),
    ];
    for (args, code, parts) in cases {
        fails(database.coderdb().args(["provisioner", "jobs", "list"]).args(*args), *code, parts);
    }
    fails(database.coderdb().args(["quota", "show", "nobody"]), 1, &["error: user not found: nobody"]);
    fails(database.coderdb().args(["quota", "show", "alice", "--org", "x"]), 1, &["organization not found: x"]);
    fails(database.coderdb().args(["quota", "show"]), 2, &["<USER>"]);
    fails(database.coderdb().args(["demo", "--scale", "5"]), 2, &["1000", "20000000"]);
}

#[tokio::test]
async fn a_database_without_the_schema_says_which_command_to_run() {
    let database = support::empty_database().await;
    for command in [&["provisioner", "jobs", "list"][..], &["quota", "show", "alice"]] {
        fails(database.coderdb().args(command), 3, &["schema is missing or too old", "coderdb migrate up"]);
    }
}

#[test]
fn an_unreachable_database_is_said_to_be_so() {
    let refused = "postgres://nobody:s3cret@127.0.0.1:1/db";
    for command in [&["provisioner", "jobs", "list"][..], &["migrate", "up"], &["migrate", "status"], &["demo"]] {
        let mut coderdb = support::coderdb();
        coderdb.env("DATABASE_URL", refused).args(command);
        fails(&mut coderdb, 4, &["cannot reach database \"db\" at 127.0.0.1:1", "refused", "DATABASE_URL"]);
        assert!(!run(&mut coderdb).stderr.contains("s3cret"));
    }
    let mut coderdb = support::coderdb();
    coderdb.env("PGHOST", "/nowhere").env("PGUSER", "nobody").args(["migrate", "status"]);
    fails(&mut coderdb, 4, &["cannot reach", "/nowhere"]);
}

#[test]
fn a_configuration_that_cannot_be_understood_is_a_usage_error_and_keeps_the_secret() {
    for url in
        ["mysql://u:s3cret@h/db", "not a url s3cret", "postgres://u:s3cret@h:99999/db", "postgres://u:s3cret@/%zz?x"]
    {
        let mut coderdb = support::coderdb();
        coderdb.env("DATABASE_URL", url).args(["migrate", "status"]);
        let outcome = run(&mut coderdb);
        assert!([2, 4].contains(&outcome.code), "{url}: {} {}", outcome.code, outcome.stderr);
        assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
    }
    for url in ["postgres://u:/s3cret@h.invalid/db", "postgres://u:1/s3cret@h.invalid/db"] {
        let mut coderdb = support::coderdb();
        coderdb.env("DATABASE_URL", url).args(["migrate", "status"]);
        assert!(!run(&mut coderdb).stderr.contains("s3cret"), "a slash that is not escaped ends the password early");
    }
}

#[tokio::test]
async fn a_variable_that_cannot_be_read_does_not_lead_to_another_database_or_to_less_encryption() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    // A pooler refuses PGOPTIONS in words of its own.
    let database = support::empty_database().await.directly();
    let wrong: [(&str, &[u8]); 4] =
        [("PGSSLMODE", b"verify_full"), ("PGPORT", b"5432x"), ("PGPORT", b"70000"), ("PGDATABASE", b"a\xff")];
    for (name, value) in wrong {
        fails(database.coderdb().env(name, OsStr::from_bytes(value)).args(["migrate", "up"]), 2, &[name, "is not"]);
    }
    let status = ["migrate", "status"];
    fails(database.coderdb().env("PGOPTIONS", "-c no_such=1").args(status), 2, &["refused", "no_such"]);
    assert_eq!(run(database.coderdb().env("PGPORT", "").env("PGSSLMODE", "").args(status)).code, 0);
}

#[tokio::test]
async fn me_is_whom_the_variable_names_also_in_the_error() {
    let database = support::database().await;
    run(database.coderdb().arg("demo"));
    let me = |name: &str| run(database.coderdb().env("CODERDB_USER", name).args(["quota", "show", "me"]));
    assert!(me("alice").stdout.contains("alice"));
    assert!(me("zorro").stderr.starts_with("error: user not found: zorro\n"), "{}", me("zorro").stderr);
    assert!(me("me").stderr.contains("set CODERDB_USER"));
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_never_printed() {
    // A pooler asks for passwords itself, and knows no roles that a test creates.
    let database = support::database().await.directly();
    let mut conn = database.connect().await;
    support::role_with_password(&mut conn, "canary", "right").await;

    let with = |password: &str| {
        let mut coderdb = support::coderdb();
        coderdb.env("DATABASE_URL", database.url_as("canary", password)).args(["migrate", "status"]);
        run(&mut coderdb)
    };
    let refused = with("wr0ng-s3cret");
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("password authentication failed"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wr0ng"), "{}", refused.stderr);
    assert!(!with("right").stderr.contains("password"));
}

#[tokio::test]
async fn a_listing_says_so_when_there_is_nothing_to_list() {
    let database = support::database().await;
    run(database.coderdb().arg("demo"));
    let list = ["provisioner", "jobs", "list", "--tag", "no=such"];
    let table = run(database.coderdb().args(list));
    assert_eq!((table.code, table.stdout.as_str(), table.stderr.as_str()), (0, "", "No provisioner jobs found\n"));
    assert_eq!(run(database.coderdb().args(list).args(["-o", "json"])).stdout, "[]\n");
}

#[tokio::test]
async fn every_command_explains_itself_with_an_example() {
    for command in [
        &["demo"][..],
        &["migrate", "up"],
        &["migrate", "status"],
        &["mcp"],
        &["provisioner", "jobs", "list"],
        &["provisioner", "jobs", "cancel"],
        &["provisioner", "jobs", "get"],
        &["provisioner", "jobs", "logs"],
        &["provisioner", "jobs", "watch"],
        &["provisioner", "daemons", "list"],
        &["licenses", "add"],
        &["licenses", "list"],
        &["licenses", "delete"],
        &["quota", "list"],
        &["prebuilds", "pause"],
        &["prebuilds", "resume"],
        &["prebuilds", "status"],
        &["quota", "show"],
        &["postgres", "url"],
        &["postgres", "status"],
        &["postgres", "run"],
        &["postgres", "stop"],
        &["postgres", "psql"],
    ] {
        let help = run(support::coderdb().args(command).arg("--help"));
        assert_eq!(help.code, 0, "{command:?}");
        assert!(help.stdout.contains("Example"), "{command:?}:\n{}", help.stdout);
    }
}

#[tokio::test]
async fn a_configured_database_is_used_and_no_server_is_started_beside_it() {
    let database = support::database().await;
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("private");
    let outcome = run(database.coderdb().env("CODERDB_DATA_DIR", &data_dir).args(["migrate", "status"]));
    assert_eq!(outcome.code, 0);
    let mut unreachable = support::coderdb();
    unreachable.env("PGHOST", "/nowhere").env("PGUSER", "u").env("CODERDB_DATA_DIR", &data_dir).arg("demo");
    assert_eq!(run(&mut unreachable).code, 4);
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn work_goes_on_when_nobody_reads_standard_error() {
    // Migrations need a session.
    let database = support::empty_database().await.directly();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut coderdb = std::process::Command::new(support::CODERDB);
    coderdb.args(["migrate", "up"]).env("DATABASE_URL", database.url()).stderr(writer);
    assert_eq!(coderdb.output().unwrap().status.code(), Some(0));
    assert_eq!(run(database.coderdb().args(["migrate", "status", "--exit-code"])).code, 0);
}

#[tokio::test]
async fn no_text_steers_the_terminal_it_is_printed_on() {
    let database = support::database().await;
    run(database.coderdb().arg("demo"));
    let outcome = run(database.coderdb().args(["quota", "show", "\u{1b}[2Jalice\u{202e}"]));
    assert!(outcome.stderr.starts_with("error: user not found:  [2Jalice \n"), "{}", outcome.stderr);
    for args in
        [&["provisioner", "jobs", "get"][..], &["provisioner", "jobs", "list", "--status"], &["quota", "show", "x"]]
    {
        let said = run(support::coderdb().args(args).arg("\u{1b}]2;PWNED\u{7}zz\u{9b}2J"));
        assert_eq!(said.code, 2, "{args:?}");
        assert!(said.stderr.contains("zz"), "{}", said.stderr);
        assert!(!said.stderr.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{:?}", said.stderr);
    }
    let mut conn = database.connect().await;
    let broken = "UPDATE users SET username = E'x\\u001B[2J\\u0085\\u2028\\u202Ey' WHERE username = 'alice'";
    sqlx::raw_sql(broken).execute(&mut conn).await.unwrap();
    let id = sqlx::query_scalar::<_, String>("SELECT id::text FROM users WHERE username LIKE 'x%'");
    let id = id.fetch_one(&mut conn).await.unwrap();
    let table = run(database.coderdb().args(["quota", "show", &id])).stdout;
    assert!(table.lines().nth(1).unwrap().starts_with("x [2J   y  coder "), "{table}");
}

#[tokio::test]
async fn the_demo_keeps_its_hands_off_a_database_of_something_else() {
    let database = support::empty_database().await;
    let mut conn = database.connect().await;
    sqlx::raw_sql("CREATE TABLE invoices (id int)").execute(&mut conn).await.unwrap();
    fails(database.coderdb().arg("demo"), 1, &["is not coderdb's: it has 1 tables", "--allow-existing"]);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut conn).await.unwrap(), 1);
}

#[tokio::test]
async fn the_demo_does_not_migrate_a_database_with_rows_of_others() {
    // Migrations need a session.
    let database = support::empty_database().await.with_sessions();
    let mut conn = database.connect().await;
    assert_eq!(run(database.coderdb().args(["migrate", "up", "--target", "1"])).code, 0);
    let organization = "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name) \
                        VALUES (gen_random_uuid(), 'acme', '', now(), now(), '')";
    sqlx::raw_sql(organization).execute(&mut conn).await.unwrap();
    fails(database.coderdb().arg("demo"), 1, &["in use", "1 organizations", "--allow-existing"]);
    let version = "SELECT max(version) FROM coderdb.refinery_schema_history";
    assert_eq!(sqlx::query_scalar::<_, i64>(version).fetch_one(&mut conn).await.unwrap(), 1);
    assert_eq!(run(database.coderdb().args(["demo", "--allow-existing"])).code, 0);
}

#[test]
fn a_misspelt_parameter_of_the_url_does_not_turn_off_encryption_in_silence() {
    let mut coderdb = support::coderdb();
    coderdb.env("DATABASE_URL", "postgres://u@127.0.0.1:1/db?sslmod=verify-full").args(["migrate", "status"]);
    fails(&mut coderdb, 2, &["the parameter \"sslmod\", which is not supported", "sslmode"]);
}

#[tokio::test]
async fn an_error_of_a_megabyte_does_not_widen_the_table_and_is_whole_in_json() {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    let mut conn = database.connect().await;
    let long = "UPDATE provisioner_jobs SET error = repeat('e\n', 500000) WHERE job_status = 'failed'";
    sqlx::raw_sql(long).execute(&mut conn).await.unwrap();
    let list = ["provisioner", "jobs", "list", "--status", "failed"];
    let table = run(database.coderdb().args(list).args(["-c", "id,error,status"])).stdout;
    assert_eq!(table.lines().count(), 4);
    assert!(table.lines().all(|line| line.len() < 600), "{}", table.len());
    let json = run(database.coderdb().args(list).args(["-o", "json"])).stdout;
    let jobs: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(jobs[0]["error"].as_str().map(str::len), Some(1_000_000));
}
