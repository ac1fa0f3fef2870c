//! `migrate verify`, `lint` and `new`: the schema as it is, the migrations as they are written.

mod lint;
mod new;
mod verify;

use std::{fs, path::Path};

use coderdb::{
    migrate,
    sqlx::{self, AssertSqlSafe, PgConnection},
};

use crate::support;

async fn run(conn: &mut PgConnection, sql: &str) {
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await {
        panic!("{sql}\n{error}");
    }
}

/// What `verify` finds, a line per difference, and a line per object that is more than expected.
async fn found(conn: &mut PgConnection) -> Vec<String> {
    let verification = migrate::verify(conn).await.expect("an answer");
    let definition = |object: Option<&migrate::Object>| object.map_or("nothing".to_owned(), |o| o.definition.clone());
    let drifts = verification.drifts.expect("nothing is pending");
    let drifts =
        drifts.iter().map(|drift| format!("{drift}: {} | {}", definition(drift.expected()), definition(drift.found())));
    drifts.chain(verification.extras.iter().map(|object| format!("extra {object}"))).collect()
}

/// A directory with these files.
fn files<'a>(files: impl IntoIterator<Item = (&'a str, String)>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, sql) in files {
        fs::write(dir.path().join(name), sql).unwrap();
    }
    dir
}

/// What `lint` finds in a directory: `name:line:column: rule`, and the exit code.
fn linted(dir: &Path) -> (Vec<String>, i32) {
    let outcome = support::run(support::coderdb().args(["migrate", "lint", "-o", "json"]).arg(dir));
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).expect(&outcome.stderr);
    assert_eq!(document["format"], 1);
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let findings = document["findings"].as_array().expect("findings").iter().map(|finding| {
        let file = text(&finding["file"]);
        let name = Path::new(&file).file_name().and_then(|name| name.to_str()).expect("a name");
        format!("{name}:{}:{}: {}", finding["line"], finding["column"], text(&finding["rule"]))
    });
    (findings.collect(), outcome.code)
}
