//! The base schema beside the catalog of a deployment of Coder: facts, as both servers say them.

use std::collections::{BTreeMap, BTreeSet};

use coderdb::sqlx::{self, AssertSqlSafe, PgConnection};
use serde::Deserialize;
use serde_json::Value;

use crate::support;

/// Facts, with `-` that only the catalog has, with `+` that only the base has; each with the reason.
const DIFFERENCES: &[(&str, &str)] = &[
    ("- column provisioner_jobs.logs_length: 20 integer default 0 not null", BY_VERSION_2),
    ("- column provisioner_jobs.logs_overflowed: 21 boolean default false not null", BY_VERSION_2),
    ("- constraint provisioner_jobs.max_provisioner_logs_length: CHECK ((logs_length <= 1048576))", BY_VERSION_2),
    ("- table schema_migrations: table", "the history of Coder's own migrator, which `adopt` looks for"),
    ("- table workspace_build_parameters: table", "no statement and no reference needs it"),
    ("- table workspace_modules: table", "no statement and no reference needs it"),
];

const BY_VERSION_2: &str = "the cap on logs is a change of its own, for deployments that are older than it";

#[derive(Deserialize)]
struct Catalog {
    enums: BTreeMap<String, Vec<String>>,
    domains: BTreeMap<String, Domain>,
    sequences: Vec<String>,
    tables: BTreeMap<String, Table>,
    functions: BTreeMap<String, Function>,
}

#[derive(Deserialize)]
struct Domain {
    r#type: String,
    checks: Value,
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    view: bool,
    #[serde(default)]
    unlogged: bool,
    columns: Vec<Column>,
    #[serde(default)]
    constraints: BTreeMap<String, String>,
    #[serde(default)]
    indexes: BTreeMap<String, String>,
    #[serde(default)]
    triggers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    r#type: String,
    default: Option<String>,
    generated: Option<String>,
    #[serde(default)]
    not_null: bool,
}

#[derive(Deserialize)]
struct Function {
    arguments: String,
    returns: String,
    language: String,
    volatility: String,
}

impl Catalog {
    fn read() -> Self {
        serde_json::from_str(include_str!("golden/coder_catalog.json")).expect("the catalog")
    }

