//! The directory of a server: the locks in it, and the user the server runs as.
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use super::Error;

/// A socket's path may have 107 bytes on Linux and 103 on macOS.
const LONGEST_SOCKET_PATH: usize = 103;

/// The locks, all released by the kernel however their holder ends.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    /// Shared by the processes that use the server; exclusive while it is stopped for good.
    Users,
    /// Held while a server is started: by the client, which hands it to the supervisor.
    Start,
    /// Held by the supervisor for its life.
    Supervisor,
    /// Inherited by every process of the server as standard input, so it ends with the last of them.
    Server,
}

impl Lock {
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Users => "users.lock",
            Self::Start => "start.lock",
            Self::Supervisor => "supervisor.lock",
            Self::Server => "server.lock",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct DataDirectory {
    pub(super) path: PathBuf,
    pub(super) me: u32,
    /// Uid and gid of the server where it cannot run as us: we are root.
    pub(super) server_user: Option<(u32, u32)>,
}

impl DataDirectory {
    pub(super) fn new(wanted: &Path) -> Result<Self, Error> {
        // The server's own files have a path per line.
        if wanted.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(Error::io("use", wanted)(io::ErrorKind::InvalidFilename.into()));
        }
        let me = my_uid();
        let server_user = if me == 0 { Some(server_user().ok_or(Error::NoUser)?) } else { None };
        let mut this = Self { path: PathBuf::new(), me, server_user };
        let absolute = std::path::absolute(wanted).map_err(Error::io("resolve", wanted))?;
        this.path = this.reachable(&absolute);
        Ok(this)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The major version that made the data, if there is any.
    pub(super) fn data_version(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// `wanted`, or a directory of its own under /var/lib where the server's user cannot get into `wanted`.
    pub(super) fn reachable(&self, wanted: &Path) -> PathBuf {
        let wanted = resolve_links(wanted);
        if self.can_reach(&wanted) {
            return wanted;
        }
        // Escaped, so that no two directories share one.
        let name = wanted.to_string_lossy().replace('%', "%25").replace('-', "%2D");
        Path::new("/var/lib/coderdb").join(name.trim_matches('/').replace('/', "-"))
    }

    pub(super) fn can_reach(&self, dir: &Path) -> bool {
        let Some((uid, _)) = self.server_user else {
            return true;
        };
        let may_enter = |m: fs::Metadata| m.mode() & 0o001 != 0 || (m.uid() == uid && m.mode() & 0o100 != 0);
        resolve_links(dir).ancestors().all(|part| fs::metadata(part).is_ok_and(may_enter) || !part.exists())
    }

    /// Creates what is missing of `dir`, whatever the umask. What exists is left as it is.
    pub(super) fn create_dir(&self, dir: &Path) -> Result<(), Error> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.create_dir(parent)?;
        }
        let mode = if self.server_user.is_some() { 0o755 } else { 0o700 };
        match fs::DirBuilder::new().mode(mode).create(dir) {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)).or_else(already_removed),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
        .map_err(Error::io("create", dir))
    }

    /// An empty directory for the server's user alone.
    pub(super) fn create_private_dir(&self, dir: &Path) -> Result<(), Error> {
        fs::DirBuilder::new().mode(0o700).create(dir).map_err(Error::io("create", dir))?;
        self.give_to_server(dir)
    }

    /// Whether it is ours, or the server's.
    pub(super) fn is_of_us(&self, found: &fs::Metadata) -> bool {
        found.uid() == self.me || Some(found.uid()) == self.server_user.map(|(uid, _)| uid)
    }

    pub(super) fn give_to_server(&self, dir: &Path) -> Result<(), Error> {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", dir))?;
        let Some((uid, gid)) = self.server_user else {
            return Ok(());
        };
        lchown(dir, Some(uid), Some(gid)).map_err(Error::io("change the owner of", dir))
    }

    pub(super) fn open_lock(&self, lock: Lock) -> Result<File, Error> {
        let path = self.path.join(lock.file_name());
        open_private(&path, false).map_err(Error::io("open", path))
    }

    /// A handle with the lock, or `None` if another process has it. Does not wait.
    pub(super) fn try_lock(&self, lock: Lock) -> Result<Option<File>, Error> {
        let file = self.open_lock(lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(Error::io("lock", self.path.join(lock.file_name()))(e)),
        }
    }

    pub(super) fn lock(&self, lock: Lock) -> Result<File, Error> {
        let file = self.open_lock(lock)?;
        file.lock().map_err(Error::io("lock", self.path.join(lock.file_name())))?;
        Ok(file)
    }

    /// Whether a process holds `lock`. Does not disturb a process that only tries to take it.
    pub(super) fn is_held(&self, lock: Lock) -> bool {
        self.open_lock(lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// One user's share of the directory, which exists as long as the share is held.
    pub(super) fn join(&self) -> Result<File, Error> {
        loop {
            self.create_dir(&self.path)?;
            let path = self.path.join(Lock::Users.file_name());
            let users = match open_private(&path, false) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(Error::io("open", &path))?,
            };
            users.lock_shared().map_err(Error::io("lock", &path))?;
            // The last user may have removed the directory while we waited.
            let (Ok(held), Ok(there)) = (users.metadata(), fs::metadata(&path)) else {
                continue;
            };
            if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
                return Ok(users);
            }
        }
    }

    pub(super) fn open_log(&self) -> Result<File, Error> {
        open_private(&self.log(), true).map_err(Error::io("open", self.log()))
    }

    /// A directory for the socket that only the server's user (and root) can enter.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, Error> {
        let dir = self.path.join("socket");
        // libpq and the server split socket directories at commas, and URLs are UTF-8.
        let plain = dir.to_str().is_some_and(|s| !s.contains([',', '"']) && s.len() + 19 <= LONGEST_SOCKET_PATH);
        let dir = if plain { dir } else { self.short_socket_dir() };
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", dir)(e));
            }
            _ => {}
        }
        // In /tmp another user could have made it before.
        let found = fs::symlink_metadata(&dir).map_err(Error::io("look at", &dir))?;
        if !found.is_dir() || !self.is_of_us(&found) || found.mode() & 0o077 != 0 {
            return Err(Error::UnsafeSocketDir(dir));
        }
        self.give_to_server(&dir)?;
        Ok(dir)
    }

    pub(super) fn short_socket_dir(&self) -> PathBuf {
        let digest = Sha256::digest(self.path.as_os_str().as_encoded_bytes());
        let hash = digest[..8].iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let usable =
            |dir: &PathBuf| dir.is_absolute() && dir.is_dir() && self.can_reach(dir) && dir.as_os_str().len() < 50;
        runtime.filter(usable).unwrap_or_else(|| "/tmp".into()).join(format!("coderdb-{}-{hash}", self.me))
    }

    /// A program of the server: as its user, with nothing of our environment that PostgreSQL listens to.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        clean_environment(&mut command).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.server_user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Without the variables that would change what a server or a client does.
