//! Directories, binaries and versions.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    process::Stdio,
};

use coderdb::postgres::{DATABASE, Server};

use super::{Sandbox, failure, poll_for, signal, soon, text, wait_for_release};

#[tokio::test]
async fn any_directory_name_will_do() {
    use sqlx::Connection;
    let long = "long-".repeat(40);
    for name in ["with space", "ünïcødé ✓", "100% %2F", "a,b \"quoted\" 'name' $HOME `x` \\", &long] {
        let sandbox = Sandbox::named(name);
        let server = sandbox.open();
        let mut connection = sqlx::PgConnection::connect(&server.url(DATABASE)).await.unwrap();
        let answer: i32 = sqlx::query_scalar("SELECT 42").fetch_one(&mut connection).await.unwrap();
        assert_eq!(answer, 42, "in {name}");
        let psql = server.psql_command(DATABASE).unwrap().args(["-XAtqc", "SELECT 43"]).output().unwrap();
        assert_eq!(text(&psql), "43", "in {name}");
        connection.close().await.unwrap();
    }
}

/// Other systems have no such names.
#[test]
#[cfg(target_os = "linux")]
fn a_directory_name_that_is_not_utf_8_will_do_and_one_with_a_line_break_is_refused() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let mut sandbox = Sandbox::new();
    sandbox.dir = sandbox.root.path().join(OsStr::from_bytes(b"a\xffb"));
    let server = sandbox.open();
    assert_eq!(sandbox.psql("SELECT 1"), "1");
    let status = text(&sandbox.command(&["status", "-o", "json"]).output().unwrap());
    assert!(status.contains("\"running\": true"), "{status}");
    drop(server);
    let refused = sandbox.command(&["url"]).env("CODERDB_DATA_DIR", sandbox.root.path().join("a\nb")).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(failure(&refused).contains("set CODERDB_DATA_DIR"));
}

#[test]
fn ctrl_c_in_psql_is_for_the_statement_and_not_for_the_server() {
    let sandbox = Sandbox::new();
    let mut psql = sandbox.command(&["psql", "-XAtq"]).stdin(Stdio::piped()).process_group(0).spawn().unwrap();
    psql.stdin.take().unwrap().write_all(b"SELECT pg_sleep(600);\n").unwrap();
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    poll_for("the statement", || (sandbox.psql(asleep) == "1").then_some(()));
    signal("INT", &format!("-{}", psql.id()));
    let status = soon("the end of psql", move || psql.wait_with_output().unwrap()).status;
    // psql ends at a cancelled statement where it reads a script: with its own code, and not by our signal.
    assert!(status.code().is_some(), "{status}");
}

#[test]
fn a_socket_directory_that_others_can_enter_is_refused() {
    let sandbox = Sandbox::named(&"long-".repeat(40));
    let server = sandbox.open();
    let socket_dir = sandbox.running().unwrap().socket_dir;
    assert!(!socket_dir.starts_with(&sandbox.dir), "too long for a socket");
    assert_eq!(fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    drop(server);
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    assert!(!socket_dir.exists(), "it goes with the server");
    fs::create_dir(&socket_dir).unwrap();
    fs::set_permissions(&socket_dir, Permissions::from_mode(0o755)).unwrap();
    let error = Server::open(&sandbox.settings(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("not a private directory"), "{error}");
    fs::remove_dir_all(&socket_dir).unwrap();
}

#[test]
fn data_of_another_major_version_is_left_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.dir.join("data")).unwrap();
    fs::write(sandbox.dir.join("data/PG_VERSION"), "9\n").unwrap();
    let said = failure(&sandbox.command(&["url"]).output().unwrap());
    assert!(said.contains("was made by PostgreSQL 9") && said.contains("install PostgreSQL 9"), "{said}");
}

#[test]
fn a_wrong_pg_bin_dir_is_an_error_and_not_passed_over() {
    let sandbox = Sandbox::new();
    let output = sandbox.command(&["url"]).env("PG_BIN_DIR", sandbox.root.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "trying again does not help");
    let said = failure(&output);
    assert!(said.contains("PG_BIN_DIR is") && said.contains("initdb is missing"), "{said}");
}

#[test]
fn without_any_server_and_without_npm_the_error_says_what_to_do() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["url"]);
    command
        .env("CODERDB_POSTGRES", "pinned")
        .env_remove("PG_BIN_DIR")
        .env("PATH", sandbox.root.path())
        .env("XDG_CACHE_HOME", sandbox.root.path());
    let said = failure(&command.output().unwrap());
    for way_out in ["npm", "Install it", "PG_BIN_DIR", "DATABASE_URL"] {
        assert!(said.contains(way_out), "{way_out} is missing from: {said}");
    }
}
