//! A database as Coder's own server makes it: the tables, types, constraints, indexes, views, functions and triggers of its
//! catalog of April 2026, and the history of its own migrator.

use std::collections::BTreeMap;

use coderdb::sqlx::{self, AssertSqlSafe, Connection as _};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::Database;

/// The version of its schema.
const VERSION: i64 = 440;

/// The tables of the catalog that the base has not.
const NOT_IN_THE_BASE: [&str; 3] = ["schema_migrations", "workspace_build_parameters", "workspace_modules"];

/// Such a database without rows, but for the version of the schema and the system's own.
pub async fn database() -> Database {
    static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
    let made = async || {
        let database = super::empty_database().await.directly().kept();
        let mut conn = database.connect().await;
        for sql in script() {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.expect("a database of Coder");
        }
        conn.close().await.expect("nobody else uses the template");
        database
    };
    TEMPLATE.get_or_init(made).await.copy().await
}

/// The base has the views, functions and triggers of the catalog, with bodies of its own, and `coder_catalog.rs` says what
/// else it lacks.
fn script() -> Vec<String> {
    let catalog = Catalog::read();
    let mut script = vec![
        include_str!("../../../migrations/V0001__base.sql").to_owned(),
        include_str!("../../../migrations/V0002__provisioner_job_logs_cap.sql").to_owned(),
        include_str!("../../../migrations/V0003__validate_provisioner_job_logs_cap.sql").to_owned(),
    ];
    let tables = || catalog.tables.iter().filter(|(name, _)| NOT_IN_THE_BASE.contains(&name.as_str()));
    script.extend(tables().map(|(name, table)| table.create(name)));
    script.extend(tables().flat_map(|(name, table)| table.constrain(name, |_| true)));
    script.extend(tables().flat_map(|(name, table)| table.finish(name)));
    script.push(format!("INSERT INTO schema_migrations (version, dirty) VALUES ({VERSION}, false)"));
    script
}

#[derive(Deserialize)]
pub struct Catalog {
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
    pub fn read() -> Self {
        serde_json::from_str(include_str!("../golden/coder_catalog.json")).expect("the catalog")
    }

    /// Statements that make all of it: functions and views only by what the catalog says of them.
    pub fn statements(&self) -> Vec<String> {
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
        made.extend(tables().map(|(name, table)| table.create(name)));
        // Foreign keys refer to what the others make unique.
        for foreign in [false, true] {
            let wanted = |definition: &str| definition.starts_with("FOREIGN KEY") == foreign;
            made.extend(tables().flat_map(|(name, table)| table.constrain(name, wanted)));
        }
        made.extend(tables().flat_map(|(name, table)| table.finish(name)));
        for (name, view) in self.tables.iter().filter(|(_, table)| table.view) {
            let columns: Vec<String> =
                view.columns.iter().map(|column| format!("NULL::{} AS \"{}\"", column.r#type, column.name)).collect();
            made.push(format!("CREATE VIEW {name} AS SELECT {}", columns.join(", ")));
        }
        made
    }
}

impl Table {
    fn create(&self, name: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(Column::definition).collect();
        let unlogged = if self.unlogged { "UNLOGGED" } else { "" };
        format!("CREATE {unlogged} TABLE {name} ({})", columns.join(", "))
    }

    fn constrain(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let wanted = self.constraints.iter().filter(|(_, definition)| wanted(definition));
        wanted
            .map(|(constraint, definition)| format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} {definition}"))
            .collect()
    }

    /// Its indexes and triggers.
    fn finish(&self, name: &str) -> Vec<String> {
        let mut made: Vec<String> = self.indexes.values().cloned().collect();
        for (trigger, definition) in &self.triggers {
            let (when, runs) = definition.split_once(" EACH ROW runs ").expect("what the trigger runs");
            made.push(format!("CREATE TRIGGER {trigger} {when} ON {name} FOR EACH ROW EXECUTE FUNCTION {runs}"));
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
