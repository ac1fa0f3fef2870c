//! A PgBouncer in front of the test server, with a configuration of its own; it ends with this process.

use std::{
    env,
    fmt::Write as _,
    fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use coderdb::{pooler::Pooler, sqlx::postgres::PgConnectOptions};

use super::server;

pub struct PgBouncer {
    directory: PathBuf,
    pub mode: Pooler,
    pool_size: usize,
    process: Child,
}

impl PgBouncer {
    /// One that opens so many sessions per database, and ignores no startup parameters.
    pub fn start(mode: Pooler, pool_size: usize) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("coderdb-pgbouncer-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::start_in(env::temp_dir().join(name), mode, pool_size, None)
    }

    /// One in transaction mode that takes encrypted connections at these addresses of this machine, and no others.
    pub fn start_with_tls(addresses: &str, certificate: &str, key: &str) -> Self {
        let directory = env::temp_dir().join(format!("coderdb-pgbouncer-{}-tls", std::process::id()));
        Self::start_in(directory, Pooler::Transaction, 2, Some([addresses, certificate, key]))
    }

    fn start_in(directory: PathBuf, mode: Pooler, pool_size: usize, tls: Option<[&str; 3]>) -> Self {
        fs::DirBuilder::new().mode(0o700).create(&directory).expect("a directory");
        let mode_name = match mode {
            Pooler::Session => "session",
            Pooler::Transaction => "transaction",
        };
        let options = PgConnectOptions::from_str(&server().url("postgres")).expect("a URL");
        let server_socket = options.get_socket().expect("a private server has a socket").display();
        let mut files = vec![("users", "\"postgres\" \"\"\n")];
        let mut configuration = format!(
            "[databases]\n* = host={server_socket} port=5432\n[pgbouncer]\nlisten_port = 5432\nunix_socket_dir = {dir}\n\
             auth_type = trust\nauth_file = {dir}/users\nlogfile = {dir}/log\npool_mode = {mode_name}\n\
             default_pool_size = {pool_size}\nmax_client_conn = 1000\nserver_idle_timeout = 1\n\
             log_connections = 0\nlog_disconnections = 0\n",
            dir = directory.display(),
        );
        if let Some([addresses, certificate, key]) = tls {
            files.extend([("certificate", certificate), ("key", key)]);
            let dir = directory.display();
            let _ = write!(
                configuration,
                "listen_addr = {addresses}\nclient_tls_sslmode = require\nclient_tls_cert_file = {dir}/certificate\n\
                 client_tls_key_file = {dir}/key\n"
            );
        }
        files.push(("ini", &configuration));
        for (name, text) in &files {
            fs::write(directory.join(name), text).expect("a file");
        }
        let mut command = Command::new("sh");
        // It ends when the pipe does, which is when this process does, however that ends.
        let script = "trap '' INT TERM HUP; pgbouncer -q \"$0/ini\" 2>/dev/null & cat; kill $!; wait; rm -rf \"$0\"";
        command.args(["-c", script]).arg(&directory).stdin(Stdio::piped()).stdout(Stdio::null());
        command.env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", env::var("PATH").unwrap_or_default()));
        // It refuses to be root, like the server, whose user it becomes.
        let data = fs::metadata(server().data_dir().join("data")).expect("the server's data");
        if fs::metadata(&directory).expect("the directory").uid() != data.uid() {
            for path in files.iter().map(|(name, _)| directory.join(name)).chain([directory.clone()]) {
                chown(path, Some(data.uid()), Some(data.gid())).expect("root may give it away");
            }
            command.uid(data.uid()).gid(data.gid());
        }
        let mut process = command.spawn().expect("a shell");
        while UnixStream::connect(directory.join(".s.PGSQL.5432")).is_err() {
            assert!(process.try_wait().expect("a child").is_none(), "no pgbouncer in the PATH, or it does not start");
            thread::sleep(Duration::from_millis(5));
        }
        Self { directory, mode, pool_size, process }
    }

    /// Ends it, and with it all connections, and starts it again.
    pub fn restart(mut self) -> Self {
        self.stop();
        Self::start_in(self.directory.clone(), self.mode, self.pool_size, None)
    }

    fn stop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("a child");
    }

    pub fn url(&self, database: &str) -> String {
        let directory = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@localhost/{database}?host={directory}")
    }

    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.url(database)).expect("a URL")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.stop();
    }
}
