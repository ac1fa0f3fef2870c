//! A server of one process, for tests: it stops when that process ends, also after `kill -9`.
//!
//! A shell starts the server and reads from a pipe whose only writer is this process. When the process ends, the kernel
//! closes the pipe; the shell then stops the server and removes its directory.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Error,
    connection::Connection,
    data_directory::{DataDirectory, Lock},
    supervisor::{EVERYWHERE, POLL, failed},
};

const PREFIX: &str = "coderdb-throw-away-";

/// `initdb` and the start take a second where nothing else runs.
const START_PATIENCE: Duration = Duration::from_mins(2);

/// Standard input is the pipe, standard output the server's lock, standard error the log. The group of processes is that of
/// the shell. TERM ends what handles no signals yet, QUIT a server that runs: what is thrown away need not be shut down.
const SCRIPT: &str = r#"
dir=$0 bin=$1 sockets=$2
shift 2
exec 3<&0
{
    "$bin/initdb" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-instructions --no-sync --wal-segsize=4 \
        -D "$dir/data" && exec "$bin/postgres" -D "$dir/data" "$@"
} <&1 >&2 3<&- &
exec >/dev/null
cat <&3
trap : TERM QUIT
kill -s TERM 0
kill -s QUIT 0
wait "$!"
rm -rf -- "$dir" "$sockets"
"#;

/// A server that is ready.
pub(super) struct Started {
    pub(super) connection: Connection,
    pub(super) socket_dir: PathBuf,
    /// The server stops when it is closed.
    pub(super) pipe: ChildStdin,
}

/// A directory that no other process uses, in memory where there is room.
pub(super) fn new_directory() -> Result<DataDirectory, Error> {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    DataDirectory::new(&scratch_dir().join(format!("{PREFIX}{}-{nanos}", std::process::id())))
}

/// Containers often have 64 MB of shared memory, which a few test databases fill.
fn scratch_dir() -> PathBuf {
    let df = Command::new("df").args(["-Pk", "/dev/shm"]).output();
    let df = df.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let free_kb = df.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    if free_kb.is_some_and(|kb| kb > 1 << 20) { "/dev/shm".into() } else { std::env::temp_dir() }
}

/// Starts the server of a new directory, and waits until it is ready.
pub(super) fn start(directory: &DataDirectory, bin: &Path) -> Result<Started, Error> {
    let socket_dir = directory.socket_dir()?;
    let server_lock = directory.lock(Lock::Server)?;
    let log = directory.open_log()?;
    // The shell removes the directory, as the server's user.
    directory.give_to_server(&directory.path)?;
    let mut command = directory.command(Path::new("sh"));
    command.args(["-c", SCRIPT]).args([directory.path.as_path(), bin, &socket_dir]);
    command.arg("-c").arg(format!("unix_socket_directories=\"{}\"", socket_dir.display()));
    for setting in EVERYWHERE.iter().chain(SETTINGS) {
        command.args(["-c", setting]);
    }
    // Ctrl-C in our terminal is for us alone.
    command.stdin(Stdio::piped()).stdout(server_lock).stderr(log).process_group(0);
    let mut shell = command.spawn().map_err(Error::io("run", "sh"))?;
    // It holds the handle of the server's lock that the server is to have alone.
    drop(command);
    let Some(pipe) = shell.stdin.take() else {
        return Err(failed(directory, "sh", "no pipe"));
    };
    let deadline = Instant::now() + START_PATIENCE;
    while Instant::now() < deadline {
        if let Some((connection, socket_dir)) = directory.connect() {
            return Ok(Started { connection, socket_dir, pipe });
        }
        if directory.try_lock(Lock::Server)?.is_some() {
            let log = fs::read_to_string(directory.log()).unwrap_or_default();
            return Err(failed(directory, "starting PostgreSQL", &log));
        }
        thread::sleep(POLL);
    }
    Err(Error::Stuck { dir: directory.path.clone(), problem: "does not become ready" })
}

/// Removes the servers whose shells were killed together with their processes.
pub(super) fn sweep(directory: &DataDirectory) {
    for entry in directory.path.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten() {
        let is_ours = entry.metadata().is_ok_and(|m| m.is_dir() && directory.is_of_us(&m));
        if is_ours && entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let left = DataDirectory { path: entry.path(), ..directory.clone() };
            if let Ok(Some(_nobody_else)) = left.try_lock(Lock::Users)
                && left.stop_server_at_once().is_ok()
            {
                let _ = fs::remove_dir_all(&left.path);
            }
        }
    }
}

const SETTINGS: &[&str] = &[
    "autovacuum=off",
    "checkpoint_timeout=1h",
    // In the data directory, so that nothing is left elsewhere when the server is killed.
    "dynamic_shared_memory_type=mmap",
    "fsync=off",
    "full_page_writes=off",
    "log_min_messages=fatal",
    "max_connections=200",
    "max_locks_per_transaction=256",
    "shared_buffers=64MB",
];
