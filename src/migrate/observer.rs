//! A second connection that observes, while a migration runs, which sessions it waits for and which it delays.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::time::sleep;

use super::{MigrateOptions, Progress, Stop, settings};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(20);

/// So long before the budget is used up, a wait is given up: a look and a cancel take a moment.
const MARGIN: Duration = Duration::from_millis(60);

/// Whether a session is an autovacuum. What it is, the server hides from a role that may not see it; that it belongs to
/// no role, it does not hide, and no other process without one holds tables.
pub(super) const AUTOVACUUM: &str = "coalesce(a.backend_type = 'autovacuum worker', a.usesysid IS NULL)";

/// A session in words, with what the server shows this role of it.
pub(super) const SESSION: &str = "format('pid %s (%s)', a.pid, CASE \
    WHEN a.backend_type IS NOT NULL THEN concat_ws(', ', \
        concat_ws(' ', a.backend_type, CASE WHEN a.application_name <> '' THEN quote_literal(a.application_name) END), \
        format('%s for %s s', coalesce(a.state, 'at work'), \
            extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.backend_start))::bigint)) \
    WHEN a.usesysid IS NULL THEN 'autovacuum worker' \
    ELSE concat_ws(' ', CASE WHEN a.application_name <> '' THEN quote_literal(a.application_name) END, format('of the role %I, whose state is hidden from %I', \
        a.usename, current_user)) END)";

/// A prepared transaction in words.
pub(super) const PREPARED: &str = "format('the prepared transaction %L of the role %I, for %s s', p.gid, p.owner, \
    extract(epoch FROM clock_timestamp() - p.prepared)::bigint)";

/// What was seen of one attempt.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The table locks that it waited for, each as `LOCK TABLE` takes it: the table and the mode.
    pub(super) waited_for: Vec<(String, String)>,
    /// Who held it up, the last time it waited.
    pub(super) blockers: String,
    /// Whether that was nothing but autovacuum.
    pub(super) only_autovacuum: bool,
    /// The longest delay that it caused to another session.
    pub(super) delay: Duration,
    /// Whether it was canceled, because it waited and others waited for it for too long.
    pub(super) gave_way: GaveWay,
    /// Whether it was canceled because the run should stop.
    pub(super) was_stopped: bool,
}

/// Whether a wait was canceled for the sake of others. One before counts, too: the server may cancel late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum GaveWay {
    #[default]
    Never,
    Before,
    Now,
}

impl Seen {
    /// For the next attempt.
    pub(super) fn begin_again(&mut self) {
        if self.gave_way == GaveWay::Now {
            self.gave_way = GaveWay::Before;
        }
    }
}

/// The second connection, and the server process that it observes.
pub(super) struct Observer {
    conn: PgConnection,
    pid: i32,
}

impl Observer {
    /// Looks at the backend; `None` where there can be no second connection.
    pub(super) async fn of(pid: i32, options: &MigrateOptions) -> Option<Self> {
        let observer = options.observer.as_ref()?;
        let connect = async {
            let mut conn = observer.connect().await?;
            settings::pin(&mut conn).await?;
            // Only as the role that has logged in can it see and cancel what that role does.
            sqlx::raw_sql("SET ROLE NONE").execute(&mut conn).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(conn)
        };
        match connect.await {
            Ok(conn) => Some(Self { conn, pid }),
            Err(error) => {
                tracing::warn!(name: "migrate.no_observer", error = %error, "no second connection: delays are not seen");
                None
            }
        }
    }

    async fn look(&mut self) -> Result<Look, sqlx::Error> {
        let pid = self.pid;
        let look = format!(
            "SELECT l.relation::regclass::text, regexp_replace(upper(regexp_replace(l.mode, '([a-z])([A-Z])', '\\1 \\2', 'g')), \
             ' LOCK$', ''), c.relkind IN ('r', 'p', 'v', 'f'), l.pid IS NOT NULL, \
             nullif(concat_ws(', ', \
                 (SELECT string_agg({SESSION}, ', ') FROM pg_stat_activity AS a WHERE a.pid = ANY (b.pids)), \
                 (SELECT string_agg({PREPARED}, ', ') FROM pg_prepared_xacts AS p \
                  WHERE 0 = ANY (b.pids) AND p.database = current_database() AND (p.transaction = l.transactionid OR EXISTS \
                  (SELECT FROM pg_locks AS h INNER JOIN pg_locks AS x ON x.virtualtransaction = h.virtualtransaction AND x.pid IS NULL \
                  WHERE h.pid IS NULL AND h.relation = l.relation AND x.transactionid = p.transaction)))), ''), \
             (SELECT bool_and({AUTOVACUUM}) FROM pg_stat_activity AS a WHERE a.pid = ANY (b.pids)) AND 0 <> ALL (b.pids), \
             (SELECT max(extract(epoch FROM clock_timestamp() - w.waitstart))::float8 \
              FROM pg_locks AS w WHERE NOT w.granted AND w.pid <> {pid} AND {pid} = ANY (pg_blocking_pids(w.pid))) \
             FROM (SELECT pg_blocking_pids({pid}) AS pids) AS b \
             LEFT JOIN pg_locks AS l ON l.pid = {pid} AND NOT l.granted \
             LEFT JOIN pg_class AS c ON c.oid = l.relation"
        );
        let row = sqlx::raw_sql(AssertSqlSafe(look)).fetch_one(&mut self.conn).await?;
        let (relation, mode): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let is_table: Option<bool> = row.try_get(2)?;
        Ok(Look {
            waits_for: relation.zip(mode).filter(|_| is_table == Some(true)),
            waits: row.try_get(3)?,
            blockers: row.try_get(4)?,
            only_autovacuum: row.try_get::<Option<bool>, _>(5)?.unwrap_or_default(),
            delay: Duration::from_secs_f64(row.try_get::<Option<f64>, _>(6)?.unwrap_or_default().max(0.0)),
        })
    }

