//! The server that runs in a directory, or ran there: finding, asking and ending it.
use std::{
    fs,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{
    Error,
    connection::Connection,
    data_directory::{DataDirectory, Lock},
};

/// What `postmaster.pid` says of a server that lives.
pub(super) struct Postmaster {
    pub(super) pid: u32,
    socket_dir: PathBuf,
    /// Asking a server that is not would fill its log.
    says_ready: bool,
}

impl DataDirectory {
    /// The running server's first process, by its own account; a leftover file does not count.
    pub(super) fn postmaster(&self) -> Option<Postmaster> {
        let text = fs::read(self.data().join("postmaster.pid")).ok()?;
        // It names the data directory, which need not be UTF-8.
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let socket_dir = PathBuf::from(lines.nth(3).unwrap_or_default());
        let says_ready = lines.nth(2).is_some_and(|status| status.trim() == "ready");
        is_postgres(pid).then_some(Postmaster { pid, socket_dir, says_ready })
    }

    /// A session with the running server. The environment may give us another socket directory than it has.
    pub(super) fn connect(&self) -> Option<(Connection, PathBuf)> {
        let socket_dir = self.postmaster().filter(|server| server.says_ready)?.socket_dir;
        Some((Connection::open(&socket_dir).ok()?, socket_dir))
    }

    /// Removes what a killed server left, which would keep a new one from starting where its pid is in use again.
    /// The caller holds the server's lock, so no process of that server is left.
    pub(super) fn forget_killed_server(&self, socket_dir: &Path) {
        if self.postmaster().is_none() {
            let _ = fs::remove_file(self.data().join("postmaster.pid"));
            let _ = fs::remove_file(socket_dir.join(".s.PGSQL.5432"));
            let _ = fs::remove_file(socket_dir.join(".s.PGSQL.5432.lock"));
        }
    }

    /// Ends whatever server runs here. The caller sees to it that none is started meanwhile.
    pub(super) fn stop_server(&self) -> Result<(), Error> {
        self.stop_server_within(0..90)
    }

    /// The same, losing what was not written yet.
    pub(super) fn stop_server_at_once(&self) -> Result<(), Error> {
        self.stop_server_within(60..90)
    }

    fn stop_server_within(&self, seconds: Range<u32>) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel();
        let directory = self.clone();
        thread::spawn(move || sender.send(directory.lock(Lock::Server).is_ok()));
        for second in seconds {
            // Fast, so that nothing is lost; at once, for what takes a minute; then by force.
            let signal = match second {
                0..60 => "INT",
                60..80 => "QUIT",
                _ => "KILL",
            };
            // Each second anew: a server that is just starting may not have told its pid before.
            if let Some(Postmaster { pid, .. }) = self.postmaster() {
                // There is no kill in std, and no program of that name everywhere; every shell has it built in.
                let _ = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()]).status();
            }
            if receiver.recv_timeout(Duration::from_secs(1)).is_ok() {
                // The server has emptied it, if it was used.
                let _ = fs::remove_dir(self.short_socket_dir());
                return Ok(());
            }
        }
        Err(Error::Stuck { dir: self.path.clone(), problem: "does not end" })
    }

    /// Who uses the server, as far as the system tells.
    pub(super) fn users(&self) -> Vec<String> {
        let inode = fs::metadata(self.path.join(Lock::Users.file_name())).map(|m| m.ino()).unwrap_or_default();
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let mut users = Vec::new();
        for fields in locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            let holds = fields.contains(&"READ")
                && !fields.contains(&"->")
                && fields.iter().any(|f| f.rsplit(':').next() == Some(&inode.to_string()) && f.contains(':'));
            let pid = fields.get(4).filter(|pid| holds && **pid != std::process::id().to_string());
            if let Some(pid) = pid {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                users.push(format!(
                    "pid {pid} ({})",
                    String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ")
                ));
            }
        }
        if users.is_empty() {
            users.push("other coderdb processes".into());
        }
        users
    }
}

/// A pid in a leftover file may belong to anything by now, or to a zombie where no init reaps them, as in containers.
fn is_postgres(pid: u32) -> bool {
    let (name, state) = if Path::new("/proc/self").exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
        (name.to_owned(), rest.trim_start().to_owned())
    } else {
        let ps = Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
        let line = ps.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
        let (state, name) = line.split_once(' ').unwrap_or_default();
        (name.to_owned(), state.to_owned())
    };
    name.ends_with("postgres") && !state.starts_with(['Z', 'X'])
}
