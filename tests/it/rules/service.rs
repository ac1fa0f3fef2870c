//! What a service crate gets: the library without the command line, and a build that no environment can break.

use std::{path::PathBuf, process::Command};

use crate::support;

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // What a service developer's shell has; sqlx's macros would connect to it while this crate is compiled.
    cargo.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/another_schema");
    cargo
}

#[test]
fn the_library_alone_compiles_no_crate_of_the_command_line() {
    let tree = ["tree", "-p", "coderdb-example-service", "-e", "normal", "--prefix", "none", "-f", "{p}"];
    let output = cargo().args(tree).output().unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("coderdb v"), "{}", String::from_utf8_lossy(&output.stderr));
    for only_cli in [
        "clap",
        "comfy-table",
        "indicatif",
        "tar",
        "flate2",
        "etcetera",
        "schemars",
        "tokio-util",
        "rmcp",
        "axum",
        "hyper",
        "tower",
        "tower-http",
        "utoipa",
        "metrics",
        "governor",
    ] {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{only_cli} v"))), "{only_cli} in\n{tree}");
    }
}

#[tokio::test]
async fn a_service_is_tested_and_runs_while_its_own_database_url_points_elsewhere() {
    let tests = cargo().args(["test", "--quiet", "-p", "coderdb-example-service"]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(tests.status.success(), "{}{}", text(&tests.stdout), text(&tests.stderr));
    let program = PathBuf::from(support::CODERDB).with_file_name("coderdb-example-service");

    let database = support::database().await;
    support::run(database.coderdb().arg("demo"));
    let output = Command::new(program).envs(database.environment()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\"status\": \"pending\""), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("\"credits_consumed\":"), "{text}");
}
