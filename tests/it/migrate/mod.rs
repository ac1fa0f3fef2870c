//! The runner of migrations under everything that can happen to it; docs/migration-tests.md says where what is tested.

mod contents;
mod environment;
mod errors;
mod experiments;
mod kill;
mod leaks;
mod locks;
mod own;
mod places;
mod races;
mod schema;
mod signals;
mod up;

use std::{fs, path::Path, process::Stdio};

use coderdb::{
    connect,
    migrate::{MigrateOptions, Migrations},
    sqlx::{self, AssertSqlSafe, PgConnection},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use crate::support::{self, Database, source::files};

/// A directory of migrations.
struct Set(TempDir);

impl Set {
    /// Files by their names, without `.sql`.
    fn of(files: &[(&str, &str)]) -> Self {
        let set = Self(tempfile::tempdir().expect("a directory"));
        for (name, sql) in files {
            set.write(name, sql);
        }
        set
    }

    fn write(&self, name: &str, sql: &str) {
        fs::write(self.path().join(format!("{name}.sql")), sql).expect("a file");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn migrations(&self) -> Migrations {
        Migrations::read(self.path()).expect("migrations")
    }

    /// How to apply them, with a second connection to the database.
    fn options(&self, database: &Database) -> MigrateOptions {
        options(database, self.migrations())
    }

    /// The program that applies them.
    fn up(&self, database: &Database) -> assert_cmd::Command {
        let mut command = database.coderdb();
        command.args(["migrate", "up", "--from"]).arg(self.path());
        command
    }

    /// The same, to be watched while it runs.
    fn spawn(&self, url: &str, args: &[&str]) -> Program {
        let path = self.path().to_str().expect("UTF-8");
        Program::spawn(url, &[&["migrate", "up", "--from", path], args].concat())
    }
}

/// The program while it runs; it ends with the test.
struct Program {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Program {
    fn spawn(url: &str, args: &[&str]) -> Self {
        let mut command = Command::new(support::CODERDB);
        command.env_clear().env("DATABASE_URL", url).args(args).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        Self { child, stderr, said: String::new() }
    }

    /// Waits until it says so, and gives the line.
    async fn says(&mut self, part: &str) -> String {
        while let Some(line) = self.stderr.next_line().await.expect("UTF-8") {
            self.said = format!("{}{line}\n", self.said);
            if line.contains(part) {
                return line;
            }
        }
        panic!("{part:?} is not in:\n{}", self.said);
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
    }

    /// `kill -9`, until it is gone.
    async fn kill(&mut self) {
        self.child.kill().await.expect("a child");
    }

    /// Waits for its end, and gives its exit code.
    async fn ends(&mut self) -> i32 {
        while let Some(line) = self.stderr.next_line().await.expect("UTF-8") {
            self.said = format!("{}{line}\n", self.said);
        }
        self.child.wait().await.expect("a child").code().unwrap_or_else(|| panic!("no signal\n{}", self.said))
    }
}

fn options(database: &Database, migrations: Migrations) -> MigrateOptions {
    MigrateOptions {
        migrations,
        observer: Some(connect::ConnectOptions::from(database.options())),
        ..MigrateOptions::default()
    }
}

/// An empty database, without a pooler: a runner's lock is that of its session.
async fn empty() -> (Database, PgConnection) {
    let database = support::empty_database().await.directly();
    let conn = database.connect().await;
    (database, conn)
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

async fn ask<T>(conn: &mut PgConnection, sql: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let asked = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch_one(conn).await;
    asked.unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

async fn list(conn: &mut PgConnection, sql: &str) -> Vec<String> {
    let asked = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch_all(conn).await;
    asked.unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

/// Waits until it is so.
async fn until(conn: &mut PgConnection, sql: &str) {
    while !ask::<bool>(conn, sql).await {
        tokio::task::yield_now().await;
    }
}

/// All that a schema has and holds, line by line; of the history, what was applied how often.
async fn contents(conn: &mut PgConnection) -> Vec<String> {
    let mut contents = list(conn, include_str!("contents.sql")).await;
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' \
                  ORDER BY 1";
    for table in list(conn, tables).await {
        // Random identifiers and the time of a default are another each time.
        let rows = format!(
            "SELECT regexp_replace(regexp_replace('{table}: ' || t::text, '\\d{{4}}-\\d\\d-\\d\\d \\d\\d:[\\d:.]+\\+\\d\\d', 'now', 'g'), \
             '^(user_status_changes: .)[-0-9a-f]{{36}}', '\\1id') FROM {table} AS t ORDER BY 1"
        );
        contents.extend(list(conn, &rows).await);
    }
    contents
}

/// A schema and a set of migrations without anything in them.
async fn clear(conn: &mut PgConnection) {
    run(conn, "SET client_min_messages = warning; DROP SCHEMA IF EXISTS public, coderdb CASCADE; CREATE SCHEMA public")
        .await;
}

fn assert_same(now: &[String], expected: &[String], what: &str) {
    let only = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|line| !there.contains(line)).cloned().collect()
    };
    assert!(now == expected, "{what}: {:#?} instead of {:#?}", only(now, expected), only(expected, now));
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/migration-tests.md")).expect("the page");
    let sources = files("tests/it");
    let mut count = 0;
    for (module, test) in page.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::")) {
        let module = format!("/{}", module.replace("::", "/"));
        let is_module = |path: &str| {
            let path = format!("/{}", path.trim_end_matches(".rs").trim_end_matches("/mod"));
            path.ends_with(&module)
        };
        let texts: Vec<_> = sources.iter().filter(|(path, _)| is_module(path)).map(|(_, text)| text).collect();
        assert!(!texts.is_empty(), "no {module}");
        let is_there = texts.iter().any(|text| text.contains(&format!("fn {test}(")));
        assert!(is_there || test == "…", "{module}::{test} is not there");
        count += 1;
    }
    assert!(count > 50, "{count}");
}
