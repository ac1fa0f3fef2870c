//! Mending the history by hand, each time with a row in the log.

use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Error, Event, MigrateOptions, State, history_table, log, prepare,
    session::alone,
    sql::{quote, sqlstate},
    status_of,
};

/// Takes the file of a migration for what was applied, though it had another name or content then. Returns what was
/// repaired: its version and name.
///
/// # Errors
/// [`Error::UnknownTarget`]; otherwise as [`up`](super::up()).
pub async fn accept(conn: &mut PgConnection, options: &MigrateOptions, version: i64) -> Result<Vec<String>, Error> {
    repair(conn, options, async |conn| {
        let file = options.migrations.get(version).ok_or_else(|| unknown(options, version))?;
        let status = status_of(conn, &options.migrations).await?;
        if !status.migrations.iter().any(|entry| entry.version == version && entry.state == State::Changed) {
            return Ok(Vec::new());
        }
        let (name, checksum) = (file.migration.name(), file.migration.checksum());
        let row = log::New { action: "accepted", checksum: Some(checksum), ..new(options, version, name) };
        let sql = format!(
            "BEGIN; UPDATE {} SET name = {}, checksum = '{checksum}' WHERE version = {version}; {}; COMMIT",
            history_table::table(options.migrations.schema()),
            quote(name),
            row.sql()
        );
        batch(conn, &sql).await?;
        Ok(vec![format!("V{version:04}__{name}")])
    })
    .await
}

/// Records the migrations up to this version as applied without running them. Returns what was repaired: their versions
/// and names.
///
/// # Errors
/// [`Error::UnknownTarget`]; otherwise as [`up`](super::up()).
pub async fn mark_applied(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    version: i64,
) -> Result<Vec<String>, Error> {
    repair(conn, options, async |conn| {
        options.migrations.get(version).ok_or_else(|| unknown(options, version))?;
        let status = status_of(conn, &options.migrations).await?;
        let missing = status
            .migrations
            .iter()
            .filter(|entry| entry.version <= version && matches!(entry.state, State::Pending | State::Skipped));
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let (mut statements, mut marked) = (vec!["BEGIN".to_owned()], Vec::new());
        for file in missing.filter_map(|entry| options.migrations.get(entry.version)) {
            let (version, name) = (file.migration.version(), file.migration.name());
            let checksum = file.migration.checksum();
            let row = log::New { action: "marked", checksum: Some(checksum), ..new(options, version, name) };
            statements.push(format!(
                "INSERT INTO {} (version, name, applied_on, checksum) VALUES ({version}, {}, '{now}', '{checksum}'); {}",
                history_table::table(options.migrations.schema()),
                quote(name),
                row.sql()
            ));
            marked.push(format!("V{version:04}__{name}"));
        }
        statements.push("COMMIT".to_owned());
        batch(conn, &statements.join("; ")).await?;
        Ok(marked)
    })
    .await
}

/// Drops the indexes of the schema that are not valid: what a killed or failed build has left. Returns their names.
///
/// # Errors
/// As [`up`](super::up()).
pub async fn drop_invalid_indexes(conn: &mut PgConnection, options: &MigrateOptions) -> Result<Vec<String>, Error> {
    repair(conn, options, async |conn| {
        let invalid = "SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text FROM pg_index AS i INNER JOIN pg_class AS c ON c.oid = i.indexrelid \
                       WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = quote_ident(current_schema())::regnamespace \
                       ORDER BY 1";
        let mut dropped = Vec::new();
        for row in sqlx::raw_sql(invalid).fetch_all(&mut *conn).await? {
            let (index, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            // A session that builds the index holds this lock until the build ends; its progress may be hidden from
            // this role.
            let look = format!(
                "BEGIN; SET LOCAL lock_timeout = {}; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE; \
                 SELECT FROM pg_index WHERE indexrelid = to_regclass({}) AND NOT indisvalid; COMMIT",
                options.lock_timeout.as_millis().max(1),
                quote(&index)
            );
            match rows(conn, &look).await {
                Ok(found) if !found.is_empty() => {}
                Ok(_) => continue,
                Err(Error::Sql(error)) if sqlstate(&error) == Some("55P03") => continue,
                Err(error) => return Err(error),
            }
            batch(conn, &format!("DROP INDEX CONCURRENTLY {index}")).await?;
            let row = log::New { action: "dropped", version: None, ..new(options, 0, &index) };
            batch(conn, &row.sql()).await?;
            dropped.push(index);
        }
        Ok(dropped)
    })
    .await
}

/// Under the runner's lock, with the tables that the repair writes.
async fn repair(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<Vec<String>, Error>,
) -> Result<Vec<String>, Error> {
    // Before anything is created.
    status_of(conn, &options.migrations).await?;
    alone(conn, options, &[], &mut |_: Event<'_>| {}, async |conn, _, _| {
        prepare::prepare(conn, options.migrations.schema()).await?;
        work(conn).await
    })
    .await
}

async fn batch(conn: &mut PgConnection, sql: &str) -> Result<(), Error> {
    rows(conn, sql).await.map(drop)
}

async fn rows(conn: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *conn).await;
    if done.is_err() {
        // Whatever was begun; without a transaction, a warning.
        let _ = sqlx::raw_sql("ROLLBACK").execute(conn).await;
    }
    Ok(done?)
}

fn new<'a>(options: &'a MigrateOptions, version: i64, name: &'a str) -> log::New<'a> {
    log::New {
        schema: Some(options.migrations.schema()),
        version: Some(version),
        name,
        host: options.host.as_deref(),
        ..log::New::default()
    }
}

fn unknown(options: &MigrateOptions, target: i64) -> Error {
    Error::UnknownTarget { target, newest: options.migrations.newest() }
}
