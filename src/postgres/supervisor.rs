//! The one process per server that starts it, outlives the client that asked for it, and stops it.
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{
    DATABASE, Error,
    data_directory::{DataDirectory, Lock, clean_environment},
    fetch::remove_leftovers,
};

/// Long, since a server that was killed under load replays its log first.
const START_PATIENCE: Duration = Duration::from_mins(5);
/// A server that starts announces it in the file system alone, so that is polled.
pub(super) const POLL: Duration = Duration::from_millis(5);

const READY: &str = "ready\n";

/// Starts a supervisor and waits until its server is ready. The start lock passes to it with its standard input,
/// so that no other process starts a server if this one is killed meanwhile.
pub(super) fn spawn(directory: &DataDirectory, program: &Path, bin: &Path, start_lock: &File) -> Result<(), Error> {
    let failed = |detail: String| Error::Start { what: "starting PostgreSQL", detail, log: directory.log() };
    let shared = start_lock.try_clone().map_err(Error::io("share the lock in", &directory.path))?;
    let mut command = Command::new(program);
    clean_environment(&mut command)
        .args(["postgres", "supervise"])
        .args([directory.path.as_path(), bin])
        .current_dir("/")
        .stdin(shared)
        .stdout(Stdio::piped())
        .stderr(directory.open_log()?)
        // Ctrl-C in our terminal is for us alone.
        .process_group(0);
    let mut child = command.spawn().map_err(|e| failed(format!("{}: {e}", program.display())))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(failed("no pipe".into()));
    };
    let (mut stdout, mut said) = (BufReader::new(stdout), String::new());
    let _ = stdout.read_line(&mut said);
    if said == READY {
        return Ok(());
    }
    let _ = stdout.read_to_string(&mut said);
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    Err(failed(if said.is_empty() { format!("its supervisor ended early ({status})") } else { said.trim_end().into() }))
}

