//! Creating the schema `coderdb`.

use refinery_core::AsyncMigrate as _;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    Error,
    driver::Driver,
    history_table::{HOME, TABLE},
    log,
};

/// Creates what is missing of the schema `coderdb`, and makes sure that this session works where earlier ones did.
/// Under the runner's lock.
pub(super) async fn prepare(conn: &mut PgConnection) -> Result<(), Error> {
    let (history, log) = (Driver::assert_migrations_table_query(TABLE), log::CREATE);
    let sql = format!(
        "DO $coderdb$ DECLARE is_new boolean := to_regclass('coderdb.migration_log') IS NULL; BEGIN \
         IF to_regnamespace('coderdb') IS NULL THEN CREATE SCHEMA coderdb; GRANT USAGE ON SCHEMA coderdb TO PUBLIC; END IF; \
         IF to_regclass('{TABLE}') IS NULL THEN {history} GRANT SELECT ON {TABLE} TO PUBLIC; END IF; \
         IF is_new THEN {log}; END IF; \
         IF NOT EXISTS (SELECT FROM coderdb.migration_log) AND (is_new OR NOT EXISTS (SELECT FROM {TABLE})) THEN \
         EXECUTE format('ALTER TABLE coderdb.migration_log ALTER schema SET DEFAULT %L::regnamespace::text', \
         quote_ident(current_schema())); \
         END IF; END $coderdb$; {HOME}"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await?;
    let (home, current): (Option<String>, Option<String>) = (row.try_get("home")?, row.try_get("current")?);
    if home.is_some() && home == current { Ok(()) } else { Err(Error::Elsewhere { home, current }) }
}
