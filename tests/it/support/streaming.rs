//! A primary and its streaming standbys: servers of a test's own, which end with it however it ends.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt, PermissionsExt as _},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use coderdb::{
    migrate,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions},
};
/// A server runs below a shell that reads what to do at its end: a signal, and whether the data is needed again. A test
/// that is gone says nothing.
const KEEPER: &str = r#"
"$0" -D "$1" -k "$1" </dev/null >"$1.log" 2>&1 & pid=$!
read -r signal
kill -s "${signal:-QUIT}" $pid 2>/dev/null
wait $pid
[ -n "$signal" ] || { rm -rf "$1" "$1.log"; rmdir "$(dirname "$1")" 2>/dev/null; }
"#;

const SETTINGS: &str = "
autovacuum = off
dynamic_shared_memory_type = mmap
fsync = off
full_page_writes = off
listen_addresses = ''
max_prepared_transactions = 5
max_wal_senders = 5
shared_buffers = 32MB
wal_keep_size = 1GB
wal_level = replica
wal_retrieve_retry_interval = 50ms
";

/// A server.
pub struct Node {
    data: PathBuf,
    keeper: Option<Child>,
}

impl Node {
    /// Starts it, and waits until it takes connections.
    async fn start(data: PathBuf) -> Self {
        let mut node = Self { data, keeper: None };
        node.restart().await;
        node
    }

    pub async fn restart(&mut self) {
        self.keeper = Some(self.spawn());
        while PgConnection::connect_with(&self.options()).await.is_err() {
            // What is left of one that was killed may keep it from starting.
            if fs::read_to_string(self.data.with_extension("log")).is_ok_and(|log| log.contains("still in use")) {
                self.end("QUIT");
                self.keeper = Some(self.spawn());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn spawn(&self) -> Child {
        let mut keeper = as_server("sh");
        keeper.args(["-c", KEEPER]).arg(programs().join("postgres")).arg(&self.data);
        keeper.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell")
    }

    /// Ends it with this signal; it can be started again.
    pub fn end(&mut self, signal: &str) -> Option<()> {
        let mut keeper = self.keeper.take()?;
        writeln!(keeper.stdin.take()?, "{signal}").expect("the shell listens");
        keeper.wait().expect("its end");
        Some(())
    }

    /// Lets it take encrypted connections, and no others, at these addresses of this machine from its next start on.
    pub fn serve_tls(&self, addresses: &[&str], certificate: &str, key: &str) {
        self.place("server.crt", certificate);
        self.place("server.key", key);
        self.prepend("postgresql.auto.conf", &format!("listen_addresses = '{}'\nssl = on\n", addresses.join(",")));
        self.prepend("pg_hba.conf", "hostnossl all all all reject\nhostssl all all all trust\n");
    }

    /// A file of its own.
    pub fn place(&self, name: &str, text: &str) {
        let (path, (uid, gid)) = (self.data.join(name), server_user());
        fs::write(&path, text).expect("the file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("its owner");
    }

    /// Puts this in front of what stands in the file: of the rules of `pg_hba.conf`, the first one that fits counts.
    pub fn prepend(&self, file: &str, text: &str) {
        let path = self.data.join(file);
        let before = fs::read_to_string(&path).expect("the settings");
        fs::write(&path, text.to_owned() + &before).expect("the settings");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).expect("a log")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join(".s.PGSQL.5432")
    }

    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new().socket(&self.data).port(5432).username("postgres").database("postgres")
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options()).await.expect("the server takes connections")
    }

    /// Runs each statement by itself.
    pub async fn run(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for sql in statements {
            sqlx::raw_sql(AssertSqlSafe(*sql)).execute(&mut conn).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        }
    }

    /// Sets and reloads.
    pub async fn set(&self, setting: &str) {
        self.run(&[&format!("ALTER SYSTEM SET {setting}"), "SELECT pg_reload_conf()"]).await;
    }

    /// Waits until the statement gives true.
    pub async fn until(&self, sql: &str) {
        let mut conn = self.connect().await;
        while !sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql)).fetch_one(&mut conn).await.expect("an answer") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes it a standby of that one from its next start on.
    pub fn follow(&self, primary: &Self) {
        let conninfo = format!("primary_conninfo = 'host={} user=postgres'\n", primary.data.display());
        let path = self.data.join("postgresql.auto.conf");
        let before = fs::read_to_string(&path).expect("the settings");
        fs::write(path, before + &conninfo).expect("the settings");
        fs::write(self.data.join("standby.signal"), "").expect("the signal");
    }

