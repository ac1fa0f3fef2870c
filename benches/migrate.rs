//! What migrating costs, as whole processes, beside the two usual runners: sqlx-cli and refinery's.
//!
//!     cargo bench --bench migrate
//!     CODERDB_BINARY=$(scripts/release) cargo bench --bench migrate     # the static release instead
//!
//! Installs both into `target/bench-tools` first. One private server with durable commits; each round runs every program
//! in turn, and begins with another one: 10 installations of each, and 100 times what finds nothing to do; none dropped.
//! Prints the medians in milliseconds and the ratio to `coderdb` in the same turn: its median, least and greatest;
//! `target/bench-tools/migrate.json` has every time.
//!
//! All run the files of `migrations/`. Files 1 to 8 are the same for all, word by word. The others build indexes
//! concurrently: sqlx-cli does that too, with its own mark on the first line; refinery cannot, and builds them plainly.
//! Neither has a command that says by its exit code whether anything is pending. Nearest to a gate are `sqlx migrate
//! info`, and refinery's `migrate`, which finds nothing to do.

use std::{
    env, fs, iter,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use coderdb::{
    migrate,
    postgres::{self, Server, Settings},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
};
use comfy_table::{Table, presets};
use serde_json::json;

const ROUNDS: usize = 10;
/// Of what takes little, in each round.
const REPEATS: usize = 10;
/// The last file before the concurrent indexes.
const SAME: i64 = 8;
/// What a deploy asks before it starts the new version.
const GATE: [&str; 2] = ["migrate", "check"];

/// A program, and how it is asked for each of [`WHAT`].
struct Runner {
    name: &'static str,
    program: PathBuf,
    history: &'static str,
    arguments: [Vec<String>; 4],
}

const WHAT: [&str; 4] = ["install, files 1 to 8", "install, all files", "nothing to do", "gate"];

impl Runner {
    /// Milliseconds from its start to its end.
    fn time(&self, what: usize, url: &str) -> f64 {
        let mut command = Command::new(&self.program);
        // Not in the root of this project: sqlx-cli would read its sqlx.toml.
        command.args(&self.arguments[what]).env_clear().env("DATABASE_URL", url).current_dir(target());
        command.stdin(Stdio::null());
        let began = Instant::now();
        let output = command.output().expect("the program starts");
        let time = began.elapsed().as_secs_f64() * 1000.0;
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        time
    }
}

/// An installed program of a package.
fn install(package: &str, version: &str, features: &str, program: &str) -> PathBuf {
    let root = target().join(format!("{package}-{version}"));
    let path = root.join("bin").join(program);
    if !path.exists() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["install", "--quiet", "--no-default-features", "--features", features, "--version"]);
        cargo.arg(format!("={version}")).arg("--root").arg(&root).arg(package);
        assert!(cargo.status().expect("cargo").success(), "{package} is not to be had");
    }
    path
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-tools")
}

/// The files of `migrations/` as another program reads them.
fn migrations(directory: &str, rewrite: impl Fn(&str, String) -> (String, String)) -> String {
    let directory = target().join(directory);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).expect("the migrations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            let (name, sql) = rewrite(name, fs::read_to_string(&path).expect("a migration"));
            fs::write(directory.join(name), sql).expect("the file");
        }
    }
    directory.to_str().expect("UTF-8").to_owned()
}

fn runners() -> [Runner; 3] {
    let sqlx_files = migrations("sqlx", |name, sql| {
        // V0001__base.sql is 0001_base.sql there.
        let name = name.trim_start_matches('V').replacen("__", "_", 1);
        (name, sql.replace("-- coderdb: no-transaction", "-- no-transaction"))
    });
    let refinery_files =
        migrations("refinery", |name, sql| (name.to_owned(), sql.replace("INDEX CONCURRENTLY", "INDEX")));
    let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (sqlx, refinery) = (
        |verb: &str| words(&format!("migrate {verb} --source {sqlx_files}")),
        |target: &str| words(&format!("migrate -e DATABASE_URL -p {refinery_files}{target}")),
    );
    [
        Runner {
            name: "coderdb",
            program: env::var_os("CODERDB_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_coderdb").into()).into(),
            history: "coderdb.refinery_schema_history",
            arguments: [
                words(&format!("migrate up --target {SAME}")),
                words("migrate up"),
                words("migrate up"),
                GATE.map(str::to_owned).to_vec(),
            ],
        },
        Runner {
            name: "sqlx-cli 0.9.0",
            program: install("sqlx-cli", "0.9.0", "postgres,rustls,sqlx-toml", "sqlx"),
            history: "_sqlx_migrations",
            arguments: [sqlx(&format!("run --target-version {SAME}")), sqlx("run"), sqlx("run"), sqlx("info")],
        },
        Runner {
            name: "refinery_cli 0.10.0",
            program: install("refinery_cli", "0.10.0", "postgresql", "refinery"),
            history: "refinery_schema_history",
            arguments: [refinery(&format!(" -t {SAME}")), refinery(""), refinery(""), refinery("")],
        },
    ]
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.expect("the statement");
}

