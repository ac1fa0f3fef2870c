//! What lends the server's sessions, if anything does.

use std::str::FromStr;

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _};

/// What lends the server's sessions, if anything does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or a pooler that lends a session for as long as the connection lasts.
    #[default]
    Session,
    /// A pooler that lends a session for one transaction at a time, and keeps prepared statements itself: `PgBouncer` 1.21
    /// or later with `max_prepared_statements`. What else belongs to a session does not work, that is `LISTEN`, `SET`,
    /// `PREPARE`, temporary tables, and advisory locks that outlive a transaction.
    Transaction,
}

/// As `CODERDB_POOLER` says it.
impl FromStr for Pooler {
    type Err = UnknownPooler;

    fn from_str(mode: &str) -> Result<Self, UnknownPooler> {
        match mode {
            "session" => Ok(Self::Session),
            "transaction" => Ok(Self::Transaction),
            _ => Err(UnknownPooler),
        }
    }
}

/// There are two modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pooler is `session` or `transaction`")]
pub struct UnknownPooler;

/// Whether there is a pooler that keeps prepared statements, found out in the open transaction, which it ends. Two round
/// trips.
///
/// Within a transaction the session stays the same. A pooler that keeps statements gives them names of its own on the
/// server; under the driver's name, the statement would be missing on every other session.
pub(super) async fn keeps_statements(connection: &mut PgConnection) -> sqlx::Result<bool> {
    const STATEMENT: &str = "SELECT 'kept by the pooler'";
    const ASK: &str =
        "SELECT name FROM pg_prepared_statements WHERE statement = 'SELECT ''kept by the pooler'''; COMMIT";
    match (&mut *connection).prepare(STATEMENT.into_sql_str()).await {
        // Under the driver's name, another client's statement is there already.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P05") => return Ok(false),
        prepared => drop(prepared?),
    }
    let rows = sqlx::raw_sql(ASK).fetch_all(&mut *connection).await?;
    let names = rows.iter().map(|row| row.try_get::<&str, _>(0)).collect::<Result<Vec<_>, _>>()?;
    let keeps = !names.is_empty() && names.iter().all(|name| !name.starts_with("sqlx_"));
    if !keeps {
        // So that the next client finds the name free. What is not there is closed as well.
        connection.clear_cached_statements().await?;
    }
    Ok(keeps)
}