    /// Stops all its processes where they are, or lets them go on: `STOP` or `CONT`.
    pub fn all_processes(&self, signal: &str) {
        let pid = fs::read_to_string(self.data.join("postmaster.pid")).expect("it runs");
        let pid = pid.lines().next().expect("a pid");
        let kill = "kill -s $1 $2 $(ps -A -o pid= -o ppid= | awk -v parent=$2 '$2 == parent { print $1 }')";
        assert!(Command::new("sh").args(["-c", kill, "", signal, pid]).status().expect("a shell").success());
    }
}

/// Servers from one set of data, made once per test run.
pub struct Streaming {
    pub primary: Node,
    pub standbys: Vec<Node>,
}

impl Streaming {
    /// A primary with a migrated database and what this makes in it, and so many standbys.
    pub async fn start(standbys: usize, sql: &str) -> Self {
        let directory = directory();
        let place = |name: &str| directory.join(name);
        copy(&template().await, &place("primary"));
        let primary = Node::start(place("primary")).await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut primary.connect().await).await.expect("what is in it");
        let mut this = Self { primary, standbys: Vec::new() };
        for n in 0..standbys {
            let data = this.primary.data.with_file_name(format!("standby{n}"));
            // From the copy that the primary came from, too: its log holds everything since.
            copy(&template().await, &data);
            let mut standby = Node { data, keeper: None };
            standby.follow(&this.primary);
            standby.restart().await;
            // A commit behind it takes it there.
            let all = "SELECT pg_current_wal_insert_lsn()::text";
            let mut conn = this.primary.connect().await;
            let all: String = sqlx::query_scalar(all).fetch_one(&mut conn).await.expect("its position");
            this.primary.run(&["SELECT pg_current_xact_id()"]).await;
            standby.until(&format!("SELECT pg_last_wal_replay_lsn() >= '{all}'")).await;
            this.standbys.push(standby);
        }
        this
    }

    pub fn standby(&mut self) -> &mut Node {
        &mut self.standbys[0]
    }
}

/// The data of a server that was stopped: an empty migrated database.
async fn template() -> PathBuf {
    static TEMPLATE: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    static OF_TEMPLATE: OnceLock<Child> = OnceLock::new();
    let make = async || {
        // Removed by a keeper, because statics are not dropped.
        let directory = directory();
        let keeper = ["-c", "read -r _; rm -rf \"$0\""];
        let keeper = as_server("sh").args(keeper).arg(&directory).stdin(Stdio::piped()).spawn().expect("a shell");
        let _ = OF_TEMPLATE.set(keeper);
        let data = directory.join("data");
        let mut initdb = as_server(programs().join("initdb"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = initdb.args(["--wal-segsize=4", "-D"]).arg(&data).stdout(Stdio::null()).status();
        assert!(made.expect("initdb").success());
        let file = data.join("postgresql.conf");
        fs::write(&file, fs::read_to_string(&file).expect("the settings") + SETTINGS).expect("the settings");
        let mut node = Node::start(data.clone()).await;
        let mut conn = node.connect().await;
        migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
        conn.close().await.expect("a clean end");
        node.end("INT");
        // Its data stays.
        std::mem::forget(node);
        data
    };
    TEMPLATE.get_or_init(make).await.clone()
}

/// One that the server's user can enter.
fn directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.expect("a directory").keep();
    let (uid, gid) = server_user();
    std::os::unix::fs::chown(&directory, Some(uid), Some(gid)).expect("its owner");
    directory
}

fn copy(from: &Path, to: &Path) {
    assert!(as_server("cp").arg("-Rp").args([from, to]).status().expect("cp").success());
}

/// The programs that the shared server of the tests runs with.
fn programs() -> PathBuf {
    let options = fs::read_to_string(super::server().data_dir().join("data/postmaster.opts")).expect("its options");
    let postgres = options.split(" \"").next().expect("the program");
    Path::new(postgres).parent().expect("its directory").to_path_buf()
}

/// Root may not run a server.
fn server_user() -> (u32, u32) {
    let data = fs::metadata(super::server().data_dir().join("data")).expect("the data");
    (data.uid(), data.gid())
}

fn as_server(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let (uid, gid) = server_user();
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// The keeper of each server does the rest.
impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            let _ = fs::remove_dir_all(&self.data).and_then(|()| fs::remove_file(self.data.with_extension("log")));
            return;
        };
        drop(keeper.stdin.take());
        // A thread that waits is in nobody's way.
        thread::spawn(move || keeper.wait());
    }
}