    /// Statements that make all of it: functions and views only by what the catalog says of them.
    fn statements(&self) -> Vec<String> {
        let mut made = Vec::new();
        for (name, labels) in &self.enums {
            made.push(format!("CREATE TYPE {name} AS ENUM ('{}')", labels.join("', '")));
        }
        for (name, domain) in &self.domains {
            assert!(domain.checks.is_null(), "{name}");
            made.push(format!("CREATE DOMAIN {name} AS {}", domain.r#type));
        }
        made.extend(self.sequences.iter().map(|name| format!("CREATE SEQUENCE {name}")));
        for (name, function) in &self.functions {
            let Function { arguments, returns, language, volatility } = function;
            made.push(format!(
                "CREATE FUNCTION {name}({arguments}) RETURNS {returns} LANGUAGE {language} {volatility}
                 AS 'BEGIN RETURN NULL; END'"
            ));
        }
        let tables = || self.tables.iter().filter(|(_, table)| !table.view);
        for (name, table) in tables() {
            let columns: Vec<String> = table.columns.iter().map(Column::definition).collect();
            let unlogged = if table.unlogged { "UNLOGGED" } else { "" };
            made.push(format!("CREATE {unlogged} TABLE {name} ({})", columns.join(", ")));
        }
        // Foreign keys refer to what the others make unique.
        for foreign in [false, true] {
            for (name, table) in tables() {
                for (constraint, definition) in &table.constraints {
                    if definition.starts_with("FOREIGN KEY") == foreign {
                        made.push(format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} {definition}"));
                    }
                }
            }
        }
        for (name, table) in tables() {
            made.extend(table.indexes.values().cloned());
            for (trigger, definition) in &table.triggers {
                let (when, runs) = definition.split_once(" EACH ROW runs ").expect("what the trigger runs");
                made.push(format!("CREATE TRIGGER {trigger} {when} ON {name} FOR EACH ROW EXECUTE FUNCTION {runs}"));
            }
        }
        for (name, view) in self.tables.iter().filter(|(_, table)| table.view) {
            let columns: Vec<String> =
                view.columns.iter().map(|column| format!("NULL::{} AS \"{}\"", column.r#type, column.name)).collect();
            made.push(format!("CREATE VIEW {name} AS SELECT {}", columns.join(", ")));
        }
        made
    }
}

impl Column {
    fn definition(&self) -> String {
        let Self { name, r#type, default, generated, not_null } = self;
        let value = match (generated, default) {
            (Some(expression), _) => format!(" GENERATED ALWAYS AS ({expression}) STORED"),
            (None, Some(expression)) => format!(" DEFAULT {expression}"),
            (None, None) => String::new(),
        };
        let definition = format!("\"{name}\" {type}{value}");
        if *not_null { definition + " NOT NULL" } else { definition }
    }
}

async fn facts(conn: &mut PgConnection) -> BTreeSet<String> {
    let facts = sqlx::query_scalar(include_str!("golden/catalog_facts.sql")).fetch_all(conn).await.expect("the facts");
    facts.into_iter().collect()
}

/// The facts of the catalog.
async fn of_the_catalog() -> BTreeSet<String> {
    let database = support::empty_database().await;
    let mut conn = database.connect().await;
    let made = Catalog::read().statements().join(";\n");
    sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut conn).await.expect("a schema out of the catalog");
    facts(&mut conn).await
}

/// The relation that a fact is about, unless the fact is about something else.
fn relation(fact: &str) -> Option<&str> {
    let (kind, rest) = fact.split_once(' ')?;
    let name = rest.split_once(": ")?.0;
    match kind {
        "table" => Some(name),
        "column" | "constraint" | "index" | "trigger" => Some(name.split_once('.')?.0),
        _ => None,
    }
}

/// What one of the two has more, without the details of a table that the other has not at all.
fn more<'a>(of: &'a BTreeSet<String>, than: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
    let tables: BTreeSet<String> = than
        .iter()
        .filter(|fact| fact.starts_with("table "))
        .filter_map(|fact| relation(fact))
        .map(str::to_owned)
        .collect();
    of.difference(than).filter(move |fact| {
        fact.starts_with("table ") || relation(fact).is_none_or(|relation| tables.contains(relation))
    })
}

#[tokio::test]
async fn the_base_is_the_schema_of_coder_but_for_the_listed_differences() {
    let database = support::empty_database().await;
    let mut conn = database.connect().await;
    let base = include_str!("../../migrations/V0001__base.sql");
    sqlx::raw_sql(base).execute(&mut conn).await.expect("the base");
    let (coder, ours) = (of_the_catalog().await, facts(&mut conn).await);
    assert!(coder.len() > 700, "{}", coder.len());
    let found: BTreeSet<String> = more(&coder, &ours)
        .map(|fact| format!("- {fact}"))
        .chain(more(&ours, &coder).map(|fact| format!("+ {fact}")))
        .collect();
    let listed: BTreeSet<String> = DIFFERENCES.iter().map(|(fact, _)| (*fact).to_owned()).collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        unlisted.is_empty() && gone.is_empty(),
        "not listed: {unlisted:#?}\nlisted, and no longer there: {gone:#?}"
    );
}

#[tokio::test]
async fn the_later_versions_change_nothing_that_coder_has() {
    let database = support::database().await;
    let (coder, ours) = (of_the_catalog().await, facts(&mut database.connect().await).await);
    let left_out: BTreeSet<&str> = DIFFERENCES
        .iter()
        .filter_map(|(fact, _)| fact.strip_prefix("- "))
        .filter(|fact| fact.starts_with("table "))
        .collect();
    let changed: Vec<_> = more(&coder, &ours).filter(|fact| !left_out.contains(fact.as_str())).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}
