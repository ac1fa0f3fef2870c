//! Creating the schema of the history: `coderdb`, or that of another set of migrations.

use refinery_core::AsyncMigrate as _;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    Error,
    driver::Driver,
    history_table::{home, table},
    log,
    sql::{quote, quote_name},
};

/// Creates what is missing of the schema, and makes sure that this session works where earlier ones did.
/// Under the runner's lock.
pub(super) async fn prepare(conn: &mut PgConnection, schema: &str) -> Result<(), Error> {
    let (table, log, home) = (table(schema), log::table(schema), home(schema));
    let (create_table, create_log) = (Driver::assert_migrations_table_query(&table), log::create(schema));
    let (text, name) = (quote(schema), quote_name(schema));
    let (table_text, log_text) = (quote(&table), quote(&log));
    let sql = format!(
        "DO $coderdb$ DECLARE is_new boolean := to_regclass({log_text}) IS NULL; BEGIN \
         IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = {text}) THEN \
         CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO PUBLIC; END IF; \
         IF to_regclass({table_text}) IS NULL THEN {create_table} GRANT SELECT ON {table} TO PUBLIC; END IF; \
         IF is_new THEN {create_log}; END IF; \
         IF NOT EXISTS (SELECT FROM {log}) AND (is_new OR NOT EXISTS (SELECT FROM {table})) THEN \
         EXECUTE format('ALTER TABLE {log} ALTER schema SET DEFAULT %L::regnamespace::text', \
         quote_ident(current_schema())); \
         END IF; END $coderdb$; {home}"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await?;
    let (home, current): (Option<String>, Option<String>) = (row.try_get("home")?, row.try_get("current")?);
    if home.is_some() && home == current { Ok(()) } else { Err(Error::Elsewhere { home, current }) }
}
