//! The private server, with real processes that are really killed.

mod directories;
mod lifecycle;

use std::{
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
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

/// Whether all threads of the process stand still.
fn is_stopped(pid: u32) -> bool {
    let states = Command::new("ps").args(["-L", "-o", "stat=", "-p", &pid.to_string()]).output().unwrap().stdout;
    String::from_utf8_lossy(&states).lines().all(|state| state.starts_with('T'))
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
    // A thread that runs yet would get the lock of the server, and keep it.
    poll_for("the stop of the supervisor", || is_stopped(supervisor).then_some(()));
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
