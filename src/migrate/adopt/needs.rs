//! What the statements of this layer need of a database that another server made, and how a database differs from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::Deserialize;
use sqlx::{PgConnection, Row, types::Json};

use crate::migrate::{
    Drift, Error, Object, Status,
    baseline::Baseline,
    migrator, settings,
    sql::{quote_name, sqlstate},
};

/// Each column, label and key, and what may be done to each table, with the statements that need it. A test finds it out from the
/// statements; `scripts/prepare` writes it.
const NEEDS: &str = include_str!("needs.jsonl");

const FACTS: &str = include_str!("facts.sql");

/// How long a table may be in use.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The kind of what is no object: what may be done to a table.
const PRIVILEGE: &str = "privilege";

/// Something that statements need.
#[derive(Debug, Clone, Deserialize)]
struct Need {
    #[serde(flatten)]
    object: Object,
    /// The statements that need it, as the files under `queries` are called.
    r#for: Vec<String>,
}

/// A difference from what the statements need, and what fails because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub drift: Drift,
    /// The statements that fail, or do another thing, as the files under `queries` are called.
    pub breaks: Vec<String>,
}

/// `column provisioner_jobs.input is changed: json NOT NULL, and not jsonb NOT NULL; breaks jobs/insert and jobs/list`
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 4;
        match &self.drift {
            Drift::Missing(object) => write!(f, "{object} is gone")?,
            Drift::Changed { expected, found } => {
                write!(f, "{found} is {}, expected {}", one_line(&found.definition), one_line(&expected.definition))?;
            }
            Drift::Unexpected(object) | Drift::Unfinished(object) => {
                write!(f, "{object} must be given a value, and this version knows none")?;
            }
        }
        let named: Vec<_> = self.breaks.iter().take(NAMED).map(String::as_str).collect();
        write!(f, "; breaks {}", named.join(", "))?;
        match self.breaks.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn one_line(definition: &str) -> String {
    definition.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn needs() -> Vec<Need> {
    NEEDS.lines().map(|line| serde_json::from_str(line).expect("a test reads every line")).collect()
}

/// How an adopted database with this status differs from what was accepted when it was adopted; empty for one that fits, and for one
/// that this layer made itself. Writes nothing; one round trip.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`]; [`Error::MigratorBusy`] while Coder's own server alters a table.
pub async fn differences(conn: &mut PgConnection, status: &Status) -> Result<Vec<Difference>, Error> {
    match &status.baseline {
        Some(baseline) => new_differences(conn, baseline).await,
        None => Ok(Vec::new()),
    }
}

async fn new_differences(conn: &mut PgConnection, baseline: &Baseline) -> Result<Vec<Difference>, Error> {
    Ok(all_differences(conn).await?.into_iter().filter(|difference| baseline.is_new(difference)).collect())
}

/// The differences of the database, in the order of what they are about. One statement, which only reads the catalog.
pub(in crate::migrate) async fn all_differences(conn: &mut PgConnection) -> Result<Vec<Difference>, Error> {
    let needs = needs();
    let tables: BTreeSet<_> = needs.iter().filter_map(|need| need.object.table.clone()).collect();
    let facts = FACTS.replace("{relations}", &format!("{{{}}}", tables.into_iter().collect::<Vec<_>>().join(",")));
    let facts = format!("SET LOCAL lock_timeout = '{}ms'; {facts}", LOCK_TIMEOUT.as_millis());
    let rows = match settings::read(conn, &facts).await {
        // Newer servers lock the table whose expressions they show, and Coder's migrator may have it for long.
        Err(error) if sqlstate(&error) == Some("55P03") => {
            return Err(Error::MigratorBusy { waited: LOCK_TIMEOUT, holders: migrator::holders(conn).await? });
        }
        rows => rows?,
    };
    let found = rows.iter().map(|row| Ok(row.try_get::<Json<Object>, _>(0)?.0)).collect::<Result<_, sqlx::Error>>()?;
    Ok(compare(needs, found))
}

fn compare(needs: Vec<Need>, found: Vec<Object>) -> Vec<Difference> {
    let key = |object: &Object| (object.table.clone().unwrap_or_default(), object.kind.clone(), object.name.clone());
    let (privileges, needs): (Vec<_>, Vec<_>) = needs.into_iter().partition(|need| need.object.kind == PRIVILEGE);
    let inserts: BTreeMap<_, _> = privileges
        .into_iter()
        .filter(|need| need.object.name == "INSERT")
        .map(|need| (need.object.table.unwrap_or_default(), need.r#for))
        .collect();
    let found: BTreeMap<_, _> = found.into_iter().map(|object| (key(&object), object)).collect();
    let there: BTreeSet<_> = found.values().filter(|o| o.kind == "column").filter_map(|o| o.table.clone()).collect();
    let mut gone = BTreeMap::<String, BTreeSet<String>>::new();
    let mut differences = Vec::new();
    let mut known = BTreeMap::new();
    for Need { object, r#for: breaks } in needs {
        let table = object.table.clone().unwrap_or_default();
        if object.kind != "label" && !there.contains(&table) {
            // What belongs to a missing table goes without saying.
            gone.entry(table).or_default().extend(breaks);
            continue;
        }
        let drift = match found.get(&key(&object)) {
            None => Drift::Missing(object.clone()),
            Some(found) if !is_as_good(&object, found, inserts.contains_key(&table)) => {
                Drift::Changed { expected: object.clone(), found: found.clone() }
            }
            Some(_) => {
                known.insert(key(&object), breaks);
                continue;
            }
        };
        differences.push(Difference { drift, breaks });
    }
    for (key, object) in &found {
        let inserting = inserts.get(&key.0).filter(|_| object.kind == "column" && object.restricts);
        let fills = |statement: &&String| known.get(key).is_some_and(|using| using.contains(statement));
        let breaks: Vec<_> = inserting.into_iter().flatten().filter(|statement| !fills(statement)).cloned().collect();
        if !breaks.is_empty() && !differences.iter().any(|other| other.drift.object().name == object.name) {
            differences.push(Difference { drift: Drift::Unexpected(object.clone()), breaks });
        }
    }
    differences.extend(gone.into_iter().map(|(table, breaks)| {
        let (kind, definition) = ("table".to_owned(), String::new());
        let table = Object { kind, table: None, name: table, definition, restricts: false, unfinished: false };
        Difference { drift: Drift::Missing(table), breaks: breaks.into_iter().collect() }
    }));
    differences.sort_by_cached_key(|difference| key(difference.drift.object()));
    differences
}

/// Whether the statements can do with what is there. Where they insert nothing, a value that cannot be null will do as well.
fn is_as_good(expected: &Object, found: &Object, is_written: bool) -> bool {
    let (expected, found) = (expected.definition.as_str(), found.definition.as_str());
    expected == found || !is_written && found.strip_suffix(" NOT NULL") == Some(expected)
}

/// What a role needs that all operations are done as, in SQL.
pub(super) fn grants(schema: &str, role: &str) -> String {
    let (schema, role) = (quote_name(schema), quote_name(role));
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for Object { table, name, .. } in needs().into_iter().map(|need| need.object).filter(|o| o.kind == PRIVILEGE) {
        tables.entry(table.unwrap_or_default()).or_default().push(name);
    }
    tables.insert("schema_migrations".to_owned(), vec!["SELECT".to_owned()]);
    let tables = tables.iter().map(|(table, privileges)| {
        let kind = if privileges.iter().any(|privilege| privilege == "USAGE") { "SEQUENCE " } else { "" };
        format!("GRANT {} ON {kind}{schema}.{} TO {role};\n", privileges.join(", "), quote_name(table))
    });
    format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n{}", tables.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, table: &str, name: &str, definition: &str, restricts: bool) -> Object {
        let [kind, name, definition] = [kind, name, definition].map(str::to_owned);
        Object { kind, table: Some(table.to_owned()), name, definition, restricts, unfinished: false }
    }

    fn need(object: Object, statements: &[&str]) -> Need {
        Need { object, r#for: statements.iter().map(|statement| (*statement).to_owned()).collect() }
    }

    fn said(found: Vec<Object>) -> Vec<String> {
        let needs = vec![
            need(object("column", "a", "id", "uuid NOT NULL", false), &["a/get", "a/insert"]),
            need(object("column", "a", "note", "text", false), &["a/get"]),
            need(object("column", "v", "note", "text", false), &["v/list"]),
            need(object("label", "mood", "good", "", false), &["a/get"]),
            need(object("unique key", "a", "(id)", "", false), &["a/insert"]),
            need(object("privilege", "a", "INSERT", "", false), &["a/insert"]),
        ];
        compare(needs, found).iter().map(ToString::to_string).collect()
    }

    fn fitting() -> Vec<Object> {
        vec![
            object("column", "a", "id", "uuid NOT NULL", true),
            object("column", "a", "note", "text", false),
            object("column", "v", "note", "text", false),
            object("label", "mood", "good", "", false),
            object("unique key", "a", "(id)", "", true),
        ]
    }

    fn but(name: &str, change: impl Fn(&mut Object)) -> Vec<Object> {
        let mut found = fitting();
        found.iter_mut().filter(|object| object.name == name).for_each(change);
        found
    }

    #[test]
    fn compare_says_what_breaks_and_accepts_what_is_more() {
        assert_eq!(said(fitting()), [""; 0]);
        let mut more = fitting();
        more.extend([
            object("column", "a", "new", "text NOT NULL", false),
            object("label", "mood", "bad", "", false),
            object("unique key", "a", "(note)", "", true),
        ]);
        assert_eq!(said(more), [""; 0]);
        for (found, expected) in [
            (
                but("id", |o| o.definition = "bigint NOT NULL".to_owned()),
                "column a.id is bigint NOT NULL, expected uuid NOT NULL; breaks a/get, a/insert",
            ),
            (
                but("id", |o| o.definition = "uuid".to_owned()),
                "column a.id is uuid, expected uuid NOT NULL; breaks a/get, a/insert",
            ),
            (but("good", |o| o.name = "fine".to_owned()), "label mood.good is gone; breaks a/get"),
            (but("(id)", |o| o.name = "(id, note)".to_owned()), "unique key a.(id) is gone; breaks a/insert"),
            (
                fitting().into_iter().filter(|o| o.table.as_deref() != Some("v")).collect(),
                "table v is gone; breaks v/list",
            ),
        ] {
            assert_eq!(said(found), [expected]);
        }
        let mut required = fitting();
        required.push(object("column", "a", "roles", "text[] NOT NULL", true));
        assert_eq!(
            said(required),
            ["column a.roles must be given a value, and this version knows none; breaks a/insert"]
        );
        // A view has no values that must be given, and a column that is never null is read as well.
        assert_eq!(
            said(but("note", |o| if o.table.as_deref() == Some("v") {
                o.definition += " NOT NULL";
            })),
            [""; 0]
        );
    }

    #[test]
    fn every_need_can_be_read_and_names_its_statements() {
        assert!(needs().iter().all(|need| !need.r#for.is_empty()));
    }
}
