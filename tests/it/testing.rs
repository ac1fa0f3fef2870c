//! Databases for the tests of services, in processes that are really killed.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use coderdb::{
    postgres::Server,
    sqlx,
    testing::{self, Database},
};

/// Makes the test of this name, in another process, hold a database until the end of its input.
const HOLDS: &str = "CODERDB_TEST_HOLDS_A_DATABASE";

#[tokio::test]
async fn new_makes_databases_that_are_migrated_alone_and_dropped_with_their_value() {
    if env::var_os(HOLDS).is_some() {
        let _database = Database::new().await.unwrap();
        println!("\n{}", testing::server().unwrap().data_dir().display());
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let (one, other) = (Database::new().await.unwrap(), Database::new().await.unwrap());
    let mut conn = one.connect().await.unwrap();
    assert!(coderdb::migrate::status(&mut conn).await.unwrap().is_current());
    sqlx::query("CREATE TABLE of_one (id bigint)").execute(&mut conn).await.unwrap();
    let copy_fails = one.copy().await.unwrap_err().to_string();
    assert!(copy_fails.starts_with("cannot make a database for the test: "), "{copy_fails}");
    let mut conn = other.pool().get().await.unwrap();
    let there = "SELECT to_regclass('of_one')::text";
    assert_eq!(sqlx::query_scalar::<_, Option<String>>(there).fetch_one(&mut *conn).await.unwrap(), None);
    let name = one.name().to_owned();
    drop(one);
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    while sqlx::query_scalar::<_, bool>(exists).bind(&name).fetch_one(&mut *conn).await.unwrap() {}
}

#[tokio::test]
async fn copy_has_the_rows_of_its_original() {
    let original = Database::empty().await.unwrap();
    let mut conn = original.connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").execute(&mut conn).await.unwrap();
    sqlx::Connection::close(conn).await.unwrap();
    let copy = original.copy().await.unwrap();
    let mut conn = copy.connect().await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT n FROM t").fetch_one(&mut conn).await.unwrap(), 7);
}

/// Another process that holds a database.
fn holder() -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture"]);
    command.arg("testing::new_makes_databases_that_are_migrated_alone_and_dropped_with_their_value");
    command.env(HOLDS, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn directory_of(child: &mut Child) -> PathBuf {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.into_iter().find(|line| line.starts_with('/')).expect("a directory").into()
}

fn is_gone(what: &str, mut left: impl FnMut() -> Vec<PathBuf>) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !left().is_empty() {
        assert!(Instant::now() < deadline, "{what} leaves {:?}", left());
        thread::sleep(Duration::from_millis(10));
    }
}

fn processes_of(directory: &Path) -> Vec<PathBuf> {
    let names = |process: &PathBuf| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(directory.to_str().unwrap())
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).filter(names).collect()
}

#[test]
fn kill_of_a_process_leaves_no_server_and_no_directory() {
    let mut holders = [holder(), holder()];
    let directories = holders.each_mut().map(directory_of);
    assert_ne!(directories[0], directories[1], "one server per process");
    assert!(directories.iter().all(|directory| directory.join("data/postmaster.pid").exists()));
    holders[0].kill().unwrap();
    holders[0].wait().unwrap();
    let left = |directory: &PathBuf| {
        let there = directory.exists().then(|| directory.clone());
        processes_of(directory).into_iter().chain(there).collect()
    };
    is_gone("a killed process", || left(&directories[0]));
    assert!(directories[1].exists(), "the other one goes on");
    drop(holders[1].stdin.take());
    holders[1].wait().unwrap();
    is_gone("a process that ended", || left(&directories[1]));
}

#[test]
fn kill_at_any_moment_of_the_start_leaves_nothing_after_the_next_start() {
    let prefixes = [30, 100, 200, 350, 500, 700].map(|milliseconds| {
        let mut child = holder();
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        format!("coderdb-throw-away-{}-", child.id())
    });
    // A directory whose shell was not there yet waits for somebody to remove it.
    drop(Server::throw_away(|_| {}).unwrap());
    is_gone("a start that was killed", || {
        let entries = [Path::new("/dev/shm"), &env::temp_dir()].map(|dir| fs::read_dir(dir).into_iter().flatten());
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let is_of_killed = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        };
        paths.filter(is_of_killed).collect()
    });
}

#[test]
fn server_that_is_not_to_be_found_is_an_error_that_says_what_to_do() {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "testing::copy_has_the_rows_of_its_original"]);
    let output = child.env("PG_BIN_DIR", "/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("point it at the `bin` directory of PostgreSQL 14 or newer, or unset it"), "{said}");
    assert!(!output.status.success());
}
