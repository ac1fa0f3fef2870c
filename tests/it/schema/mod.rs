//! What the migrations build, as sentences. The facts of the base are compared with a catalog in `coder_catalog`, those of
//! all versions with `src/migrate/schema.jsonl`.

mod coder_catalog;
mod constraints;
mod deletions;
mod foreign_tables;
mod jobs;
mod restore;
mod triggers;
mod upgrades;
mod views;

use std::fmt::Write as _;

use coderdb::sqlx::{self, AssertSqlSafe, PgConnection};

use crate::support::{self, Database};

struct Schema {
    conn: PgConnection,
    _database: Database,
}

impl Schema {
    async fn new() -> Self {
        let database = support::database().await;
        Self { conn: database.connect().await, _database: database }
    }

    /// With `golden/rows.sql`: one organization, user, template, version, preset, workspace, build, resource and agent,
    /// each with the id `u(1)`, and functions to add more.
    async fn with_rows() -> Self {
        let mut this = Self::new().await;
        this.run(include_str!("../golden/rows.sql")).await;
        this
    }

    async fn run(&mut self, sql: &str) {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await {
            panic!("{sql}\n{error}");
        }
    }

    /// One line per row, with a space between the values; `-` is null.
    async fn rows(&mut self, query: &str) -> Vec<String> {
        let lines = format!(
            "SELECT (SELECT coalesce(string_agg(coalesce(value, '-'), ' '), '') FROM json_each_text(row_to_json(q))) \
             FROM ({query}) AS q"
        );
        match sqlx::query_scalar(AssertSqlSafe(lines)).fetch_all(&mut self.conn).await {
            Ok(rows) => rows,
            Err(error) => panic!("{query}\n{error}"),
        }
    }

    async fn row(&mut self, query: &str) -> String {
        self.rows(query).await.join("\n")
    }

    /// What a statement comes to, without doing it: `ok`, or the SQLSTATE and the constraint (or else the message).
    async fn outcome(&mut self, sql: &str) -> String {
        self.run("BEGIN").await;
        let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await;
        self.run("ROLLBACK").await;
        let Err(error) = result else { return "ok".to_owned() };
        let error = error.as_database_error().expect("an answer of the server");
        let code = error.code().expect("a SQLSTATE");
        format!("{code} {}", error.constraint().unwrap_or_else(|| error.message()))
    }

    /// `outcome` over a table of statement and expected beginning.
    async fn outcomes(&mut self, cases: &[(&str, &str)]) {
        let mut wrong = String::new();
        for (sql, expected) in cases {
            let outcome = self.outcome(sql).await;
            let right = if *expected == "ok" { outcome == "ok" } else { outcome.starts_with(expected) };
            if !right {
                writeln!(wrong, "{sql}\n  - {expected}\n  + {outcome}").expect("memory");
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}
