//! A server with durable commits under `target/`, and the databases that `coderdb demo --scale` makes on it. They are
//! kept between runs, and made anew when a migration or the demo changes.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write as _,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use coderdb::{
    demo::{self, Regime, Scale},
    migrate,
    postgres::{self, Settings},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions},
};
use serde_json::{Value, json};

/// The last version that is no index of this project: the plain schema.
const PLAIN: u32 = 7;

/// What makes the numbers comparable between runs. `jit` is as the server has it.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=2GB",
    "maintenance_work_mem=256MB",
    "max_wal_size=16GB",
    "checkpoint_timeout=1h",
    "max_connections=200",
    "timezone=UTC",
];

/// Which schema a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// All migrations.
    Whole,
    /// None of the indexes of this project.
    Plain,
}

/// A statement for pgbench, whose parameters have names: `p1` for the first.
pub struct Statement {
    sql: String,
    values: Vec<(String, String)>,
}

/// How fast pgbench was.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Of the statement, on average, its commit included.
    pub milliseconds: f64,
    /// Of all clients, connecting not included.
    pub per_second: f64,
}

/// The server runs below a shell that stops it when this process is gone, however it goes.
const KEEPER: &str = r#"
"$@" </dev/null >"$0" 2>&1 & pid=$!
read -r _
kill -s INT $pid 2>/dev/null
wait $pid
"#;

/// A server of this process.
pub struct Server {
    keeper: Child,
    /// Removed when this is dropped.
    socket: tempfile::TempDir,
    programs: PathBuf,
    log: PathBuf,
    pub version: String,
}

impl Server {
    /// Starts it with these settings, beside the common ones.
    pub async fn start(settings: &[&str]) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-server");
        // The library's private server makes the directory and finds the programs; its settings are not those of a
        // server that is measured.
        let private = Settings::persistent(place).supervisor(env!("CARGO_BIN_EXE_coderdb"));
        let server = postgres::Server::open(&private, |notice| eprintln!("{notice}")).expect("a server");
        let psql = server.psql_command("postgres").expect("client programs");
        let programs = Path::new(psql.get_program()).parent().expect("its directory").to_path_buf();
        let (directory, version) = (server.data_dir().to_path_buf(), server.version().to_owned());
        drop(server);
        postgres::stop(&private, true).expect("its end");

