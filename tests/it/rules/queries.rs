//! The metadata that builds use without a database is what the migrated schema says.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use coderdb::sqlx::{AssertSqlSafe, Executor, SqlSafeStr};
use serde_json::Value;

use crate::support;

fn sql_files(dir: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.append(&mut sql_files(&path));
        } else {
            files.insert(fs::read_to_string(&path).expect("a text"), path);
        }
    }
    files
}

/// Without the guesses that a marker overrides: sqlx guesses from the plan, and a plan changes with the server.
fn types(mut described: Value) -> Value {
    let names: Vec<String> = described["columns"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| column["name"].as_str().expect("a name").to_owned())
        .collect();
    for (name, guess) in names.iter().zip(described["nullable"].as_array_mut().expect("guesses")) {
        if name.ends_with(['!', '?']) {
            *guess = Value::Null;
        }
    }
    described
}

#[tokio::test]
async fn every_query_file_has_current_metadata() {
    let database = support::database().await;
    // To describe a statement, the driver executes it by its name, in SQL.
    let mut conn = database.connect_with_session().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sql_files(&root.join("queries"));
    let mut problems = Vec::new();
    for entry in fs::read_dir(root.join(".sqlx")).expect("the metadata") {
        let json = fs::read(entry.expect("an entry").path()).expect("a file");
        let cached: Value = serde_json::from_slice(&json).expect("JSON");
        let sql = cached["query"].as_str().expect("a query").to_owned();
        let Some(file) = files.remove(&sql) else {
            problems.push(format!("metadata of a query that is in no file: {sql}"));
            continue;
        };
        match (&mut conn).describe(AssertSqlSafe(sql).into_sql_str()).await {
            Err(error) => problems.push(format!("{}: {error}", file.display())),
            Ok(described) => {
                if types(serde_json::to_value(&described).expect("JSON")) != types(cached["describe"].clone()) {
                    problems.push(format!("{}: its types have changed", file.display()));
                }
            }
        }
    }
    problems.extend(files.values().map(|file| format!("{}: no metadata", file.display())));
    assert!(problems.is_empty(), "run scripts/prepare:\n{}", problems.join("\n"));
}
