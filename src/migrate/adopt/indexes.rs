//! The indexes that this layer adds to a database of Coder's server.

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::{check::CONSTRAINT, needs::Difference};
use crate::migrate::{
    Error, Migrations, Object,
    baseline::Baseline,
    drift::{self, Drift},
    files::File,
    index::Index,
    settings,
    sql::quote,
};

/// One of the indexes that this layer adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnIndex {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: String,
    /// Whether it is there.
    pub state: IndexState,
}

/// Whether an index is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    /// It is to be built.
    Missing,
    /// What a build has left: it is dropped and built.
    Invalid,
    /// It is as this version builds it.
    Built,
    /// Another index has its name.
    Foreign,
}

/// The indexes that these files build, each with its table.
pub(super) fn own_indexes<'a>(files: impl IntoIterator<Item = &'a File>) -> impl Iterator<Item = (String, String)> {
    let statements = files.into_iter().filter(|file| file.is_stepwise).flat_map(File::statements);
    let indexes: Vec<_> = statements.filter_map(|statement| Index::of(&statement)).collect();
    indexes.into_iter().filter_map(|index| Some((index.name, index.table?)))
}

/// What this layer has made in an adopted database that differs like this from what the statements need.
pub(in crate::migrate) fn own_objects(baseline: &Baseline, differences: &[Difference]) -> Vec<Object> {
    let migrations = Migrations::embedded();
    let indexes: Vec<_> = own_indexes(migrations.files()).map(|(name, _)| name).collect();
    let is_own = |object: &Object| match object.kind.as_str() {
        "index" => {
            indexes.contains(&object.name)
                && (baseline.indexes.contains_key(&object.name) || gone_below(differences, &object.name).is_none())
        }
        "constraint" => baseline.error_code_check && object.name == CONSTRAINT,
        _ => false,
    };
    let mut own: Vec<_> = drift::expected().into_iter().filter(is_own).collect();
    for object in &mut own {
        // An upgrade may have given another name to a column of it before the last adoption.
        if let Some(definition) = baseline.indexes.get(&object.name) {
            object.definition.clone_from(definition);
        }
    }
    own
}

/// The indexes of this version, and whether they are there: one of such a name is it where PostgreSQL writes it as it was made, or
/// as it was when the database was adopted, or where what it is over has got another name since then.
pub(super) async fn indexes(
    conn: &mut PgConnection,
    baseline: Option<&Baseline>,
    differences: &[Difference],
) -> Result<Vec<OwnIndex>, Error> {
    let migrations = Migrations::embedded();
    let own: Vec<_> = own_indexes(migrations.files()).collect();
    let names: Vec<_> = own.iter().map(|(name, _)| quote(name)).collect();
    let found = found_indexes(conn, &names).await?;
    let expected = drift::expected();
    let is_it = |name: &str, found: &str| {
        let made = expected.iter().any(|o| o.kind == "index" && o.name == name && o.definition == found);
        let adopted = baseline.is_some_and(|baseline| {
            baseline.indexes.get(name).is_some_and(|definition| definition == found)
                || !found.is_empty() && gone_below(differences, name).is_some()
        });
        made || adopted
    };
    let state = |name: &str| match found.iter().find(|(found, ..)| found == name) {
        None => IndexState::Missing,
        Some((_, _, found)) if !is_it(name, found) => IndexState::Foreign,
        Some((_, true, _)) => IndexState::Built,
        Some((_, false, _)) => IndexState::Invalid,
    };
    Ok(own.into_iter().map(|(name, table)| OwnIndex { state: state(&name), name, table }).collect())
}

/// What is gone of what an index of this layer is over.
pub(super) fn gone_below<'a>(differences: &'a [Difference], index: &str) -> Option<&'a Object> {
    let expected = drift::expected();
    let index = expected.iter().find(|object| object.kind == "index" && object.name == index)?;
    let table = index.table.as_deref()?;
    let words: Vec<_> = index.definition.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let is_below = |object: &&Object| match &object.table {
        Some(of) => of == table && object.kind == "column" && words.contains(&object.name.as_str()),
        None => object.kind == "table" && object.name == table,
    };
    let gone = differences.iter().filter_map(|difference| match &difference.drift {
        Drift::Missing(object) => Some(object),
        _ => None,
    });
    gone.into_iter().find(is_below)
}

/// The definitions of those that are there and valid, by name, as JSON.
pub(super) async fn definitions(conn: &mut PgConnection, indexes: &[OwnIndex]) -> Result<serde_json::Value, Error> {
    let built = indexes.iter().filter(|index| index.state == IndexState::Built);
    let names: Vec<_> = built.map(|index| quote(&index.name)).collect();
    let found = found_indexes(conn, &names).await?;
    Ok(found.into_iter().map(|(name, _, found)| (name, found)).collect())
}

/// The relations with these quoted names, whether each is a valid index, and its definition.
async fn found_indexes(conn: &mut PgConnection, names: &[String]) -> Result<Vec<(String, bool, String)>, Error> {
    let look = format!(
        "SELECT x.relname::text, coalesce(i.indisvalid AND i.indisready, false), coalesce(pg_get_indexdef(x.oid, 0, true), '') \
         FROM pg_class AS x LEFT JOIN pg_index AS i ON i.indexrelid = x.oid \
         WHERE x.relnamespace = quote_ident(current_schema())::regnamespace AND x.relname = ANY (ARRAY[{}]::text[])",
        names.join(", ")
    );
    let rows = settings::read(conn, &look).await?;
    let found = rows.iter().map(|row| {
        let definition: String = row.try_get(2)?;
        Ok((row.try_get(0)?, row.try_get(1)?, without_schema(&definition)))
    });
    Ok(found.collect::<Result<_, sqlx::Error>>()?)
}

/// The definition of an index as it is where its table is on the search path.
fn without_schema(definition: &str) -> String {
    let Some((before, rest)) = definition.split_once(" ON ") else { return definition.to_owned() };
    let (table, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    format!("{before} ON {} {rest}", table.rsplit_once('.').map_or(table, |(_, table)| table))
}
