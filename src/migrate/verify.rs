//! Whether a database has the schema that the migrations make.

use sqlx::{PgConnection, Row, types::Json};

use super::{
    Error, Migrations, Object, State, Status, adopt,
    drift::{CATALOG, Drift, compare, expected},
    history_table, plan, settings,
    sql::quote_name,
};

/// How a database differs from the schema of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Verification {
    /// What the history says; its problems are drift, too.
    pub status: Status,
    /// Every difference that matters; `None` when migrations are pending, because then nothing is known to compare
    /// with.
    pub drifts: Option<Vec<Drift>>,
    /// Objects of others beside this schema that cannot make a write fail.
    pub extras: Vec<Object>,
}

impl Verification {
    /// Whether the database is exactly as the migrations made it, but for what others have beside it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.drifts.as_ref().is_some_and(Vec::is_empty) && self.status.problems().is_empty()
    }
}

/// Finds every difference between a database and the schema of this version.
///
/// Looks into the schema that the migrations were applied in. Privileges, comments, rows, the order of columns, and
/// what only tunes (storage, statistics, fillfactor of tables) are not compared. Writes nothing: works with a role that
/// may only read, and on a standby. One round trip after that of [`status`](super::status()), in a transaction of its
/// own, one statement for the whole catalog. It takes ACCESS SHARE on the tables while it runs, and waits for exclusive
/// locks on them.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Sql`] and [`Error::MalformedHistory`]; what is wrong is the answer.
#[tracing::instrument(name = "migrate.verify", skip_all)]
pub async fn verify(conn: &mut PgConnection) -> Result<Verification, Error> {
    let history = history_table::read(conn, history_table::SCHEMA).await?;
    let status =
        plan::status(&history.migrations, &Migrations::embedded().as_applied()).with_baseline(history.baseline);
    if status.migrations.iter().any(|entry| entry.state == State::Pending) {
        return Ok(Verification { status, drifts: None, extras: Vec::new() });
    }
    // Definitions name the schema of what is not on the path.
    let path =
        history.home.map_or_else(String::new, |home| format!("SET LOCAL search_path = {};\n", quote_name(&home)));
    let rows = settings::read(conn, &(path + CATALOG)).await?;
    let found = rows.iter().map(|row| Ok(row.try_get::<Json<Object>, _>(0)?.0));
    let found = found.collect::<Result<Vec<_>, sqlx::Error>>()?;
    if let Some(baseline) = &status.baseline {
        // All other objects belong to Coder's server.
        let tables: Vec<_> = found.iter().filter(|object| object.kind == "table").map(|table| &table.name).collect();
        let differences = adopt::all_differences(conn).await?;
        let mut own = adopt::own_objects(baseline, &differences);
        own.retain(|object| object.table.as_ref().is_some_and(|table| tables.contains(&table)));
        let is_own = |object: &Object| own.iter().any(|own| own.is_same_as(object));
        let (mut drifts, _) = compare(own.clone(), found.into_iter().filter(is_own).collect());
        let new = differences.into_iter().filter(|difference| baseline.is_new(difference));
        drifts.extend(new.map(|difference| difference.drift));
        return Ok(Verification { status, drifts: Some(drifts), extras: Vec::new() });
    }
    let (drifts, extras) = compare(expected(), found);
    Ok(Verification { status, drifts: Some(drifts), extras })
}
