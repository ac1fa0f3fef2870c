//! `coderdb provisioner jobs prune`.

use coderdb::sqlx;
use serde_json::{Value, json};

use crate::support::{self, Database, fails, run};

async fn demo() -> Database {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().args(["demo", "--at", "2026-05-07T12:00:00Z"])).code, 0);
    database
}

async fn jobs(database: &Database) -> i64 {
    let mut conn = database.connect().await;
    sqlx::query_scalar("SELECT count(*) FROM provisioner_jobs").fetch_one(&mut conn).await.expect("a count")
}

fn prune(database: &Database, args: &[&str]) -> Value {
    let mut command = database.coderdb();
    let outcome = run(command.args(["provisioner", "jobs", "prune", "-o", "json", "--yes"]).args(args));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_says_what_it_would_delete_and_deletes_just_that_and_once() {
    let database = demo().await;
    let before = jobs(&database).await;
    let would = prune(&database, &["--older-than", "1d", "--dry-run"]);
    assert_eq!(would[0]["dry_run"], true);
    assert_eq!(jobs(&database).await, before);
    let done = prune(&database, &["--older-than", "1d"]);
    assert_eq!([&done[0]["organization"], &done[0]["seen"]], [&json!("coder"), &would[0]["seen"]]);
    assert_eq!([&done[0]["jobs"], &done[0]["log_bytes"]], [&would[0]["jobs"], &would[0]["log_bytes"]]);
    let deleted = done[0]["jobs"].as_i64().expect("a number");
    assert!(deleted > 0 && done[0]["log_lines"].as_u64() > Some(0), "{done}");
    assert_eq!(jobs(&database).await, before - deleted);
    assert_eq!(prune(&database, &["--older-than", "1d", "-O", "coder"])[0]["jobs"], 0);
    let table = run(database.coderdb().args(["provisioner", "jobs", "prune", "--older-than", "36h", "--dry-run"]));
    assert!(table.stdout.starts_with("ORGANIZATION"), "{}", table.stdout);
    assert_eq!(table.stderr, "Nothing was deleted: this is what would be\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_refuses_what_is_no_age() {
    let database = support::database().await;
    for (age, expected) in [("0d", "90d or 36h"), ("x", "a duration"), ("-1d", "90d or 36h"), ("0s", "longer than 0")] {
        let age = format!("--older-than={age}");
        fails(database.coderdb().args(["provisioner", "jobs", "prune", &age]), 2, &[expected]);
    }
    fails(database.coderdb().args(["provisioner", "jobs", "prune"]), 2, &["--older-than"]);
}
