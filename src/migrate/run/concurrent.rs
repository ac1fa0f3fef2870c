//! Indexes that are built or dropped beside their users.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Row};

use super::{AFTER_DEADLOCK, PROBE, Run, Work, is_lost, refused, run, setting};
use crate::migrate::{
    Error, Event, OlderTransactions, Progress,
    files::File,
    index::Index,
    migrator,
    observer::{AUTOVACUUM, PREPARED, SESSION, progressing},
    sql::{quote, sqlstate},
    statements::Statement,
};

/// How often the build of an index is restarted because another session waits for it.
const GIVE_WAY: usize = 20;

/// How often it reports the sessions that it waits for.
const TELL: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Builds or drops an index beside its users, unless that is done already.
    pub(super) async fn concurrently(
        &mut self,
        file: &File,
        number: usize,
        statement: &Statement<'_>,
    ) -> Result<(), Error> {
        let work =
            Work { file, sql: statement.text, at: statement.at, statement: Some(number), record: &|_| String::new() };
        let Some(index) = Index::of(statement) else {
            let statement = Some(number);
            return Err(Error::Unprovable { file: file.path.clone(), statement });
        };
        let timeout = file.statement_timeout.unwrap_or(self.options.statement_timeout).as_millis();
        self.set(&format!("statement_timeout = {timeout}")).await?;
        let built = self.patiently(&work, &index).await;
        let restored = sqlx::raw_sql(AssertSqlSafe(self.restore.clone())).execute(&mut *self.conn).await;
        built?;
        restored?;
        Ok(())
    }

    /// Restarts the build each time another session waits for it: that session may have written to the table before it
    /// alters it, and then each would wait for the other.
    async fn patiently(&mut self, work: &Work<'_>, index: &Index) -> Result<(), Error> {
        let start = Instant::now();
        for _ in 0..GIVE_WAY {
            if self.index(work, index).await? {
                return Ok(());
            }
        }
        let is_left = matches!(index.find(self.conn).await?, Some((_, false)));
        Err(no_index(work, index, start.elapsed(), format!("{GIVE_WAY} sessions that waited for it"), is_left))
    }

    async fn set(&mut self, setting: &str) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(format!("SET {setting}"))).execute(&mut *self.conn).await?;
        Ok(())
    }

    /// Builds or drops the index. Returns `false` if it was canceled because another session waited for it.
    async fn index(&mut self, work: &Work<'_>, index: &Index) -> Result<bool, Error> {
        let found = index.find(self.conn).await?;
        let is_done = match (&found, &index.table) {
            (None, None) | (Some((_, true)), Some(_)) => true,
            (Some((qualified, false)), Some(_)) => {
                // What a killed or failed build leaves behind; the name is taken, and nothing uses it.
                let drop = format!("DROP INDEX CONCURRENTLY {qualified}");
                if !self.alone(work, index, &drop, true).await? {
                    return Ok(false);
                }
                false
            }
            _ => false,
        };
        if !is_done && !self.alone(work, index, work.sql, index.table.is_none()).await? {
            return Ok(false);
        }
        match (index.find(self.conn).await?, &index.table) {
            (Some((_, true)), Some(_)) | (None, None) => Ok(true),
            _ => Err(Error::InvalidIndex { file: work.file.path.clone(), index: index.name.clone() }),
        }
    }

    /// Runs a statement outside a transaction and reports its progress. Returns `false` if it was canceled because
    /// another session waits for it. The statement waits for all older transactions; that wait is bounded here before
    /// it begins, and by `lock_timeout` for transactions that begin meanwhile.
    async fn alone(&mut self, work: &Work<'_>, index: &Index, sql: &str, drops: bool) -> Result<bool, Error> {
        let start = Instant::now();
        let version = work.file.migration.version();
        self.wait_for_older(work, index, drops).await?;
        let left =
            self.options.lock_retry_budget.saturating_sub(start.elapsed()).max(self.deadlock_timeout + AFTER_DEADLOCK);
        self.set(&format!("lock_timeout = {}", setting(left))).await?;
        let mut blockers = String::new();
        let Self { conn, options, observer, on_event, .. } = self;
        let say = |progress: Progress| {
            blockers.clone_from(&progress.blockers);
            on_event(Event::Building { version, progress: &progress });
        };
        let (gave_way, done) = progressing(observer, &options.stop, say, run(conn, sql)).await;
        let Err((completed, error)) = done else {
            if gave_way {
                // What cancels may come late.
                let _ = run(conn, "SELECT").await;
            }
            return Ok(true);
        };
        let state = sqlstate(&error).map(str::to_owned);
        if state.as_deref() == Some("57014") && self.options.stop.is_requested() {
            return Err(Error::Stopped);
        }
        if is_lost(&error) {
            return Err(refused(work, completed, error));
        }
        let is_left = self.clean_up(index, drops).await?;
        if gave_way && state.as_deref() == Some("57014") {
            return Ok(false);
        }
        if state.is_some_and(|state| ["55P03", "40P01"].contains(&state.as_str())) {
            return Err(no_index(work, index, start.elapsed(), blockers, is_left));
        }
        Err(refused(work, completed, error))
    }

    /// Waits for the older transactions before the statement begins. A build that is canceled leaves an invalid index,
    /// which cannot be dropped while another session has a lock on the table.
    async fn wait_for_older(&mut self, work: &Work<'_>, index: &Index, drops: bool) -> Result<(), Error> {
        let Some(table) = index.table(self.conn).await? else { return Ok(()) };
        let older = older(&table, drops);
        let (start, mut told) = (Instant::now(), None::<Instant>);
        let mut waited_for = None::<Vec<String>>;
        loop {
            if self.options.stop.is_requested() {
                return Err(Error::Stopped);
            }
            let rows = sqlx::raw_sql(AssertSqlSafe(older.as_str())).fetch_all(&mut *self.conn).await?;
            let now = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            let mut now = now.collect::<Result<Vec<(String, String)>, sqlx::Error>>()?;
            // Transactions that began later are not waited for: on a busy table there always is one.
            let first = waited_for.get_or_insert_with(|| now.iter().map(|(id, _)| id.clone()).collect());
            now.retain(|(id, _)| first.contains(id));
            if now.is_empty() {
                return Ok(());
            }
            let total = i64::try_from(first.len()).unwrap_or(i64::MAX);
            let done = total - i64::try_from(now.len()).unwrap_or(i64::MAX);
            let blockers = now.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(", ");
            if start.elapsed() >= self.options.lock_retry_budget {
                let is_left = matches!(index.find(self.conn).await?, Some((_, false)));
                return Err(no_index(work, index, start.elapsed(), blockers, is_left));
            }
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                let progress = Progress { phase: "waiting for older transactions".to_owned(), done, total, blockers };
                self.emit(Event::Building { version: work.file.migration.version(), progress: &progress });
                told = Some(Instant::now());
            }
            self.options.stop.sleep(PROBE).await;
        }
    }

    /// Drops the invalid index of a canceled build, unless another session has a lock on the table. Returns whether it
    /// is still there.
    async fn clean_up(&mut self, index: &Index, drops: bool) -> Result<bool, Error> {
        let Some((qualified, false)) = index.find(self.conn).await? else { return Ok(false) };
        if drops {
            return Ok(true);
        }
        self.set(&format!("lock_timeout = {}", setting(self.options.lock_timeout))).await?;
        Ok(run(self.conn, &format!("DROP INDEX CONCURRENTLY {qualified}")).await.is_err())
    }
}