    async fn cancel(&mut self) -> Result<(), sqlx::Error> {
        let cancel = format!("SELECT pg_cancel_backend({})", self.pid);
        sqlx::raw_sql(AssertSqlSafe(cancel)).execute(&mut self.conn).await.map(drop)
    }

    /// Polls the locks of the process. Cancels its wait for a lock before another session is delayed by more than the
    /// budget, and its statement when the run is stopped. Returns when the second connection is lost.
    async fn observe(&mut self, seen: &mut Seen, budget: Option<Duration>, stop: &Stop) -> Result<(), sqlx::Error> {
        loop {
            tokio::select! {
                () = stop.canceled(), if !seen.was_stopped => {
                    seen.was_stopped = true;
                    self.cancel().await?;
                }
                () = sleep(LOOK) => {}
            }
            let look = self.look().await?;
            seen.delay = seen.delay.max(look.delay);
            if let Some(waits_for) = look.waits_for
                && !seen.waited_for.contains(&waits_for)
            {
                seen.waited_for.push(waits_for);
            }
            if let Some(blockers) = look.blockers {
                seen.blockers = blockers;
                seen.only_autovacuum = look.only_autovacuum;
            }
            if look.waits && seen.gave_way != GaveWay::Now && budget.is_some_and(|budget| look.delay + MARGIN > budget)
            {
                seen.gave_way = GaveWay::Now;
                self.cancel().await?;
            }
        }
    }

    /// Whether another session waits for a lock of the process.
    async fn is_waited_for(&mut self) -> Result<bool, sqlx::Error> {
        let pid = self.pid;
        let waits = format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> {pid} AND {pid} = ANY (pg_blocking_pids(pid)))"
        );
        sqlx::raw_sql(AssertSqlSafe(waits)).fetch_one(&mut self.conn).await?.try_get(0)
    }

    /// The progress of the index that the process builds, or the sessions that it waits for.
    async fn progress(&mut self) -> Result<Option<Progress>, sqlx::Error> {
        let look = self.look().await?;
        let progress = format!(
            "SELECT phase, CASE WHEN blocks_total > 0 THEN blocks_done ELSE lockers_done END, \
             CASE WHEN blocks_total > 0 THEN blocks_total ELSE lockers_total END \
             FROM pg_stat_progress_create_index WHERE pid = {}",
            self.pid
        );
        let row = sqlx::raw_sql(AssertSqlSafe(progress)).fetch_optional(&mut self.conn).await?;
        let blockers = look.blockers.unwrap_or_default();
        Ok(match row {
            Some(row) => {
                Some(Progress { phase: row.try_get(0)?, done: row.try_get(1)?, total: row.try_get(2)?, blockers })
            }
            // DROP INDEX CONCURRENTLY reports no progress.
            None if look.waits => {
                Some(Progress { phase: "waiting for older transactions".to_owned(), done: 0, total: 0, blockers })
            }
            None => None,
        })
    }
}

struct Look {
    waits_for: Option<(String, String)>,
    waits: bool,
    blockers: Option<String>,
    only_autovacuum: bool,
    delay: Duration,
}

/// Does the work while the observer polls, if there is one. If the observer fails, the work continues without it.
pub(super) async fn observed<T>(
    observer: &mut Option<Observer>,
    seen: &mut Seen,
    budget: Option<Duration>,
    stop: &Stop,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    if let Some(looking) = observer {
        tokio::select! {
            biased;
            done = &mut work => return done,
            broken = looking.observe(seen, budget, stop) => {
                if let Err(error) = broken {
                    tracing::warn!(name: "migrate.observer_lost", error = %error, "delays are not seen any more");
                }
            }
        }
        *observer = None;
    }
    work.await
}

/// Does the work while the observer reports its progress. Returns whether it was canceled because another session waits
/// for it: each could otherwise wait for the other.
pub(super) async fn progressing<T>(
    observer: &mut Option<Observer>,
    stop: &Stop,
    mut say: impl FnMut(Progress),
    work: impl Future<Output = T>,
) -> (bool, T) {
    let mut gave_way = false;
    tokio::pin!(work);
    if let Some(looking) = observer {
        let mut was_stopped = false;
        let mut told = Instant::now();
        let look = async {
            loop {
                tokio::select! {
                    () = stop.canceled(), if !was_stopped => {
                        was_stopped = true;
                        looking.cancel().await?;
                    }
                    () = sleep(LOOK) => {}
                }
                if !gave_way && looking.is_waited_for().await? {
                    gave_way = true;
                    looking.cancel().await?;
                }
                if told.elapsed() >= Duration::from_secs(1) {
                    told = Instant::now();
                    if let Some(progress) = looking.progress().await? {
                        say(progress);
                    }
                }
            }
        };
        let ended: Result<T, Result<(), sqlx::Error>> = tokio::select! {
            biased;
            done = &mut work => Ok(done),
            broken = look => Err(broken),
        };
        match ended {
            Ok(done) => return (gave_way, done),
            Err(Err(error)) => {
                tracing::warn!(name: "migrate.observer_lost", error = %error, "progress is not seen any more");
            }
            Err(Ok(())) => {}
        }
        *observer = None;
    }
    (gave_way, work.await)
}
