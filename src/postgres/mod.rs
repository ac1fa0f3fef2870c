//! A private PostgreSQL server, for development, the demo and tests, where no `DATABASE_URL` is given.
//!
//! It is a real server, from whatever is installed (or the pinned build npm has), and is reached through a Unix socket
//! that other users cannot enter: no port, no password. The first process that calls [`Server::open`] starts it; it
//! stops when the last of them ends, also after `kill -9`.
//!
//! [`Server::throw_away`] starts one for the calling process alone, without a supervisor.
//!
//! One *supervisor* process per server, a hidden subcommand of `coderdb`, does both. File locks in the server's
//! directory show which processes are there: the kernel releases them however a process ends.
//!
//! | file | held by | tells |
//! | --- | --- | --- |
//! | `users.lock` | every user, shared | the supervisor, which waits for it exclusively, when to stop the server |
//! | `start.lock` | the process that starts the server | the others to wait until it is ready |
//! | `supervisor.lock` | the supervisor | whether the server, if any, needs another one |
//! | `server.lock` | every process of the server | whether anything of it is left, even if its first process was killed |

mod binaries;
mod connection;
mod data_directory;
mod error;
mod fetch;
mod install;
mod running;
mod supervisor;
mod throw_away;

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ChildStdin, Command},
    thread,
    time::{Duration, Instant},
};

use data_directory::{DataDirectory, Lock, clean_environment, user_dirs};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

pub use error::Error;
pub use supervisor::supervise;

/// The database that every private server has from its first start on.
pub const DATABASE: &str = "coderdb";

/// Where a private server keeps its data, and which program supervises it.
#[derive(Debug, Clone)]
pub struct Settings {
    directory: PathBuf,
    supervisor: PathBuf,
}

impl Settings {
    /// The development server of this user: in `CODERDB_DATA_DIR`, else in the user's data directory.
    ///
    /// For root, who has to run the server as another user, a directory that `postgres` cannot enter is replaced by
    /// one of its own in `/var/lib/coderdb`; see [`Server::data_dir`].
    pub fn development() -> Result<Self, Error> {
        let directory = std::env::var_os("CODERDB_DATA_DIR").filter(|dir| !dir.is_empty());
        Ok(Self::persistent(match directory {
            Some(directory) => directory.into(),
            None => user_dirs()?.data,
        }))
    }

    /// A server whose data stays in `directory`.
    #[must_use]
    pub fn persistent(directory: impl Into<PathBuf>) -> Self {
        // The link stays right when a rebuild replaces the program under us.
        let linux = PathBuf::from("/proc/self/exe");
        let supervisor = if linux.exists() { linux } else { std::env::current_exe().unwrap_or_default() };
        Self { directory: directory.into(), supervisor }
    }

    /// The `coderdb` program to start the supervisor with, where this process is another program, say a test.
    #[must_use]
    pub fn supervisor(mut self, program: impl Into<PathBuf>) -> Self {
        self.supervisor = program.into();
        self
    }

    fn data_directory(&self) -> Result<DataDirectory, Error> {
        DataDirectory::new(&self.directory)
    }
}

/// What a user may want to know while [`Server::open`] works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// No server is installed, so the pinned build is fetched, once.
    Fetching {
        /// The npm package.
        package: String,
        /// Where it will live.
        into: PathBuf,
    },
    /// The data directory is new.
    Creating {
        /// The data directory.
        data_dir: PathBuf,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetching { package, into } => {
                write!(f, "no PostgreSQL found: fetching {package} (23 MB) with npm into {}", into.display())
            }
            Self::Creating { data_dir } => write!(f, "creating a private PostgreSQL server in {}", data_dir.display()),
        }
    }
}

/// One user's hold on a running private server; dropping it, or dying, lets go.
#[derive(Debug)]
pub struct Server {
    directory: DataDirectory,
    socket_dir: PathBuf,
    version: String,
    _user: File,
    /// The end of a throw-away server.
    _pipe: Option<ChildStdin>,
}

