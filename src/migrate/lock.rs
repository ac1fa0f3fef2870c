//! One runner at a time: a session advisory lock, polled.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher as _, Hasher as _},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, FromRow as _, PgConnection, Row};

use super::{Error, Event, MigrateOptions};

/// Any number that other programs are unlikely to choose; advisory locks are per database. ASCII for `coderdb`.
const KEY: i64 = 0x0063_6f64_6572_6462;

/// The backend that holds the runner's lock.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Holder {
    /// Its process id on the server.
    pub pid: i32,
    /// What it calls itself; empty if it does not say.
    pub application_name: String,
    /// Where it comes from; `local` for a unix socket, `unknown` when the server does not tell this role.
    pub address: String,
    /// For how many seconds it is connected; `None` when the server does not tell this role.
    pub seconds: Option<i64>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({:?} from {}", self.pid, self.application_name, self.address)?;
        match self.seconds {
            Some(seconds) => write!(f, ", connected for {seconds} s)"),
            None => f.write_str(")"),
        }
    }
}

/// Whether this very backend holds the lock.
const IS_HELD: &str = "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted \
    AND pid = pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND classid = 6516580 AND objid = 1701995618 AND objsubid = 1)";

/// From one try to the next, at most: a runner that was killed is replaced within two seconds.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it reports the sessions that it waits for.
const TELL: Duration = Duration::from_secs(3);

/// Polls: a session that blocks in `pg_advisory_lock` holds a snapshot, and the holder's concurrent index would wait
/// for that snapshot while it waits for the holder.
///
/// Returns the process of the server that has it.
pub(super) async fn acquire(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<i32, Error> {
    let start = Instant::now();
    let timeout = options.runner_lock_timeout;
    let (mut pause, mut told) = (Duration::from_millis(20), None::<Instant>);
    let pid = loop {
        if options.stop.is_requested() {
            return Err(Error::Stopped);
        }
        // A session may take it twice. One that has it already is lent to another runner, too.
        let try_lock =
            format!("SELECT CASE WHEN {IS_HELD} THEN NULL ELSE pg_try_advisory_lock({KEY}) END, pg_backend_pid()");
        let row = sqlx::raw_sql(AssertSqlSafe(try_lock)).fetch_one(&mut *conn).await?;
        match row.try_get(0)? {
            Some(true) => break row.try_get(1)?,
            Some(false) => {}
            None => return Err(Error::SessionShared),
        }
        let is_late = start.elapsed() >= timeout;
        if is_late || told.map_or(start.elapsed() >= PAUSE, |told| told.elapsed() >= TELL) {
            let holders = holders(conn).await?;
            if is_late {
                return Err(Error::LockBusy { waited: start.elapsed(), holders });
            }
            on_event(Event::Waiting { holders: &holders });
            told = Some(Instant::now());
        }
        // Many runners that start together should not go on asking together.
        let jitter = RandomState::new().build_hasher().finish() % 100;
        let jittered = pause * u32::try_from(50 + jitter).unwrap_or(100) / 100;
        options.stop.sleep(jittered.min(timeout.saturating_sub(start.elapsed()))).await;
        pause = (pause * 2).min(PAUSE);
    };
    // A killed client's statement would otherwise keep the lock until it ends. Not every platform can do it.
    sqlx::raw_sql("DO $$ BEGIN SET client_connection_check_interval = '1s'; EXCEPTION WHEN OTHERS THEN NULL; END $$")
        .execute(&mut *conn)
        .await?;
    Ok(pid)
}

/// What gives the lock back.
pub(super) fn release() -> String {
    format!("SELECT pg_advisory_unlock({KEY}); ")
}

/// Whether the lock is still held, to be asked together with something else; for [`held`].
pub(super) fn ask(pid: i32) -> String {
    format!("CASE WHEN pg_backend_pid() <> {pid} THEN 'moved' WHEN {IS_HELD} THEN 'held' ELSE 'released' END")
}

/// What the answer to that means. A transaction pooler may have moved the session to another process.
pub(super) fn held(answer: &str) -> Result<(), Error> {
    match answer {
        "held" => Ok(()),
        "moved" => Err(Error::SessionLost),
        _ => Err(Error::LockReleased),
    }
}

pub(super) async fn is_held(conn: &mut PgConnection, pid: i32) -> Result<(), Error> {
    let ask = format!("SELECT {}", ask(pid));
    held(sqlx::raw_sql(AssertSqlSafe(ask)).fetch_one(conn).await?.try_get(0)?)
}

async fn holders(conn: &mut PgConnection) -> Result<Vec<Holder>, sqlx::Error> {
    // One message of the simple protocol, which a transaction pooler cannot tear apart.
    let rows = sqlx::raw_sql(
        "SELECT a.pid, coalesce(a.application_name, '') AS application_name, \
         coalesce(host(a.client_addr), CASE a.client_port WHEN -1 THEN 'local' ELSE 'unknown' END) AS address, \
         extract(epoch FROM clock_timestamp() - a.backend_start)::bigint AS seconds \
         FROM pg_locks AS l INNER JOIN pg_stat_activity AS a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND l.classid = 6516580 AND l.objid = 1701995618 AND l.objsubid = 1",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(Holder::from_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_the_key_are_those_that_the_catalog_shows() {
        assert_eq!((KEY >> 32, KEY & 0xffff_ffff), (6_516_580, 1_701_995_618));
    }
}
