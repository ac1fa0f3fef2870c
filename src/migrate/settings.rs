//! Settings that a role or a database may have, and that the engine's sessions must not have.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row, postgres::PgRow};

use super::{Error, sql::quote_name};

/// In every session of the engine. What the server does not know is left out.
const ALWAYS: &[(&str, &str)] = &[
    // What an error does, and what a text means.
    ("exit_on_error", "off"),
    ("standard_conforming_strings", "on"),
    ("row_security", "on"),
    ("restrict_nonsystem_relation_kind", ""),
    ("transaction_timeout", "0"),
    // Notices would fill the socket's buffer while the client does not read.
    ("client_min_messages", "notice"),
];

/// In the sessions that migrate, and in the observer's; sessions that only read keep their own time-outs.
const MIGRATING: &[(&str, &str)] = &[
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// The first statement: a standby refuses every other one where the default is serializable.
const ISOLATION: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; ";

fn pinned(is_local: bool) -> String {
    let settings = ALWAYS.iter().chain(if is_local { &[][..] } else { MIGRATING });
    let settings: Vec<_> = settings.map(|(name, value)| format!("('{name}', '{value}')")).collect();
    format!(
        "SELECT FROM (VALUES {}) AS pinned (name, value) \
         WHERE CASE WHEN current_setting(name, true) <> value THEN set_config(name, value, {is_local}) IS NULL END; ",
        settings.join(", ")
    )
}

/// The same for what only reads: the server refuses whatever would write.
const READ_ONLY: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; ";

/// The rows of a statement that only reads, in one round trip, with the settings of this module while it runs. Its
/// transaction is READ ONLY, unless the caller has begun one.
pub(super) async fn read(conn: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    let sql = pinned(true) + sql;
    if !conn.is_in_transaction() {
        return sqlx::raw_sql(AssertSqlSafe(READ_ONLY.to_owned() + &sql)).fetch_all(conn).await;
    }
    let mut transaction = conn.begin().await?;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *transaction).await;
    let rolled_back = transaction.rollback().await;
    let rows = rows?;
    rolled_back.map(|()| rows)
}

/// Gives the session the settings of this module. Returns what puts back those that the caller had set.
pub(crate) async fn pin(conn: &mut PgConnection) -> Result<String, Error> {
    Ok(restoring(conn, &(ISOLATION.to_owned() + SESSION + "; " + &pinned(false))).await?)
}

/// What puts the settings of the session, and its role, back to what they are now.
pub(super) async fn restore(conn: &mut PgConnection) -> Result<String, Error> {
    Ok(restoring(conn, SESSION).await?)
}

const SESSION: &str = "SELECT current_setting('role'), \
    (SELECT coalesce(string_agg(format('; SELECT set_config(%L, %L, false)', name, setting), ''), '') \
     FROM pg_settings WHERE source = 'session' AND name NOT IN ('transaction_isolation', 'transaction_read_only', \
     'transaction_deferrable'))";

async fn restoring(conn: &mut PgConnection, sql: &str) -> Result<String, sqlx::Error> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (role, settings): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let role = if role == "none" { "RESET ROLE".to_owned() } else { format!("SET ROLE {}", quote_name(&role)) };
    Ok(format!("RESET SESSION AUTHORIZATION; {role}; RESET ALL{settings}"))
}