/// Not for the start of a server, which its supervisor limits, but for one that is there and does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    /// Joins the server, starting it first if it does not run. Blocks meanwhile.
    pub fn open(settings: &Settings, mut on_notice: impl FnMut(Notice)) -> Result<Self, Error> {
        let directory = settings.data_directory()?;
        let user = directory.join()?;
        let mut deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            // Opened anew in each round: the lock of a handle we shared is the supervisor's alone to release.
            let start_lock = directory.lock(Lock::Start)?;
            if !directory.is_held(Lock::Supervisor) {
                let bin = binaries::find(&directory, &mut on_notice)?;
                if directory.data_version().is_none() {
                    on_notice(Notice::Creating { data_dir: directory.path.clone() });
                }
                supervisor::spawn(&directory, &settings.supervisor, &bin, &start_lock)?;
                deadline = Instant::now() + ANSWER_TIMEOUT;
            } else if let Some((connection, socket_dir)) = directory.connect() {
                let major = || directory.data_version().unwrap_or_default().to_string();
                let version = connection.version.clone().unwrap_or_else(major);
                return Ok(Self { directory, socket_dir, version, _user: user, _pipe: None });
            } else if Instant::now() > deadline {
                return Err(Error::Stuck { dir: directory.path, problem: "does not answer" });
            } else {
                // It recovers from a crash, or is about to go, supervisor and all: neither can be waited for.
                thread::sleep(supervisor::POLL);
            }
        }
    }

    /// Starts a fast server for this process alone, in memory where there is room. It ends with this value or with the
    /// process, however that ends, and nothing of it is left. Blocks meanwhile.
    pub fn throw_away(mut on_notice: impl FnMut(Notice)) -> Result<Self, Error> {
        let directory = throw_away::new_directory()?;
        throw_away::sweep(&directory);
        let bin = binaries::find(&directory, &mut on_notice)?;
        // Late: until the shell runs, there is nobody to remove the directory.
        let user = directory.join()?;
        let throw_away::Started { connection, socket_dir, pipe } = throw_away::start(&directory, &bin)?;
        let version = connection.version.clone().unwrap_or_default();
        Ok(Self { directory, socket_dir, version, _user: user, _pipe: Some(pipe) })
    }

    /// The connection URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(&self.socket_dir, database)
    }

    /// The server's directory: data, log and locks.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.directory.path
    }

    /// The server's version, like `18.4`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `psql` on one of its databases, from beside the server, else from `PATH`.
    pub fn psql_command(&self, database: &str) -> Result<Command, Error> {
        let options = fs::read_to_string(self.directory.data().join("postmaster.opts")).unwrap_or_default();
        let postgres = options.split(" \"").next().map(Path::new);
        let beside = postgres.and_then(Path::parent).map(Path::to_path_buf);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found =
            beside.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join("psql")).find(|p| p.is_file());
        let mut psql = Command::new(found.ok_or_else(|| Error::NoPsql { install: install::install_command() })?);
        clean_environment(&mut psql).arg(self.url(database));
        Ok(psql)
    }
}

fn url(socket_dir: &Path, database: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let socket_dir = percent_encode(socket_dir.as_os_str().as_encoded_bytes(), RESERVED);
    format!("postgres://postgres@localhost/{}?host={socket_dir}", percent_encode(database.as_bytes(), RESERVED))
}

/// A server as [`status`] finds it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The server's directory.
    pub data_dir: PathBuf,
    /// What there is to say when it runs.
    pub running: Option<Running>,
}

/// A server that runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Running {
    /// Process id of the server's first process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The directory of its socket.
    pub socket_dir: PathBuf,
    /// The URL of its database [`DATABASE`].
    pub url: String,
    /// Open client connections, when it tells.
    pub connections: Option<u64>,
}

/// Looks, without starting anything.
pub fn status(settings: &Settings) -> Result<Status, Error> {
    let directory = settings.data_directory()?;
    let running =
        directory.postmaster().zip(directory.connect()).map(|(postmaster, (mut connection, socket_dir))| Running {
            pid: postmaster.pid,
            version: connection.version.clone().or(directory.data_version().map(|v| v.to_string())).unwrap_or_default(),
            url: url(&socket_dir, DATABASE),
            socket_dir,
            connections: connection.value(CONNECTIONS).ok().and_then(|count| count.parse().ok()),
        });
    Ok(Status { data_dir: directory.path, running })
}

const CONNECTIONS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// What [`stop`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It ran, and does not any more.
    Stopped,
    /// There was nothing to stop.
    NotRunning,
}

/// Stops the server. While others use it that is an error, unless `force` takes it from them.
pub fn stop(settings: &Settings, force: bool) -> Result<Stopped, Error> {
    let directory = settings.data_directory()?;
    if !directory.path.join(Lock::Users.file_name()).exists() {
        return Ok(Stopped::NotRunning);
    }
    let users = directory.open_lock(Lock::Users)?;
    if users.try_lock().is_err() && !force {
        if users.try_lock_shared().is_ok() {
            return Err(Error::InUse { users: directory.users() });
        }
        // Held exclusively: its supervisor is stopping it right now, unless it is killed meanwhile.
        users.lock().map_err(Error::io("lock", &directory.path))?;
        if !directory.is_held(Lock::Server) {
            return Ok(Stopped::Stopped);
        }
    }
    // No other process may start it meanwhile.
    let _start_lock = directory.lock(Lock::Start)?;
    if !directory.is_held(Lock::Server) {
        return Ok(Stopped::NotRunning);
    }
    directory.stop_server()?;
    Ok(Stopped::Stopped)
}