pub(super) fn clean_environment(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command
}

/// Opened for its owner alone, whatever the umask.
fn open_private(path: &Path, append: bool) -> io::Result<File> {
    let file = OpenOptions::new().create(true).write(!append).append(append).read(true).mode(0o600).open(path)?;
    if file.metadata()?.mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

pub(super) fn already_removed(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Follows the links in the part of `path` that exists.
fn resolve_links(path: &Path) -> PathBuf {
    for part in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(part), path.strip_prefix(part)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_path_buf()
}

fn my_uid() -> u32 {
    if let Ok(this_process) = fs::metadata("/proc/self") {
        return this_process.uid();
    }
    let id = Command::new("id").arg("-u").output();
    let uid = id.ok().and_then(|o| String::from_utf8_lossy(&o.stdout).trim().parse().ok());
    uid.unwrap_or(u32::MAX)
}

fn server_user() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|wanted| {
        let mut fields =
            passwd.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(wanted))?;
        Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

pub(super) struct UserDirs {
    pub(super) data: PathBuf,
    pub(super) cache: PathBuf,
}

/// `coderdb` directories by the platform's convention, XDG variables honoured.
pub(super) fn user_dirs() -> Result<UserDirs, Error> {
    let strategy = etcetera::choose_base_strategy().map_err(Error::NoHome)?;
    Ok(UserDirs { data: strategy.data_dir().join("coderdb"), cache: strategy.cache_dir().join("coderdb") })
}