        let (data, log) = (directory.join("data"), directory.join("bench.log"));
        let owner = fs::metadata(&data).expect("the data");
        // A path that is short enough for a socket.
        let socket = tempfile::tempdir().expect("a directory");
        chown(socket.path(), Some(owner.uid()), Some(owner.gid())).expect("its owner");
        fs::write(&log, "").expect("the log");
        chown(&log, Some(owner.uid()), Some(owner.gid())).expect("its owner");
        let mut keeper = Command::new("sh");
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            keeper.uid(owner.uid()).gid(owner.gid());
        }
        keeper.current_dir("/").env("LC_ALL", "C").args(["-c", KEEPER]).arg(&log).arg(programs.join("postgres"));
        keeper.arg("-D").arg(&data).arg("-k").arg(socket.path());
        for setting in SETTINGS.iter().chain(settings) {
            keeper.args(["-c", setting]);
        }
        let keeper = keeper.stdin(Stdio::piped()).spawn().expect("a shell");
        let mut this = Self { keeper, socket, programs, log, version };
        let began = Instant::now();
        while PgConnection::connect_with(&this.options("postgres")).await.is_err() {
            let ended =
                this.keeper.try_wait().expect("its state").is_some() || began.elapsed() > Duration::from_mins(2);
            assert!(!ended, "no server:\n{}", fs::read_to_string(&this.log).unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        this
    }

    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::from_str("postgres://postgres@localhost")
            .expect("a URL")
            .socket(self.socket.path())
            .port(5432)
            .database(database)
    }

    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.options(database)).await.expect("a connection")
    }

    /// So many clients of pgbench, and calls of each; the statement is prepared, and comes after others that are not timed.
    pub fn pgbench(&self, database: &str, before: &str, statement: &Statement, clients: usize, calls: usize) -> Pace {
        let script = self.socket.path().join("script.sql");
        fs::write(&script, format!("{before}\n{};\n", statement.sql)).expect("the script");
        let mut command = Command::new(self.programs.join("pgbench"));
        command.args([
            "-n",
            "-r",
            "-M",
            "prepared",
            "-j",
            "2",
            "-c",
            &clients.to_string(),
            "-t",
            &calls.to_string(),
            "-f",
        ]);
        command.arg(script);
        for (number, value) in &statement.values {
            command.args(["-D", &format!("p{number}={value}")]);
        }
        command.arg("-h").arg(self.socket.path()).args(["-p", "5432", "-U", "postgres", database]);
        let output = command.output().expect("pgbench");
        let text = String::from_utf8_lossy(&output.stdout);
        let pace = || {
            let (tps, statements) = text.split_once("tps = ")?.1.split_once("statement latencies")?;
            let milliseconds = statements.trim_end().lines().last()?.split_whitespace().next()?.parse().ok()?;
            Some(Pace { milliseconds, per_second: tps.split(' ').next()?.parse().ok()? })
        };
        pace().filter(|_| output.status.success()).unwrap_or_else(|| panic!("{output:?}"))
    }

    /// The statement that a call sends: the server says what it ran.
    pub async fn statement(&self, conn: &mut PgConnection, call: impl AsyncFnOnce(&mut PgConnection)) -> Statement {
        let before = fs::metadata(&self.log).map_or(0, |log| log.len());
        run(conn, "SET log_statement = 'all'; SET log_parameter_max_length = -1").await;
        call(conn).await;
        run(conn, "RESET log_statement").await;
        let log = fs::read(&self.log).expect("the log");
        let log = String::from_utf8_lossy(&log[usize::try_from(before).expect("it fits")..]).into_owned();
        let (_, said) = log.split_once(" execute ").expect("the call sends a prepared statement");
        let (sql, rest) = said.split_once("DETAIL:").expect("it has parameters");
        let (_, sql) = sql.split_once(": ").expect("the statement has a name");
        // The entry of the parameters begins with the time.
        let mut sql = sql.rsplit_once('\n').map_or(sql, |(sql, _)| sql).to_owned();
        let parameters = rest.lines().next().unwrap_or_default();
        let mut values = Vec::new();
        let pairs: Vec<_> = parameters.split('$').skip(1).filter_map(|pair| pair.split_once(" = ")).collect();
        // From the last on, so that $1 is not found in $10.
        for (number, value) in pairs.into_iter().rev() {
            let value = value.trim_end_matches(", ");
            match value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) {
                Some(value) => {
                    sql = sql.replace(&format!("${number}"), &format!(":p{number}"));
                    values.push((number.to_owned(), value.replace("''", "'")));
                }
                None => sql = sql.replace(&format!("${number}"), value),
            }
        }
        Statement { sql, values }
    }

    /// The demo at this scale with this schema: its database, which nobody may change.
    pub async fn database(&self, schema: Schema, scale: Scale) -> String {
        let mut conn = self.connect("postgres").await;
        let regime = match scale.regime {
            Regime::Calm => "calm",
            Regime::Storm => "storm",
        };
        let schema_name = format!("{schema:?}").to_lowercase();
        let kind = format!("{schema_name}_{}_{regime}", scale.jobs);
        let name = format!("{kind}_{:016x}", fingerprint());
        let there = "SELECT datname FROM pg_database WHERE datname LIKE $1";
        let there: Vec<String> =
            sqlx::query_scalar(there).bind(format!("{kind}\\_%")).fetch_all(&mut conn).await.expect("the databases");
        if there.contains(&name) {
            return name;
        }
        for old in there {
            run(&mut conn, &format!("DROP DATABASE {old} WITH (FORCE)")).await;
        }
        let began = Instant::now();
        let part = format!("{kind}_part");
        if schema == Schema::Plain {
            let whole = Box::pin(self.database(Schema::Whole, scale)).await;
            self.copy(&whole, &part).await;
            let mut conn = self.connect(&part).await;
            for index in indexes() {
                run(&mut conn, &format!("DROP INDEX {index}")).await;
            }
            conn.close().await.expect("a clean end");
        } else {
            run(&mut conn, &format!("CREATE DATABASE {part}")).await;
            let mut loading = self.connect(&part).await;
            migrate::up(&mut loading, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
            let options = demo::DemoOptions { scale: Some(scale), ..demo::DemoOptions::default() };
            let _ = demo::load(&mut loading, &options, |_| {}).await.expect("the demo");
            run(&mut loading, "VACUUM (ANALYZE)").await;
            loading.close().await.expect("a clean end");
        }
        // So that no half of one is ever taken for a whole.
        run(&mut conn, &format!("ALTER DATABASE {part} RENAME TO {name}")).await;
        run(&mut conn, "CHECKPOINT").await;
        eprintln!("{scale}, {schema_name} schema: made in {:.0} s", began.elapsed().as_secs_f64());
        name
    }

    /// A copy of a database, for writing.
    pub async fn copy(&self, of: &str, name: &str) -> String {
        let mut conn = self.connect("postgres").await;
        // A copy of the files; through the log it takes several times as long.
        let strategy = if self.version.starts_with("14") { "" } else { "STRATEGY FILE_COPY" };
        run(&mut conn, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        run(&mut conn, &format!("CREATE DATABASE {name} TEMPLATE {of} {strategy}")).await;
        run(&mut conn, "CHECKPOINT").await;
        name.to_owned()
    }

    pub async fn drop(&self, name: &str) {
        run(&mut self.connect("postgres").await, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }

    /// The machine, the server and its settings, as far as they matter for a time.
    pub async fn description(&self) -> Value {
        let mut conn = self.connect("postgres").await;
        let changed = "SELECT name || ' = ' || current_setting(name) FROM pg_settings
                       WHERE source IN ('command line', 'configuration file') AND category !~ 'Locale|Reporting|Connections'
                           OR name = 'jit'
                       ORDER BY name";
        let changed: Vec<String> = sqlx::query_scalar(changed).fetch_all(&mut conn).await.expect("the settings");
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        json!({
            "postgresql": self.version,
            "settings": changed,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "processor": processor.map_or("unknown", |(_, name)| name),
            "memory_gb": memory.map(|kb| kb / 1_000_000),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.keeper.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.keeper.wait();
    }
}

/// The names of this project's indexes. Later versions than [`PLAIN`] have nothing else.
pub fn indexes() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> =
        fs::read_dir(directory).expect("the migrations").map(|it| it.expect("a file").path()).collect();
    files.sort();
    let mut names = Vec::new();
    for file in files {
        let version =
            file.file_name().and_then(|name| name.to_str()?.strip_prefix('V')?.split_once("__")?.0.parse().ok());
        if version.is_none_or(|version: u32| version <= PLAIN) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a migration");
        let sql: Vec<_> = text.lines().filter(|line| !line.starts_with("--")).collect();
        for statement in sql.join("\n").split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            let index =
                statement.strip_prefix("CREATE INDEX CONCURRENTLY ").and_then(|index| index.split_whitespace().next());
            names.push(
                index
                    .unwrap_or_else(|| panic!("no index, which the plain schema cannot do without: {statement}"))
                    .to_owned(),
            );
        }
    }
    names
}

/// What the databases are made of.
fn fingerprint() -> u64 {
    fn hash(path: &Path, hasher: &mut DefaultHasher) {
        let entries = fs::read_dir(path).expect("a directory");
        let mut entries: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() { hash(&path, hasher) } else { fs::read(&path).expect("a file").hash(hasher) }
        }
    }
    let mut hasher = DefaultHasher::new();
    for directory in ["migrations", "src/demo"] {
        hash(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut hasher);
    }
    hasher.finish()
}

pub async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

/// The load average of the last minute.
pub fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .map_or_else(|_| "unknown".into(), |text| text.split(' ').next().unwrap_or_default().to_owned())
}

/// The value with so many thousandths of the others below it.
pub fn quantile(values: &[f64], thousandths: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get((values.len().saturating_sub(1)) * thousandths / 1_000).copied().unwrap_or(f64::NAN)
}

/// Where results go.
pub fn results(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name)
}
