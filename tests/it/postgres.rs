//! The private server, with real processes that are really killed.
use std::{
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use coderdb::postgres::{self, DATABASE, Server, Settings, Stopped};

const CODERDB: &str = env!("CARGO_BIN_EXE_coderdb");
/// Generous: only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A directory of its own for one test, whose server goes with it.
struct Sandbox {
    root: tempfile::TempDir,
    dir: PathBuf,
}

impl Sandbox {
    fn new() -> Self {
        Self::named("server")
    }

    fn named(name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        // As root, the server runs as somebody else, who must get in.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        Self { dir: root.path().join(name), root }
    }

    fn settings(&self) -> Settings {
        Settings::persistent(&self.dir).supervisor(CODERDB)
    }

    fn open(&self) -> Server {
        Server::open(&self.settings(), |_| {}).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(CODERDB);
        command.arg("postgres").args(args).env("CODERDB_DATA_DIR", &self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A client that stays; returns once its server is ready.
    fn client(&self) -> Client {
        let mut child = self.command(&["run"]).process_group(0).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut url = String::new();
        stdout.read_line(&mut url).unwrap();
        if url.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("no server for the client: {said}");
        }
        Client { child, stdout, url: url.trim_end().into() }
    }

    fn psql(&self, sql: &str) -> String {
        text(&self.command(&["psql", "-XAtqc", sql]).output().unwrap())
    }

    fn running(&self) -> Option<postgres::Running> {
        postgres::status(&self.settings()).unwrap().running
    }

    fn server_pid(&self) -> u32 {
        self.running().expect("the server runs").pid
    }

    fn supervisor_pid(&self) -> u32 {
        pid_with_arguments(&["supervise", self.dir.to_str().unwrap()]).expect("a supervisor")
    }

    fn half_made(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.to_string_lossy().contains("data.part-")).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = postgres::stop(&self.settings(), true);
        if self.dir.exists() {
            wait_for_release(&self.dir.join("supervisor.lock"));
        }
    }
}

struct Client {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    url: String,
}

impl Client {
    /// With SIGKILL, so that it cannot say good-bye.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().into()
}

#[track_caller]
fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `work` elsewhere, and fails when it takes too long.
#[track_caller]
fn soon<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} took too long"))
}

/// Waits for the event that the kernel gives: nobody holds the lock any more.
#[track_caller]
fn wait_for_release(lock: &Path) {
    let path = lock.to_path_buf();
    soon(&format!("the release of {}", lock.display()), move || {
        if let Ok(file) = File::options().write(true).open(path) {
            file.lock().unwrap();
        }
    });
}

/// For what happens in other processes without an event for us.
#[track_caller]
fn poll_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn pid_with_arguments(wanted: &[&str]) -> Option<u32> {
    let listing = Command::new("ps").args(["-ww", "-eo", "pid=,stat=,args="]).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let mut lines = listing.lines().filter(|line| wanted.iter().all(|word| line.contains(word)));
    lines.find_map(|line| {
        let mut fields = line.split_whitespace();
        let pid = fields.next()?.parse().ok()?;
        (!fields.next()?.starts_with('Z')).then_some(pid)
    })
}

fn signal(name: &str, target: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\"", name, target]).status().unwrap();
    assert!(status.success());
}

fn kill(pid: u32) {
    signal("KILL", &pid.to_string());
}

#[test]
fn several_processes_at_once_share_one_server_and_the_last_one_stops_it() {
    let sandbox = Sandbox::new();
    let mut clients: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(|| sandbox.client())).collect();
        starting.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(clients.iter().all(|client| client.url == clients[0].url));
    let pid = sandbox.server_pid();
    let mut last = clients.pop().unwrap();
    for client in &mut clients {
        client.kill();
        assert_eq!(sandbox.server_pid(), pid, "others still use it");
    }
    last.kill();
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    assert!(sandbox.running().is_none(), "nobody uses it");
    assert!(!sandbox.dir.join("data/postmaster.pid").exists(), "it was shut down, not killed");
}