fn no_index(work: &Work<'_>, index: &Index, waited: Duration, blockers: String, is_left: bool) -> Error {
    let (file, index) = (work.file.path.clone(), index.name.clone());
    Error::OlderTransactions(Box::new(OlderTransactions { file, index, waited, blockers, is_left }))
}

/// Who is there before an index is built, or dropped, and would be waited for: the identity of each transaction, and
/// who it is in words.
fn older(table: &str, drops: bool) -> String {
    let (modes, snapshots) = if drops {
        ("true", "false")
    } else {
        // Autovacuum steps aside, and builds of other indexes do not count.
        (
            "h.mode NOT IN ('AccessShareLock', 'RowShareLock')",
            "a.backend_xmin IS NOT NULL AND a.pid NOT IN (SELECT pid FROM pg_stat_progress_create_index \
             UNION ALL SELECT pid FROM pg_stat_progress_vacuum)",
        )
    };
    let (table, migrator) = (quote(table), migrator::LOCKS);
    let has_table = format!(
        "SELECT FROM pg_locks AS h WHERE h.virtualtransaction = l.virtualtransaction AND h.pid IS NOT DISTINCT FROM l.pid \
         AND h.granted AND h.relation = to_regclass({table}) AND h.database = d.oid AND {modes}"
    );
    format!(
        "SELECT l.virtualtransaction, {SESSION} FROM pg_stat_activity AS a \
         INNER JOIN pg_database AS d ON d.oid = a.datid AND d.datname = current_database() \
         INNER JOIN pg_locks AS l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted \
         WHERE a.pid <> pg_backend_pid() AND NOT {AUTOVACUUM} AND ({snapshots} OR EXISTS ({has_table})) \
         UNION ALL SELECT l.virtualtransaction, {PREPARED} FROM pg_prepared_xacts AS p \
         INNER JOIN pg_database AS d ON d.datname = p.database AND d.datname = current_database() \
         INNER JOIN pg_locks AS l ON l.transactionid = p.transaction AND l.locktype = 'transactionid' AND l.pid IS NULL \
         WHERE EXISTS ({has_table}) \
         UNION SELECT format('migrator %s', a.pid), format('Coder''s own migrator, %s', {SESSION}) FROM pg_locks AS m \
         INNER JOIN pg_stat_activity AS a ON a.pid = m.pid WHERE {migrator}"
    )
}
