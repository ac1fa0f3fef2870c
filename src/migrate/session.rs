//! The session of the only runner.

use sqlx::{PgConnection, Row};

use super::{Error, Event, MigrateOptions, files::File, lock, rights, settings};

/// The oldest server that can be migrated: `pg_locks.waitstart` came with it.
const OLDEST_SERVER: i32 = 140_000;

/// Does something as the only runner, in a session with the settings that it needs.
pub(super) async fn alone<T, E: FnMut(Event<'_>) + Send>(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    files: &[&File],
    on_event: &mut E,
    work: impl AsyncFnOnce(&mut PgConnection, i32, &mut E) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut restore = settings::pin(conn).await?;
    let prepared = async {
        fit_to_migrate(conn, options.migrations.schema()).await?;
        rights::check(conn, options.migrations.schema(), files).await?;
        lock::acquire(conn, options, on_event).await
    }
    .await;
    let result = match prepared {
        Ok(pid) => {
            restore.insert_str(0, &lock::release());
            work(conn, pid, on_event).await
        }
        Err(error) => Err(error),
    };
    // A session that is lost has no lock any more, and what is done is done.
    if let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(restore)).execute(conn).await {
        tracing::warn!(name: "migrate.not_released", error = %error, "the session is lost, and its lock with it");
    }
    result
}

/// Whether anything can be written there, before a lock is waited for.
async fn fit_to_migrate(conn: &mut PgConnection, of_history: &str) -> Result<(), Error> {
    let server = "SELECT current_setting('server_version_num')::integer, current_setting('server_version'), \
                  pg_is_in_recovery(), current_setting('transaction_read_only')::boolean, \
                  coalesce(current_schema(), ''), current_setting('search_path')";
    let row = sqlx::raw_sql(server).fetch_one(conn).await?;
    let (number, name): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let (schema, path): (String, String) = (row.try_get(4)?, row.try_get(5)?);
    let reason = if number < OLDEST_SERVER {
        format!("the server is PostgreSQL {name}; migrations need 14 or newer")
    } else if row.try_get(2)? {
        "the server is a standby; migrate on the primary".to_owned()
    } else if row.try_get(3)? {
        "the session may only read: default_transaction_read_only is on".to_owned()
    } else if schema.is_empty() {
        format!("no schema has been selected to create in: none of the search_path is there ({path})")
    } else if schema == "coderdb" || schema == of_history || schema.starts_with("pg_") {
        format!("the session would create in the schema {schema}, which is not for that: the search_path is {path}")
    } else {
        return Ok(());
    };
    Err(Error::Unfit { reason })
}
