//! The lock that Coder's own server takes while it migrates, so that the two never change the schema at once.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row};

use super::{Error, MigrateOptions, observer::SESSION, settings};

/// Takes it for the rest of the transaction, if it is free.
pub(super) const TRY: &str = "pg_try_advisory_xact_lock(1037453835920848937)";

/// The rows of `pg_locks AS m` for this lock, granted or not.
pub(super) const LOCKS: &str = "m.locktype = 'advisory' AND m.classid = 241551044 AND m.objid = 1626191913 \
    AND m.objsubid = 1 AND m.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(50);

/// The rows of `pg_locks AS m` for granted exclusive locks on these relations.
fn exclusive(relations: &str) -> String {
    format!(
        "m.locktype = 'relation' AND m.mode = 'AccessExclusiveLock' AND m.granted AND m.relation IN ({relations}) \
         AND m.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
}

/// Does something in a transaction that has the lock, once that and the table of Coder's versions are free.
pub(super) async fn holding<T>(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
) -> Result<T, Error> {
    let start = Instant::now();
    let is_locked = exclusive("to_regclass('schema_migrations')");
    let is_free = format!("SELECT {TRY} AND NOT EXISTS (SELECT FROM pg_locks AS m WHERE {is_locked})");
    loop {
        if options.stop.is_requested() {
            return Err(Error::Stopped);
        }
        let mut transaction = conn.begin().await?;
        let row = sqlx::raw_sql(AssertSqlSafe(is_free.as_str())).fetch_one(&mut *transaction).await?;
        if row.try_get(0)? {
            let done = work(&mut transaction).await;
            match done {
                Ok(_) => transaction.commit().await?,
                // The error says what happened, also where the session is lost.
                Err(_) => _ = transaction.rollback().await,
            }
            return done;
        }
        transaction.rollback().await?;
        if start.elapsed() >= options.lock_retry_budget {
            return Err(Error::MigratorBusy { waited: start.elapsed(), holders: holders(conn).await? });
        }
        options.stop.sleep(PAUSE).await;
    }
}

/// Who has it, or one of the tables for himself, in words.
pub(super) async fn holders(conn: &mut PgConnection) -> Result<String, Error> {
    let is_locked =
        exclusive("SELECT oid FROM pg_class WHERE relnamespace = quote_ident(current_schema())::regnamespace");
    let holders = format!(
        "SELECT coalesce(string_agg(DISTINCT {SESSION}, ', '), '') FROM pg_locks AS m \
         INNER JOIN pg_stat_activity AS a ON a.pid = m.pid WHERE m.granted AND {LOCKS} OR {is_locked}"
    );
    let rows = settings::read(conn, &holders).await?;
    Ok(rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_the_key_are_those_that_the_catalog_shows() {
        const KEY: i64 = 1_037_453_835_920_848_937;
        assert!(TRY.contains(&KEY.to_string()));
        for half in [format!("classid = {} ", KEY >> 32), format!("objid = {} ", KEY & 0xffff_ffff)] {
            assert!(LOCKS.contains(&half), "{half}");
        }
    }
}
