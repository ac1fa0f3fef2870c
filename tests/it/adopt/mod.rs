//! Working on a database that Coder's own server made and goes on writing to.

mod baseline;
mod beside;
mod needs;
mod operations;
mod reads;
mod roles;
mod upgrades;
mod writer;

use std::process::Command;

use coderdb::sqlx::PgConnection;
use serde_json::Value;

use crate::support::{
    self, Database,
    adopted::{adopt, coder, options, run, texts},
};

/// A random database, with chats.
pub(crate) async fn fill(conn: &mut PgConnection, rng: &mut fastrand::Rng) {
    crate::support::random_database::fill(conn, rng).await;
    run(
        conn,
        "INSERT INTO chat_providers (provider) VALUES ('openai');
         INSERT INTO chat_model_configs (provider, model, context_limit, compression_threshold) VALUES ('openai', 'model', 200000, 80);
         INSERT INTO chats (owner_id, last_model_config_id, organization_id, workspace_id, build_id, status)
         SELECT u.id, c.id, o.id, w.id, b.id, s FROM (SELECT * FROM users ORDER BY id LIMIT 2) AS u, chat_model_configs AS c,
            (SELECT * FROM organizations ORDER BY id LIMIT 2) AS o, unnest(enum_range(NULL::chat_status)) AS s
         LEFT JOIN LATERAL (SELECT * FROM workspaces ORDER BY id LIMIT 1) AS w ON true
         LEFT JOIN LATERAL (SELECT * FROM workspace_builds ORDER BY id LIMIT 1) AS b ON true",
    )
    .await;
}

fn program(database: &Database, args: &[&str]) -> Box<assert_cmd::Command> {
    let mut command = database.coderdb();
    command.arg("migrate").args(args);
    Box::new(command)
}

fn text(database: &Database, args: &[&str], code: i32) -> String {
    let outcome = support::run(&mut program(database, args));
    assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
    outcome.stdout
}

fn machine(database: &Database, args: &[&str], code: i32) -> Value {
    serde_json::from_str(&text(database, &[args, &["-o", "json"]].concat(), code)).expect("JSON")
}

/// The whole schema, as the server's own program writes it.
fn dump(database: &Database) -> String {
    let output = dump_of(database.url(), "--schema-only");
    let dump = String::from_utf8(output).expect("UTF-8");
    // Newer versions write a random key, unless they are given one.
    dump.lines().filter(|line| !line.contains("restrict ")).map(|line| line.to_owned() + "\n").collect()
}

/// What `pg_dump` writes. One that is older than the server refuses: then the facts of its schema, and what schemas there are.
fn dump_of(url: &str, option: &str) -> Vec<u8> {
    let output = Command::new("pg_dump").args([option, url]).output().expect("pg_dump, which comes with the server");
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.contains("server version mismatch") {
        assert!(output.status.success(), "{errors}");
        return output.stdout;
    }
    let facts = format!(
        "{}; SELECT nspname, nspacl FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1",
        include_str!("../golden/catalog_facts.sql")
    );
    let output = Command::new("psql").args(["-qAtX", "-c", &facts, url]).output().expect("psql");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<_> = output.stdout.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines.concat()
}
