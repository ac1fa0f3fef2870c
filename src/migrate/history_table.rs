//! refinery's history table.

use refinery::Migration;
use sqlx::{PgConnection, Row, postgres::PgDatabaseError};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Error;

/// refinery's own name for it, so that its tools find it.
pub(super) const TABLE: &str = "refinery_schema_history";

const ROWS: &str = "SELECT version, name, applied_on, checksum FROM refinery_schema_history ORDER BY version";

/// What was applied; nothing where there is no such table. One round trip, and one message of the simple protocol: a
/// pooler, a standby and a role that may only read can answer it.
pub(super) async fn read(conn: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    match sqlx::raw_sql(ROWS).fetch_all(conn).await {
        Ok(rows) => rows.iter().map(migration).collect(),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn migration(row: &sqlx::postgres::PgRow) -> Result<Migration, Error> {
    // refinery's own choice is the smaller type.
    let version = row.try_get("version").or_else(|_| row.try_get("version").map(i32::into))?;
    let malformed = || Error::MalformedHistory { version };
    let text = |column| row.try_get::<String, _>(column).map_err(|_| malformed());
    let applied_on = OffsetDateTime::parse(&text("applied_on")?, &Rfc3339).map_err(|_| malformed())?;
    let checksum = text("checksum")?.parse().map_err(|_| malformed())?;
    Ok(Migration::applied(version, text("name")?, applied_on, checksum))
}

/// Whether the table is not there.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    sqlstate(error) == Some("42P01")
}

pub(super) fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// When it was applied, in RFC 3339.
pub(super) fn applied_on(migration: &Migration) -> Option<String> {
    migration.applied_on().and_then(|at| at.format(&Rfc3339).ok())
}
