//! The schema `coderdb`, or that of another set of migrations: refinery's history, the log, and in which schema the
//! migrations made what they made.

use refinery::Migration;
use sqlx::{PgConnection, Row};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Error,
    baseline::Baseline,
    coder, log, settings,
    sql::{is_missing, quote, quote_name},
};

/// refinery's own name for it, so that its tools find it with `search_path=coderdb`.
pub(super) fn table(schema: &str) -> String {
    format!("{}.refinery_schema_history", quote_name(schema))
}

/// The schema of the history of this library's own migrations.
pub(super) const SCHEMA: &str = "coderdb";

/// Where the migrations made what they made. A default that names a schema follows it through renames and dumps, and is
/// gone with it: the server keeps such references right.
pub(super) fn home(schema: &str) -> String {
    let log = quote(&log::table(schema));
    format!(
        "SELECT current_schema() AS current, to_regclass({log}) IS NULL AS is_unknown, \
         (SELECT n.nspname::text FROM pg_attrdef AS a \
          INNER JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid \
          INNER JOIN pg_namespace AS n ON d.refclassid = 'pg_namespace'::regclass AND n.oid = d.refobjid \
          WHERE a.adrelid = to_regclass({log})) AS home"
    )
}

/// What was applied, and where.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) migrations: Vec<Migration>,
    /// The schema that the migrations were applied in; `None` before the first one.
    pub(super) home: Option<String>,
    /// What was recorded when it was adopted; `None` for a database that this layer made itself.
    pub(super) baseline: Option<Baseline>,
}

/// What was applied; nothing where there is no such table. One round trip where migrations are applied, and one message
/// of the simple protocol: a pooler, a standby and a role that may only read can answer it.
///
/// # Errors
/// [`Error::MadeByCoder`] for a database that Coder's server made and that is not adopted, where this library's own
/// migrations are asked about.
pub(super) async fn read(conn: &mut PgConnection, schema: &str) -> Result<History, Error> {
    let history = read_any(conn, schema).await?;
    if history.migrations.is_empty()
        && schema == SCHEMA
        && let Some(coder) = coder::recognize(conn).await?
    {
        return Err(Error::MadeByCoder { version: coder.version });
    }
    Ok(history)
}

/// The same, without the check that this layer made or adopted the database.
pub(super) async fn read_any(conn: &mut PgConnection, schema: &str) -> Result<History, Error> {
    let (home, table) = (home(schema), table(schema));
    let sql = format!(
        "SELECT h.version, h.name, h.applied_on, h.checksum, p.*, p.home = ANY (current_schemas(false)) AS is_on_path, \
         {} AND to_regclass('coderdb.baseline') IS NOT NULL AS is_adopted \
         FROM ({home}) AS p LEFT JOIN {table} AS h ON true ORDER BY h.version",
        schema == SCHEMA
    );
    let rows = match settings::read(conn, &sql).await {
        Ok(rows) => rows,
        Err(error) if is_missing(&error) => return Ok(History::default()),
        Err(error) => return Err(error.into()),
    };
    let applied = rows.iter().filter_map(|row| migration(row).transpose()).collect::<Result<Vec<_>, _>>()?;
    let Some(row) = rows.first() else { return Ok(History::default()) };
    let home: Option<String> = row.try_get("home")?;
    let is_reachable = row.try_get::<Option<bool>, _>("is_on_path")?.unwrap_or_default();
    if !applied.is_empty() && !is_reachable && !row.try_get::<bool, _>("is_unknown")? {
        return Err(Error::Elsewhere { home, current: row.try_get("current")? });
    }
    let baseline = if row.try_get("is_adopted")? { Baseline::read(conn).await? } else { None };
    Ok(History { migrations: applied, home, baseline })
}

/// `None` where the history is empty.
fn migration(row: &sqlx::postgres::PgRow) -> Result<Option<Migration>, Error> {
    // refinery's own choice is the smaller type.
    let version =
        row.try_get("version").or_else(|_| row.try_get::<Option<i32>, _>("version").map(|v| v.map(i64::from)));
    let Some(version) = version? else { return Ok(None) };
    let malformed = || Error::MalformedHistory { version };
    let text = |column| row.try_get::<String, _>(column).map_err(|_| malformed());
    let applied_on = OffsetDateTime::parse(&text("applied_on")?, &Rfc3339).map_err(|_| malformed())?;
    let checksum = text("checksum")?.parse().map_err(|_| malformed())?;
    Ok(Some(Migration::applied(version, text("name")?, applied_on, checksum)))
}

/// When it was applied, in RFC 3339.
pub(super) fn applied_on(migration: &Migration) -> Option<String> {
    migration.applied_on().and_then(|at| at.format(&Rfc3339).ok())
}