#[test]
fn a_client_that_comes_while_the_server_stops_gets_a_server() {
    let sandbox = Sandbox::new();
    for _ in 0..30 {
        assert_eq!(sandbox.psql("SELECT 1"), "1");
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..15).for_each(|_| assert_eq!(sandbox.psql("SELECT 1"), "1")));
        }
    });
}

#[test]
fn a_server_whose_supervisor_was_killed_gets_another_from_the_next_client() {
    let sandbox = Sandbox::new();
    let mut first = sandbox.client();
    let (server, supervisor) = (sandbox.server_pid(), sandbox.supervisor_pid());
    kill(supervisor);
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    assert_eq!(sandbox.server_pid(), server, "the server outlives its supervisor");

    let mut second = sandbox.client();
    assert_eq!(sandbox.server_pid(), server, "it was not started a second time");
    assert_ne!(sandbox.supervisor_pid(), supervisor);
    first.kill();
    second.kill();
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    assert!(sandbox.running().is_none(), "the new supervisor stops it");
}

#[test]
fn a_server_without_supervisor_and_users_is_stopped_on_request() {
    let sandbox = Sandbox::new();
    let mut client = sandbox.client();
    kill(sandbox.supervisor_pid());
    client.kill();
    assert!(sandbox.running().is_some());
    assert_eq!(postgres::stop(&sandbox.settings(), false).unwrap(), Stopped::Stopped);
    assert!(sandbox.running().is_none());
}

#[test]
fn a_killed_server_is_started_again_by_the_next_client_and_keeps_its_data() {
    let sandbox = Sandbox::new();
    let _first = sandbox.client();
    sandbox.psql("CREATE TABLE kept AS SELECT 42 AS answer");
    // Commits do not wait for the disk.
    sandbox.psql("CHECKPOINT");
    let pid = sandbox.server_pid();
    kill(pid);
    let _second = sandbox.client();
    assert_ne!(sandbox.server_pid(), pid);
    assert_eq!(sandbox.psql("SELECT answer FROM kept"), "42");
}

#[test]
fn a_killed_server_with_a_busy_process_left_is_waited_for() {
    let sandbox = Sandbox::new();
    let client = sandbox.client();
    // Until it returns, this query's process keeps the shared memory that a second server must not touch.
    let busy = "SELECT count(*) FROM generate_series(1, 8000000)";
    let mut query = sandbox.command(&["psql", "-XAtqc", busy]).spawn().unwrap();
    poll_for("the busy query", || (sandbox.running()?.connections? > 0).then_some(()));
    kill(sandbox.server_pid());
    assert_eq!(sandbox.psql("SELECT 1"), "1");
    query.wait().unwrap();
    drop(client);
}

#[test]
fn killing_anything_during_the_first_start_leaves_nothing_half_made() {
    for victim in ["client", "supervisor", "initdb", "everything"] {
        let sandbox = Sandbox::new();
        let mut client = sandbox.command(&["run"]).spawn().unwrap();
        poll_for("initdb", || sandbox.half_made().first().filter(|part| part.join("global").exists()).cloned());
        let supervisor = sandbox.supervisor_pid();
        let initdb = pid_with_arguments(&["initdb", sandbox.dir.to_str().unwrap()]);
        match victim {
            "client" => client.kill().unwrap(),
            "supervisor" => kill(supervisor),
            "initdb" => initdb.into_iter().for_each(kill),
            _ => {
                client.kill().unwrap();
                signal("KILL", &format!("-{supervisor}"));
            }
        }
        if victim == "client" {
            wait_for_release(&sandbox.dir.join("supervisor.lock"));
        } else {
            assert!(!client.wait().unwrap().success(), "{victim} killed");
            assert!(!sandbox.dir.join("data").exists(), "{victim} killed: half a data directory");
        }
        assert_eq!(sandbox.psql("SELECT current_database()"), DATABASE, "{victim} killed");
        assert!(sandbox.half_made().is_empty(), "{victim} killed: leftovers");
        let _ = client.wait();
    }
}

