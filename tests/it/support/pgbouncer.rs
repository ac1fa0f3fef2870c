//! A PgBouncer in front of the test server, with a configuration of its own; it ends with this process.

use std::{
    env, fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, chown},
        net::UnixStream,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use coderdb::{
    connect::Pooler,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions},
};

use super::server;

pub struct PgBouncer {
    directory: PathBuf,
    program: Program,
    pub mode: Pooler,
    settings: String,
    process: Child,
}

/// Which PgBouncer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Installed,
    /// One that keeps prepared statements, where the installed one is too old for that.
    KeepsStatements,
}

impl Program {
    pub fn path(self) -> &'static str {
        static KEEPS_STATEMENTS: OnceLock<String> = OnceLock::new();
        let find = || {
            let script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pgbouncer-next")).output();
            let output = script.expect("the script");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("a path").trim_end().to_owned()
        };
        match self {
            Self::Installed => "pgbouncer",
            Self::KeepsStatements => KEEPS_STATEMENTS.get_or_init(find),
        }
    }
}

impl PgBouncer {
    /// One that opens so many sessions per database, and ignores no startup parameters: the installed one in session mode,
    /// in transaction mode one that keeps prepared statements.
    pub fn start(mode: Pooler, pool_size: usize) -> Self {
        match mode {
            Pooler::Session => Self::start_as(Program::Installed, mode, pool_size, ""),
            Pooler::Transaction => {
                Self::start_as(Program::KeepsStatements, mode, pool_size, "max_prepared_statements = 200")
            }
        }
    }

    /// With these settings besides.
    pub fn start_as(program: Program, mode: Pooler, pool_size: usize, settings: &str) -> Self {
        let mode_name = match mode {
            Pooler::Session => "session",
            Pooler::Transaction => "transaction",
        };
        let settings = format!("pool_mode = {mode_name}\ndefault_pool_size = {pool_size}\n{settings}\n");
        Self::start_in(new_directory(), program, mode, settings, &[])
    }

    /// One in transaction mode that takes encrypted connections at these addresses of this machine, and no others.
    pub fn start_with_tls(addresses: &str, certificate: &str, key: &str) -> Self {
        let directory = new_directory();
        let dir = directory.display();
        let settings = format!(
            "pool_mode = transaction\ndefault_pool_size = 2\nmax_prepared_statements = 200\nlisten_addr = {addresses}\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {dir}/certificate\nclient_tls_key_file = {dir}/key\n"
        );
        let files = [("certificate", certificate), ("key", key)];
        Self::start_in(directory.clone(), Program::KeepsStatements, Pooler::Transaction, settings, &files)
    }

    fn start_in(
        directory: PathBuf,
        program: Program,
        mode: Pooler,
        settings: String,
        more_files: &[(&str, &str)],
    ) -> Self {
        fs::DirBuilder::new().mode(0o700).create(&directory).expect("a directory");
        let options = PgConnectOptions::from_str(&server().url("postgres")).expect("a URL");
        let server_socket = options.get_socket().expect("a private server has a socket").display();
        let configuration = format!(
            "[databases]\n* = host={server_socket} port=5432\n[pgbouncer]\nlisten_port = 5432\nunix_socket_dir = {dir}\n\
             auth_type = trust\nadmin_users = postgres\nauth_file = {dir}/users\nlogfile = {dir}/log\nmax_client_conn = 1000\n\
             server_idle_timeout = 1\nserver_login_retry = 1\nlog_connections = 0\nlog_disconnections = 0\n{settings}",
            dir = directory.display(),
        );
        let files = [&[("users", "\"postgres\" \"\"\n"), ("ini", &configuration)], more_files].concat();
        for (name, text) in &files {
            fs::write(directory.join(name), text).expect("a file");
        }
        let mut command = Command::new("sh");
        // It ends when the pipe does, which is when this process does, however that ends; other signals differ by version.
        let script =
            "trap '' INT TERM HUP; \"$1\" -q $2 \"$0/ini\" 2>/dev/null & cat; kill -KILL $!; wait; rm -rf \"$0\"";
        command.args(["-c", script]).arg(&directory).arg(program.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", env::var("PATH").unwrap_or_default()));
        // It refuses to be root, like the server, whose user it becomes.
        let data = fs::metadata(server().data_dir().join("data")).expect("the server's data");
        if fs::metadata(&directory).expect("the directory").uid() != data.uid() {
            for path in files.iter().map(|(name, _)| directory.join(name)).chain([directory.clone()]) {
                chown(path, Some(data.uid()), Some(data.gid())).expect("root may give it away");
            }
            let id = Command::new("id").args(["-nu", &data.uid().to_string()]).output().expect("a name");
            command.arg(format!("-u {}", String::from_utf8_lossy(&id.stdout).trim_end()));
        }
        let mut process = command.spawn().expect("a shell");
        while UnixStream::connect(directory.join(".s.PGSQL.5432")).is_err() {
            assert!(process.try_wait().expect("a child").is_none(), "no pgbouncer in the PATH, or it does not start");
            thread::sleep(Duration::from_millis(5));
        }
        Self { directory, program, mode, settings, process }
    }

    /// Ends it, and with it all connections, and starts it again.
    pub fn restart(mut self) -> Self {
        self.stop();
        Self::start_in(self.directory.clone(), self.program, self.mode, self.settings.clone(), &[])
    }

    /// Replaces the sessions in this database, as an operator would after its statements have changed.
    pub async fn reconnect(&self, database: &str) {
        // The console is no server: it takes nothing but its own commands.
        let options = self.options("pgbouncer").extra_float_digits(None);
        let mut admin = PgConnection::connect_with(&options).await.expect("the console");
        for command in ["RECONNECT", "WAIT_CLOSE"] {
            let command = AssertSqlSafe(format!("{command} {database}"));
            sqlx::raw_sql(command).execute(&mut admin).await.expect("an answer");
        }
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

fn new_directory() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("coderdb-pgbouncer-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    env::temp_dir().join(name)
}