/// The hidden subcommand `coderdb postgres supervise DIR BIN_DIR`; `args` are what follows `supervise`.
///
/// Meant to be started by [`super::Server::open`] only, with the start lock as its standard input.
pub fn supervise(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let [dir, bin] = args.as_slice() else {
        return ExitCode::from(2);
    };
    match run(Path::new(dir), Path::new(bin)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The client adds where the log is.
            let said = match &error {
                Error::Start { what, detail, .. } => format!("{what}: {detail}"),
                other => with_causes(other),
            };
            // The reader may be gone.
            let _ = writeln!(io::stdout(), "{said}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path, bin: &Path) -> Result<(), Error> {
    let directory = DataDirectory::new(dir)?;
    let supervisor = directory.lock(Lock::Supervisor)?;
    let server = start_or_adopt(&directory, bin)?;
    let _ = io::stdout().write_all(READY.as_bytes());
    let start_lock = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let _ = start_lock.and_then(|lock| lock.unlock());

    // What comes first: the last user's end, with the lock that makes later ones wait, or the server's, with none.
    let (sender, events) = mpsc::channel();
    for lock in [Lock::Users, Lock::Server] {
        let (directory, sender) = (directory.clone(), sender.clone());
        thread::spawn(move || {
            sender.send(directory.lock(lock).map(|held| matches!(lock, Lock::Users).then_some(held)))
        });
    }
    let users = events.recv().unwrap_or(Ok(None))?;
    if users.is_some() {
        directory.stop_server()?;
    }
    if let Some(mut server) = server {
        let _ = server.wait();
    }
    // First, so that a process that gets the other lock does not see a supervisor.
    drop(supervisor);
    drop(users);
    Ok(())
}

/// Returns when a server is ready: our child, or one whose supervisor was killed.
fn start_or_adopt(directory: &DataDirectory, bin: &Path) -> Result<Option<Child>, Error> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut started = None;
    while Instant::now() < deadline {
        match directory.try_lock(Lock::Server)? {
            Some(_) if started.is_some() => {
                let log = fs::read_to_string(directory.log()).unwrap_or_default();
                return Err(failed(directory, "postgres", &log));
            }
            Some(nobody_runs) => {
                started = Some(start(directory, bin, nobody_runs)?);
            }
            // Ready, starting, shutting down, or the last processes of a killed one.
            None if directory.connect().is_some() => return Ok(started),
            None => {}
        }
        thread::sleep(POLL);
    }
    Err(Error::Stuck { dir: directory.path.clone(), problem: "does not become ready" })
}

fn start(directory: &DataDirectory, bin: &Path, server_lock: File) -> Result<Child, Error> {
    let _ = directory.open_log()?.set_len(0);
    remove_leftovers(&directory.path, PART);
    if directory.data_version().is_none() {
        create_data(directory, bin, &server_lock)?;
    }
    let socket_dir = directory.socket_dir()?;
    directory.forget_killed_server(&socket_dir);
    let mut command = to_log(directory.command(&bin.join("postgres")), directory)?;
    command.arg("-D").arg(directory.data());
    let mut sockets = OsString::from("unix_socket_directories=\"");
    sockets.push(&socket_dir);
    sockets.push("\"");
    command.arg("-c").arg(sockets);
    for setting in EVERYWHERE.iter().chain(PERSISTENT) {
        command.args(["-c", setting]);
    }
    command.stdin(server_lock).spawn().map_err(Error::io("run", bin.join("postgres")))
}

const PART: &str = "data.part-";

/// Made beside its place and renamed, so that there never is half of it.
fn create_data(directory: &DataDirectory, bin: &Path, server_lock: &File) -> Result<(), Error> {
    let part = directory.path.join(format!("{PART}{}", std::process::id()));
    directory.create_private_dir(&part)?;
    let mut initdb = to_log(directory.command(&bin.join("initdb")), directory)?;
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]);
    // A killed supervisor leaves initdb running: with the lock, the next start waits for its end.
    let lock = server_lock.try_clone().map_err(Error::io("share the lock in", &directory.path))?;
    finish(directory, "initdb", initdb.arg("-D").arg(&part).stdin(lock).spawn(), "")?;
    let mut single = to_log(directory.command(&bin.join("postgres")), directory)?;
    single.args(["--single", "-c", "exit_on_error=true", "-D"]).arg(&part).arg("template1").stdin(Stdio::piped());
    finish(directory, "creating the database", single.spawn(), &format!("CREATE DATABASE {DATABASE}\n"))?;
    fs::rename(&part, directory.data()).map_err(Error::io("rename into place", directory.data()))?;
    let _ = File::open(&directory.path).and_then(|dir| dir.sync_all());
    Ok(())
}

fn finish(directory: &DataDirectory, what: &'static str, child: io::Result<Child>, input: &str) -> Result<(), Error> {
    let ended = child.and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait()
    });
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(failed(directory, what, &fs::read_to_string(directory.log()).unwrap_or_default())),
        Err(e) => Err(failed(directory, what, &e.to_string())),
    }
}

pub(super) fn failed(directory: &DataDirectory, what: &'static str, said: &str) -> Error {
    let lines: Vec<_> = said.trim_end().lines().collect();
    let last_words = lines[lines.len().saturating_sub(12)..].join("\n");
    let detail = if last_words.is_empty() { "it ended without a word".into() } else { last_words };
    Error::Start { what, detail, log: directory.log() }
}

/// Our standard output is the pipe to the client, which must not outlive us.
fn to_log(mut command: Command, directory: &DataDirectory) -> Result<Command, Error> {
    command.stdout(directory.open_log()?).stderr(directory.open_log()?);
    Ok(command)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Commits are not asynchronous, not even where nothing is synced: a vacuum that comes before their flush marks no page
/// as visible to all, and counts in an index alone are then planned as reads of the table.
pub(super) const EVERYWHERE: &[&str] = &[
    "listen_addresses=",
    "port=5432",
    "timezone=UTC",
    "log_timezone=UTC",
    "jit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=4GB",
];

/// Survives a power cut; sized for loading a million rows.
const PERSISTENT: &[&str] =
    &["checkpoint_timeout=15min", "maintenance_work_mem=256MB", "max_connections=100", "shared_buffers=256MB"];