#[test]
fn killing_the_client_at_any_moment_of_a_start_leaves_a_startable_server() {
    let sandbox = Sandbox::new();
    for delay in (0..60).step_by(3) {
        let mut client = sandbox.command(&["run"]).spawn().unwrap();
        // The moment is the point here, not an event.
        thread::sleep(Duration::from_millis(delay));
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert_eq!(sandbox.psql("SELECT 1"), "1");
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    assert!(sandbox.running().is_none());
}

#[test]
fn a_leftover_pid_file_with_the_pid_of_another_process_does_not_keep_the_server_from_starting() {
    let sandbox = Sandbox::new();
    let client = sandbox.client();
    let server = sandbox.server_pid();
    let pid_file = fs::read_to_string(sandbox.dir.join("data/postmaster.pid")).unwrap();
    kill(server);
    wait_for_release(&sandbox.dir.join("server.lock"));
    wait_for_release(&sandbox.dir.join("supervisor.lock"));
    let mine = std::process::id().to_string();
    fs::write(sandbox.dir.join("data/postmaster.pid"), pid_file.replace(&server.to_string(), &mine)).unwrap();
    assert_eq!(sandbox.psql("SELECT 1"), "1");
    drop(client);
}

#[test]
fn a_killed_server_that_is_still_a_zombie_does_not_keep_the_next_from_starting() {
    let sandbox = Sandbox::new();
    let client = sandbox.client();
    let (server, supervisor) = (sandbox.server_pid(), sandbox.supervisor_pid());
    // A stopped parent does not reap; killing it then would hand the zombie to init, which may or may not.
    signal("STOP", &supervisor.to_string());
    kill(server);
    wait_for_release(&sandbox.dir.join("server.lock"));
    assert!(sandbox.running().is_none(), "a zombie does not run");
    kill(supervisor);
    assert_eq!(sandbox.psql("SELECT 1"), "1");
    drop(client);
}

#[test]
fn the_end_of_a_client_closes_its_pipes_and_its_ctrl_c_stays_with_it() {
    let sandbox = Sandbox::new();
    let mut starter = sandbox.client();
    let mut stderr = starter.child.stderr.take().unwrap();
    let second = sandbox.client();
    // As a terminal does with Ctrl-C: to the whole process group. Not INT, which whatever is run in the background ignores.
    signal("TERM", &format!("-{}", starter.child.id()));
    let mut stdout = std::mem::replace(&mut starter.stdout, BufReader::new(second_pipe()));
    soon("the end of the client's output", move || {
        stdout.read_to_string(&mut String::new()).unwrap();
        stderr.read_to_string(&mut String::new()).unwrap();
    });
    starter.child.wait().unwrap();
    assert!(sandbox.running().is_some(), "the second client still uses it");
    sandbox.supervisor_pid();
    drop(second);
}

/// Something to leave in place of a pipe that is read elsewhere.
fn second_pipe() -> std::process::ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let pipe = child.stdout.take().unwrap();
    child.wait().unwrap();
    pipe
}

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
fn a_throw_away_server_goes_with_its_last_user() {
    let settings = Settings::throw_away().supervisor(CODERDB);
    let first = Server::open(&settings, |_| {}).unwrap();
    let second = Server::open(&settings, |_| {}).unwrap();
    let dir = first.data_dir().to_path_buf();
    drop(first);
    assert!(dir.join("data/postmaster.pid").exists());
    drop(second);
    wait_for_release(&dir.join("supervisor.lock"));
    assert!(!dir.exists(), "{} is left", dir.display());
}

#[test]
fn a_throw_away_server_whose_supervisor_was_killed_goes_with_the_next_start() {
    let open = || Server::open(&Settings::throw_away().supervisor(CODERDB), |_| {}).unwrap();
    let orphan = open();
    let dir = orphan.data_dir().to_path_buf();
    kill(pid_with_arguments(&["supervise", dir.to_str().unwrap()]).unwrap());
    wait_for_release(&dir.join("supervisor.lock"));
    let survivor = open();
    assert!(dir.exists(), "it is in use");
    drop(orphan);
    let _next = open();
    assert!(!dir.exists(), "{} is left", dir.display());
    assert!(pid_with_arguments(&["postgres", dir.to_str().unwrap()]).is_none());
    drop(survivor);
}
