//! One runner at a time: a session advisory lock, polled.

use std::{
    fmt,
    time::{Duration, Instant},
};

use sqlx::PgConnection;

use super::{Error, Event};

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
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({:?} from {})", self.pid, self.application_name, self.address)
    }
}

/// Polls: a session that blocks in `pg_advisory_lock` holds a snapshot, and the holder's concurrent index would wait
/// for that snapshot while it waits for the holder.
pub(super) async fn acquire(
    conn: &mut PgConnection,
    timeout: Duration,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let locked = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)")
            .persistent(false)
            .bind(KEY)
            .fetch_one(&mut *conn)
            .await?;
        if locked {
            break;
        }
        if pause >= Duration::from_secs(1) || start.elapsed() >= timeout {
            let holders = holders(conn).await?;
            if start.elapsed() >= timeout {
                return Err(Error::LockBusy { waited: start.elapsed(), holders });
            }
            on_event(Event::Waiting { holders: &holders });
        }
        tokio::time::sleep(pause.min(timeout.saturating_sub(start.elapsed()))).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    // A killed client's statement would otherwise keep the lock until it ends. Not every platform can do it.
    sqlx::raw_sql("DO $$ BEGIN SET client_connection_check_interval = '1s'; EXCEPTION WHEN OTHERS THEN NULL; END $$")
        .execute(&mut *conn)
        .await?;
    Ok(())
}

pub(super) async fn release(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_unlock($1)").persistent(false).bind(KEY).execute(conn).await?;
    Ok(())
}

/// Whether this very backend holds the lock: a transaction pooler may have moved the session to another one.
pub(super) async fn is_held(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND classid::bigint = $1 >> 32 AND objid::bigint = $1 & 4294967295 AND objsubid = 1)",
    )
    .persistent(false)
    .bind(KEY)
    .fetch_one(conn)
    .await
}

async fn holders(conn: &mut PgConnection) -> Result<Vec<Holder>, sqlx::Error> {
    sqlx::query_as(
        "SELECT a.pid, coalesce(a.application_name, '') AS application_name, \
         coalesce(host(a.client_addr), CASE a.client_port WHEN -1 THEN 'local' ELSE 'unknown' END) AS address \
         FROM pg_locks AS l INNER JOIN pg_stat_activity AS a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND l.classid::bigint = $1 >> 32 AND l.objid::bigint = $1 & 4294967295 AND l.objsubid = 1",
    )
    .persistent(false)
    .bind(KEY)
    .fetch_all(conn)
    .await
}
