//! The base schema beside the catalog of a deployment of Coder: facts, as both servers say them.

use std::collections::BTreeSet;

use coderdb::sqlx::{self, AssertSqlSafe, PgConnection};

use crate::support::{self, coder::Catalog};

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

async fn facts(conn: &mut PgConnection) -> BTreeSet<String> {
    let facts =
        sqlx::query_scalar(include_str!("../golden/catalog_facts.sql")).fetch_all(conn).await.expect("the facts");
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
    let base = include_str!("../../../migrations/V0001__base.sql");
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

#[tokio::test]
async fn a_generated_database_of_coder_is_the_one_of_the_catalog() {
    let database = support::coder::database().await;
    let (coder, generated) = (of_the_catalog().await, facts(&mut database.connect().await).await);
    let (missing, more): (Vec<_>, Vec<_>) =
        (coder.difference(&generated).collect(), generated.difference(&coder).collect());
    assert!(missing.is_empty() && more.is_empty(), "not generated: {missing:#?}\ntoo much: {more:#?}");
}
