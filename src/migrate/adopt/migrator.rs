//! The lock that Coder's own server takes while it migrates, so that the two never change the schema at once.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::batch;
use crate::migrate::{Error, MigrateOptions, observer::SESSION};

/// Takes it for the rest of the transaction, if it is free.
pub(in crate::migrate) const TRY: &str = "pg_try_advisory_xact_lock(1037453835920848937)";

/// The rows of `pg_locks AS m` that stand for it, whoever has it or waits for it.
pub(in crate::migrate) const LOCKS: &str = "m.locktype = 'advisory' AND m.classid = 241551044 AND m.objid = 1626191913 \
    AND m.objsubid = 1 AND m.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens a transaction that has the lock.
pub(super) async fn begin(conn: &mut PgConnection, options: &MigrateOptions) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        if options.stop.is_requested() {
            return Err(Error::Stopped);
        }
        batch(conn, "BEGIN").await?;
        let row = sqlx::raw_sql(AssertSqlSafe(format!("SELECT {TRY}"))).fetch_one(&mut *conn).await?;
        if row.try_get(0)? {
            return Ok(());
        }
        batch(conn, "ROLLBACK").await?;
        if start.elapsed() >= options.lock_retry_budget {
            return Err(Error::MigratorBusy { waited: start.elapsed(), holders: holders(conn).await? });
        }
        options.stop.sleep(PAUSE).await;
    }
}

/// Who has it, in words.
pub(in crate::migrate) async fn holders(conn: &mut PgConnection) -> Result<String, Error> {
    let holders = format!(
        "SELECT coalesce(string_agg({SESSION}, ', '), '') FROM pg_locks AS m INNER JOIN pg_stat_activity AS a ON a.pid = m.pid \
         WHERE m.granted AND {LOCKS}"
    );
    Ok(sqlx::raw_sql(AssertSqlSafe(holders)).fetch_one(conn).await?.try_get(0)?)
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
