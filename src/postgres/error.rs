use std::{io, path::PathBuf};

/// Why there is no private PostgreSQL server. The message says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `PG_BIN_DIR` names a directory without a usable server.
    #[error("PG_BIN_DIR is {}, {problem}; point it at the `bin` directory of PostgreSQL 14 or newer, or unset it", dir.display())]
    BadBinDir {
        /// What the variable says.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No server is installed and none can be fetched.
    #[error(
        "no PostgreSQL 14 or newer found; looked in {}\n{why_not_fetched}\nInstall it (`{install}`), or set PG_BIN_DIR \
         to its `bin` directory, or set DATABASE_URL to use a server of your own",
        looked_in.join(", ")
    )]
    NoBinaries {
        /// Every directory that was tried, with what was wrong there.
        looked_in: Vec<String>,
        /// Why the pinned build could not be used instead.
        why_not_fetched: String,
        /// The command that installs PostgreSQL on this platform.
        install: &'static str,
    },
    /// The data directory was made by a major version that is not here.
    #[error(
        "{} was made by PostgreSQL {wanted}, which is not here (found: {}); install PostgreSQL {wanted} (or set \
         PG_BIN_DIR to it), or move the directory away to start with an empty one",
        data_dir.display(), if found.is_empty() { "none".into() } else { found.join(", ") }
    )]
    WrongVersion {
        /// The data directory.
        data_dir: PathBuf,
        /// Its major version.
        wanted: u32,
        /// The installations that were found.
        found: Vec<String>,
    },
    /// The pinned build could not be fetched.
    #[error(
        "fetching {package} with npm failed: {detail}\nTry again with a network, or install PostgreSQL (`{install}`), \
         or set PG_BIN_DIR, or set DATABASE_URL to use a server of your own"
    )]
    Fetch {
        /// The npm package.
        package: String,
        /// What npm, or the check of its answer, said.
        detail: String,
        /// The command that installs PostgreSQL on this platform.
        install: &'static str,
    },
    /// PostgreSQL refuses to run as root, and there is no other user to run it as.
    #[error(
        "PostgreSQL cannot run as root, and neither the user `postgres` nor `nobody` exists; create one or run as another user"
    )]
    NoUser,
    /// The home directory is unknown, so there is no default directory for the data.
    #[error(
        "the home directory is unknown, so there is no place for a private server; set DATABASE_URL to use a server of \
         your own, or CODERDB_DATA_DIR"
    )]
    NoHome(#[source] etcetera::HomeDirError),
    /// The directory for the socket exists and may belong to another user.
    #[error("{} exists and is not a private directory of the server's user; have it removed, or choose a shorter CODERDB_DATA_DIR", .0.display())]
    UnsafeSocketDir(PathBuf),
    /// The server, or the process that looks after it, did not start.
    #[error("{what} failed: {detail}\nThe server's log is {}", log.display())]
    Start {
        /// The step that failed.
        what: &'static str,
        /// What it said.
        detail: String,
        /// The log file.
        log: PathBuf,
    },
    /// There is a server, and it does not answer or does not end.
    #[error("the server in {} {problem}; see its log in that directory, then try `coderdb postgres stop --force`", dir.display())]
    Stuck {
        /// Where it lives.
        dir: PathBuf,
        /// What it does not do.
        problem: &'static str,
    },
    /// Others use the server that should be stopped.
    #[error("in use by {}; wait for it, or stop the server under it with --force", users.join(", "))]
    InUse {
        /// The processes, as far as the system tells.
        users: Vec<String>,
    },
    /// No `psql` was found.
    #[error("no psql beside the server or on PATH; install it (`{install}`), or use any client with the URL")]
    NoPsql {
        /// The command that installs PostgreSQL on this platform.
        install: &'static str,
    },
    /// The file system said no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: the step and the path that an i/o error lacks.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
