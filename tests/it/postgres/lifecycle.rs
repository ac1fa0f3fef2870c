//! Keeping, sharing and stopping a server.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    thread,
};

use coderdb::postgres::{Server, Settings};

use super::{CODERDB, Sandbox, failure, kill, pid_with_arguments, poll_for, text, wait_for_release};

#[test]
fn the_pinned_build_is_fetched_once_even_by_two_at_once() {
    let cache = Sandbox::new();
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    let version = |sandbox: &Sandbox, path: Option<&Path>| {
        let mut command = sandbox.command(&["psql", "-XAtqc", "SHOW server_version_num"]);
        command.env("CODERDB_POSTGRES", "pinned").env_remove("PG_BIN_DIR");
        command.env("XDG_CACHE_HOME", cache.root.path().join("cache"));
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command.output().unwrap()
    };
    let said: String = thread::scope(|scope| {
        let fetching: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(|| version(sandbox, None))).collect();
        let outputs = fetching.into_iter().map(|output| output.join().unwrap());
        outputs
            .map(|output| {
                assert!(text(&output).starts_with("18"));
                String::from_utf8(output.stderr).unwrap()
            })
            .collect()
    });
    assert_eq!(said.matches("fetching @embedded-postgres/").count(), 1, "{said}");
    let kept: Vec<_> =
        fs::read_dir(cache.root.path().join("cache/coderdb")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(kept.len(), 2, "the build and the lock: {kept:?}");

    // Without npm this time; psql is on no PATH, so its absence is the answer.
    let said = failure(&version(&sandboxes[0], Some(cache.root.path())));
    assert!(said.contains("no psql") && !said.contains("fetching"), "{said}");
}

#[test]
fn data_stays_between_runs_and_only_the_first_announces_itself() {
    let sandbox = Sandbox::new();
    let first = sandbox.command(&["psql", "-XAtqc", "CREATE TABLE kept AS SELECT 42 AS answer"]).output().unwrap();
    assert!(String::from_utf8_lossy(&first.stderr).starts_with("creating a private PostgreSQL server in "));
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    let second = sandbox.command(&["psql", "-XAtqc", "SELECT answer FROM kept"]).output().unwrap();
    assert_eq!(text(&second), "42");
    assert_eq!(String::from_utf8_lossy(&second.stderr), "");
}

#[test]
fn variables_and_umask_of_the_caller_do_not_matter() {
    let sandbox = Sandbox::new();
    let script = "umask 777; exec \"$0\" postgres psql -XAtqc 'SELECT 1'";
    let mut command = Command::new("sh");
    command.args(["-c", script, CODERDB]).env("CODERDB_DATA_DIR", &sandbox.dir).env("LC_ALL", "xx_YY");
    for (name, value) in [
        ("PGHOST", "nowhere"),
        ("PGPORT", "1"),
        ("PGUSER", "x"),
        ("PGDATA", "/"),
        ("PGOPTIONS", "-c a=b"),
        ("PG_BIN_DIR", ""),
    ] {
        command.env(name, value);
    }
    assert_eq!(text(&command.output().unwrap()), "1");
}

#[test]
fn a_server_in_use_is_stopped_only_by_force_and_the_refusal_names_the_user() {
    let sandbox = Sandbox::new();
    assert_eq!(text(&sandbox.command(&["stop"]).output().unwrap()), "not running");
    assert!(!sandbox.dir.exists(), "asking creates nothing");
    let client = sandbox.client();
    let refusal = failure(&sandbox.command(&["stop"]).output().unwrap());
    let who = if cfg!(target_os = "linux") { client.child.id().to_string() } else { "other".into() };
    assert!(refusal.contains("in use by") && refusal.contains(&who), "{refusal}");
    assert!(sandbox.running().is_some());
    assert_eq!(text(&sandbox.command(&["stop", "--force"]).output().unwrap()), "stopped");
    assert!(sandbox.running().is_none());
    assert_eq!(sandbox.psql("SELECT 1"), "1", "and the next command starts it again");
    drop(client);
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    assert_eq!(text(&sandbox.command(&["stop"]).output().unwrap()), "not running");
}

#[test]
fn as_root_the_server_runs_as_another_user_who_need_not_enter_our_directories() {
    let sandbox = Sandbox::new();
    if fs::metadata(sandbox.root.path()).unwrap().uid() != 0 {
        return;
    }
    let server = sandbox.open();
    let pid = sandbox.server_pid();
    assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);
    drop(server);

    fs::set_permissions(sandbox.root.path(), Permissions::from_mode(0o700)).unwrap();
    let closed = Settings::persistent(sandbox.root.path().join("closed")).supervisor(CODERDB);
    let server = Server::open(&closed, |_| {}).unwrap();
    let instead = server.data_dir().to_path_buf();
    assert!(instead.starts_with("/var/lib/coderdb"), "{}", instead.display());
    drop(server);
    wait_for_release(&instead.join("supervisor.lock"));
    fs::remove_dir_all(instead).unwrap();
}

#[test]
fn a_throw_away_server_ends_with_its_value() {
    let server = Server::throw_away(|_| {}).unwrap();
    let dir = server.data_dir().to_path_buf();
    assert!(dir.join("data/postmaster.pid").exists());
    drop(server);
    poll_for("the end of the server", || (!dir.exists()).then_some(()));
}

#[test]
fn a_throw_away_server_whose_shell_was_killed_goes_with_the_next_start() {
    let open = || Server::throw_away(|_| {}).unwrap();
    let orphan = open();
    let dir = orphan.data_dir().to_path_buf();
    kill(pid_with_arguments(&["sh", "-c", dir.to_str().unwrap()]).unwrap());
    let survivor = open();
    assert!(dir.exists(), "it is in use");
    drop(orphan);
    let _next = open();
    assert!(!dir.exists(), "{} is left", dir.display());
    assert!(pid_with_arguments(&["postgres", dir.to_str().unwrap()]).is_none());
    drop(survivor);
}