/// What has been made, but for the history.
async fn made(url: &str, runner: &Runner, rows: i64) -> Vec<String> {
    let mut conn = PgConnection::connect(url).await.expect("a connection");
    let history = format!("SELECT count(*) FROM {}", runner.history);
    let applied: i64 = sqlx::query_scalar(AssertSqlSafe(history)).fetch_one(&mut conn).await.expect("the history");
    assert_eq!(applied, rows, "{}", runner.name);
    let names = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 't'
                 AND relname !~ '^(refinery|_sqlx)' ORDER BY relname";
    sqlx::query_scalar(names).fetch_all(&mut conn).await.expect("the names")
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .map_or_else(|_| "unknown".into(), |text| text.split(' ').next().unwrap_or_default().to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let runners = runners();
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    // As root, the server runs as somebody else.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let settings = Settings::persistent(place.path().join("server")).supervisor(env!("CARGO_BIN_EXE_coderdb"));
    let server = Server::open(&settings, |notice| eprintln!("{notice}")).expect("a server");
    let mut conn = PgConnection::connect(&server.url("postgres")).await.expect("a connection");
    // The private server need not keep its last commits; that of a deploy must.
    run(&mut conn, "ALTER ROLE postgres SET synchronous_commit = on").await;
    let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut conn).await.expect("the setting");
    assert_eq!(fsync, "on");
    // refinery's parser takes no parameters, so the socket is the host, for all.
    let url = server.url("postgres");
    let (_, socket) = url.split_once("?host=").expect("a private server has a socket");
    let socket = socket.replace('/', "%2F");
    let url = format!("postgres://postgres@{socket}:5432/bench");

    let before = load();
    let mut times = WHAT.map(|_| [const { Vec::new() }; 3]);
    for round in 0..ROUNDS {
        let in_turn = (0..runners.len()).map(|place| (round + place) % runners.len());
        let mut same = Vec::new();
        for n in in_turn.clone() {
            let (runner, url) = (&runners[n], format!("{url}_{n}"));
            for (install, rows) in [(0, SAME), (1, migrate::newest())] {
                run(&mut conn, &format!("DROP DATABASE IF EXISTS bench_{n}")).await;
                run(&mut conn, &format!("CREATE DATABASE bench_{n}")).await;
                run(&mut conn, "CHECKPOINT").await;
                times[install][n].push(runner.time(install, &url));
                same.push((rows, made(&url, runner, rows).await));
            }
        }
        for rows in [SAME, migrate::newest()] {
            let mut all = same.iter().filter(|(of, _)| *of == rows).map(|(_, made)| made);
            let first = all.next().expect("one");
            assert!(!first.is_empty() && all.all(|made| made == first), "they made different things");
        }
        for what in iter::repeat_n([2, 3], REPEATS).flatten() {
            for n in in_turn.clone() {
                times[what][n].push(runners[n].time(what, &format!("{url}_{n}")));
            }
        }
    }

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "program", "ms", "least", "greatest", "÷ coderdb", "least", "greatest"]);
    let least = |values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min);
    let greatest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let mut found = Vec::new();
    for (what, times) in WHAT.iter().zip(&times) {
        for (runner, of_runner) in runners.iter().zip(times) {
            let ratios: Vec<f64> = of_runner.iter().zip(&times[0]).map(|(theirs, ours)| theirs / ours).collect();
            let cells = [median(of_runner), least(of_runner), greatest(of_runner)].map(|ms| format!("{ms:.1}"));
            let shown = [median(&ratios), least(&ratios), greatest(&ratios)].map(|ratio| format!("{ratio:.2}"));
            let names = [(*what).to_owned(), runner.name.to_owned()];
            table.add_row(names.into_iter().chain(cells).chain(shown));
            found.push(json!({
                "what": what,
                "program": runner.name,
                "arguments": runner.arguments[WHAT.iter().position(|name| name == what).expect("one of them")],
                "milliseconds": of_runner,
                "ratio_to_coderdb": median(&ratios),
            }));
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let loads = [before, load()];
    let whole = json!({
        "server": server.version(), "rounds": ROUNDS, "cores": cores, "load_average": loads, "results": found,
    });
    fs::write(target().join("migrate.json"), format!("{whole:#}\n")).expect("the times");
    println!(
        "PostgreSQL {}, {ROUNDS} rounds, {cores} cores, load average {} before and {} after\n\n{table}",
        server.version(),
        loads[0],
        loads[1],
    );
    conn.close().await.expect("a clean end");
    let data = server.data_dir().to_owned();
    drop(server);
    postgres::stop(&settings, true).expect("its end");
    // Where the server's user could not enter, its data is elsewhere.
    iter::once(data).filter(|data| data.exists()).for_each(|data| drop(fs::remove_dir_all(data)));
}
