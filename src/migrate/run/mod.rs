//! Running one migration: in a transaction with its history row, or statement by statement with a journal.

mod concurrent;
mod outcome;
mod refused;

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use refinery::Migration;
use sqlx::{AssertSqlSafe, Either, PgConnection, Row};

use super::{
    Applied, Error, Event, Lost, MigrateOptions, NoTableLock,
    files::File,
    index::is_concurrent,
    lock, log, migrator,
    observer::{GaveWay, Observer, Seen, observed},
    settings,
    sql::sqlstate,
};
use outcome::outcome;
use refused::refused;

/// How often it is tried to lock a table with NOWAIT, which delays no other session.
const PROBE: Duration = Duration::from_millis(50);

/// After so many tries, one attempt queues for the lock, because a busy table may never be free.
const PROBES: u32 = 100;

/// The first attempt waits no longer: the observer has seen by then which table it needs.
const FIRST: Duration = Duration::from_millis(100);

/// An attempt that waits for so long after `deadlock_timeout` makes an autovacuum step aside.
const AFTER_DEADLOCK: Duration = Duration::from_millis(200);

type OnEvent<'a> = &'a mut (dyn FnMut(Event<'_>) + Send);

/// The session that migrates.
pub(super) struct Run<'a> {
    pub(super) conn: &'a mut PgConnection,
    /// The process of the server that has the runner's lock.
    pid: i32,
    options: &'a MigrateOptions,
    on_event: OnEvent<'a>,
    observer: Option<Observer>,
    deadlock_timeout: Duration,
    /// Puts the settings of the session back to what they were: a migration may have changed them.
    restore: String,
}

/// What is done in one transaction: all of a migration, or one statement of it.
struct Work<'w> {
    file: &'w File,
    sql: &'w str,
    /// Where that begins in the file, in bytes; and which statement it is, if it is one.
    at: usize,
    statement: Option<usize>,
    /// What records it, with what was seen of it.
    record: &'w (dyn Fn(&Seen) -> String + Sync),
}

/// Why an attempt failed.
enum Failure {
    /// Another session has a lock on the table.
    Occupied,
    /// The server refused a statement: how many of the work it had done before.
    Refused(usize, sqlx::Error),
    /// What is not part of the migration failed.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// How an attempt gets at the tables that those before it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Approach {
    /// Looks whether they are free.
    Probe,
    /// Queues for them.
    Queue,
}

impl<'a> Run<'a> {
    pub(super) async fn new(
        conn: &'a mut PgConnection,
        pid: i32,
        options: &'a MigrateOptions,
        on_event: OnEvent<'a>,
    ) -> Result<Self, Error> {
        let restore = settings::restore(conn).await?;
        let deadlock_timeout = "SELECT setting::bigint FROM pg_settings WHERE name = 'deadlock_timeout'";
        let milliseconds: i64 = sqlx::raw_sql(deadlock_timeout).fetch_one(&mut *conn).await?.try_get(0)?;
        // Who has no time for that does not wait for it.
        let deadlock_timeout = Duration::from_millis(milliseconds.unsigned_abs()).min(options.lock_retry_budget);
        let observer = Observer::of(pid, options).await;
        Ok(Self { conn, pid, options, on_event, observer, deadlock_timeout, restore })
    }

    pub(super) fn emit(&mut self, event: Event<'_>) {
        (self.on_event)(event);
    }

    /// Runs the migration, and records it.
    pub(super) async fn apply(&mut self, file: &File, record: &str) -> Result<Applied, Error> {
        if self.options.stop.is_requested() {
            return Err(Error::Stopped);
        }
        let start = Instant::now();
        let (version, name) = (file.migration.version(), file.migration.name());
        self.emit(Event::Started { version, name });
        tracing::info!(name: "migrate.started", version, migration = name, "a migration begins");
        let mut seen = Seen::default();
        let (mut sql, mut last) = (file.sql(), String::new());
        if file.is_stepwise {
            last = self.stepwise(file, &mut seen).await?;
            sql = "";
        }
        let (is_observed, options) = (self.observer.is_some(), self.options);
        let record = move |seen: &Seen| {
            let row = log::New {
                schema: Some(options.migrations.schema()),
                action: "applied",
                version: Some(version),
                name,
                milliseconds: Some(millis(start.elapsed())),
                delay_milliseconds: is_observed.then(|| millis(seen.delay)),
                host: options.host.as_deref(),
                ..log::New::default()
            };
            format!("{last}{record}; {}", row.sql())
        };
        self.transaction(&Work { file, sql, at: 0, statement: None, record: &record }, &mut seen).await?;
        let applied = Applied {
            version,
            name: name.to_owned(),
            milliseconds: millis(start.elapsed()),
            delay_milliseconds: self.observer.is_some().then(|| millis(seen.delay)),
        };
        tracing::info!(
            name: "migrate.applied",
            version,
            migration = name,
            milliseconds = applied.milliseconds,
            delay_milliseconds = applied.delay_milliseconds,
            "a migration is applied"
        );
        Ok(applied)
    }

    /// The work and its record, together or not at all; again, as long as it fails only for want of a lock.
    async fn transaction(&mut self, work: &Work<'_>, seen: &mut Seen) -> Result<(), Error> {
        let start = Instant::now();
        let version = work.file.migration.version();
        let (mut attempt, mut probes) = (1, 0);
        loop {
            if self.options.stop.is_requested() {
                return Err(Error::Stopped);
            }
            let lock_timeout = self.attempt_timeout(work.file, seen);
            let approach = if seen.waited_for.is_empty() || seen.only_autovacuum || probes >= PROBES {
                probes = 0;
                Approach::Queue
            } else {
                Approach::Probe
            };
            let (completed, error) = match self.attempt(work, approach, lock_timeout, seen).await {
                Ok(()) => return Ok(()),
                Err(Failure::Broken(error)) => return Err(error),
                Err(Failure::Occupied) => {
                    probes += 1;
                    if start.elapsed() >= self.options.lock_retry_budget {
                        return Err(self.no_lock(work, attempt, seen, None));
                    }
                    self.options.stop.sleep(PROBE).await;
                    continue;
                }
                Err(Failure::Refused(completed, error)) => (completed, error),
            };
            let state = sqlstate(&error);
            if state == Some("57014") && (seen.was_stopped || self.options.stop.is_requested()) {
                return Err(Error::Stopped);
            }
            let lost_a_race = state.is_some_and(|state| ["55P03", "40P01", "40001"].contains(&state))
                || (state == Some("57014") && seen.gave_way != GaveWay::Never);
            if !lost_a_race {
                return Err(refused(work, completed, error));
            }
            if start.elapsed() >= self.options.lock_retry_budget {
                return Err(self.no_lock(work, attempt, seen, Some(error)));
            }
            self.emit(Event::Retrying { version, attempt, blockers: &seen.blockers });
            tracing::info!(name: "migrate.retrying", version, attempt, blockers = seen.blockers, "no table lock yet");
            attempt += 1;
            if seen.waited_for.is_empty() {
                // Without an observer, the table that it waits for is not known.
                let pause = Duration::from_millis(100) * 2_u32.pow(attempt.min(5));
                self.options.stop.sleep(pause).await;
            }
        }
    }

    /// How long an attempt may wait for a lock.
    fn attempt_timeout(&self, file: &File, seen: &Seen) -> Duration {
        let longest = file.lock_timeout.unwrap_or(self.options.lock_timeout);
        if seen.only_autovacuum {
            return longest.max(self.deadlock_timeout + AFTER_DEADLOCK);
        }
        let lock_timeout = self.options.max_stall.map_or(longest, |budget| budget.min(longest));
        let is_first = seen.waited_for.is_empty() && self.observer.is_some();
        if is_first { lock_timeout.min(FIRST) } else { lock_timeout }
    }

    fn no_lock(&self, work: &Work<'_>, attempts: u32, seen: &Seen, source: Option<sqlx::Error>) -> Error {
        let tables: Vec<_> = seen.waited_for.iter().map(|(table, _)| table.clone()).collect();
        Error::TableLock(Box::new(NoTableLock {
            file: work.file.path.clone(),
            waited: self.options.lock_retry_budget,
            attempts,
            tables,
            blockers: seen.blockers.clone(),
            source,
        }))
    }

    async fn attempt(
        &mut self,
        work: &Work<'_>,
        approach: Approach,
        lock_timeout: Duration,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        let Self { conn, pid, options, observer, restore, .. } = self;
        seen.begin_again();
        let statement_timeout = work.file.statement_timeout.unwrap_or(options.statement_timeout);
        let opening =
            begin(approach, lock_timeout, options.max_stall, statement_timeout, &seen.waited_for, &lock::ask(*pid));
        let budget = options.max_stall.filter(|_| !seen.only_autovacuum);
        let open = async {
            let row = sqlx::raw_sql(AssertSqlSafe(opening)).fetch_all(&mut **conn).await?;
            let row = row.last().ok_or(sqlx::Error::RowNotFound)?;
            Ok::<(String, String, String), sqlx::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let opened = observed(observer, seen, budget, &options.stop, open).await;
        let (locked, transaction, held) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                roll_back(conn).await?;
                return Err(if is_lost(&error) { Failure::Broken(error.into()) } else { Failure::Refused(0, error) });
            }
        };
        if let Err(error) = lock::held(&held) {
            roll_back(conn).await?;
            return Err(Failure::Broken(error));
        }
        if locked != "true" {
            roll_back(conn).await?;
            if locked == "migrating" {
                seen.blockers = format!("Coder's own migrator, {}", migrator::holders(conn).await?);
            }
            return Err(Failure::Occupied);
        }
        let ran = observed(observer, seen, budget, &options.stop, run(conn, work.sql)).await;
        if let Err((completed, error)) = ran {
            if is_lost(&error) {
                return Err(Failure::Broken(error.into()));
            }
            roll_back(conn).await?;
            return Err(Failure::Refused(completed, error));
        }
        // A migration that failed has left its settings behind with its transaction.
        let record = format!("{restore}; {}", (work.record)(seen));
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(record)).execute(&mut **conn).await {
            if is_lost(&error) {
                return Err(Failure::Broken(error.into()));
            }
            roll_back(conn).await?;
            let is_ours = sqlstate(&error) == Some("57014");
            return Err(if is_ours { Failure::Refused(0, error) } else { Failure::Broken(error.into()) });
        }
        match sqlx::raw_sql("COMMIT").execute(&mut **conn).await {
            Ok(_) => Ok(()),
            Err(error) if is_lost(&error) => {
                let outcome = outcome(options, &transaction).await;
                let lost = Lost { file: work.file.path.clone(), statement: work.statement, outcome, source: error };
                Err(Failure::Broken(Error::LostCommit(Box::new(lost))))
            }
            // A constraint that is checked last.
            Err(error) => Err(Failure::Refused(usize::MAX, error)),
        }
    }

    /// What cannot share a transaction with its history row: statement by statement. Each is recorded with its own
    /// transaction, or proves from the catalog that it is done, so that another run continues after the last one.
    ///
    /// Returns what is left to be recorded with the migration: the last statement, if it had no transaction.
    async fn stepwise(&mut self, file: &File, seen: &mut Seen) -> Result<String, Error> {
        let version = file.migration.version();
        let journal = log::statements(self.conn, self.options.migrations.schema(), version).await?;
        let statements = file.statements();
        for (number, statement) in (1..).zip(&statements) {
            if self.options.stop.is_requested() {
                return Err(Error::Stopped);
            }
            let checksum = checksum(statement.text);
            match journal.iter().find(|(done, _)| *done == number) {
                Some((_, done)) if *done != checksum => {
                    return Err(Error::EditedMidway { file: file.path.clone(), statement: number });
                }
                // Also an index: what comes after it may have renamed or dropped it.
                Some(_) => continue,
                None => {}
            }
            let row = log::New {
                schema: Some(self.options.migrations.schema()),
                action: "statement",
                version: Some(version),
                name: file.migration.name(),
                statement: Some(number),
                checksum: Some(checksum),
                host: self.options.host.as_deref(),
                ..log::New::default()
            };
            if is_concurrent(statement) {
                lock::is_held(self.conn, self.pid).await?;
                self.concurrently(file, number, statement).await?;
                if number == statements.len() {
                    return Ok(row.sql() + "; ");
                }
                sqlx::raw_sql(AssertSqlSafe(row.sql())).execute(&mut *self.conn).await?;
            } else {
                let record = |_: &Seen| row.sql();
                let work =
                    Work { file, sql: statement.text, at: statement.at, statement: Some(number), record: &record };
                self.transaction(&work, seen).await?;
            }
        }
        Ok(String::new())
    }

    /// The statements of what is no migration, from that one on, each with what records it. What is done proves it from
    /// the catalog, or does no harm when it is done again.
    pub(super) async fn steps(&mut self, file: &File, skipped: usize, records: &[&str]) -> Result<(), Error> {
        for (number, statement) in (1..).zip(&file.statements()).skip(skipped) {
            if self.options.stop.is_requested() {
                return Err(Error::Stopped);
            }
            if is_concurrent(statement) {
                lock::is_held(self.conn, self.pid).await?;
                self.concurrently(file, number, statement).await?;
                continue;
            }
            let record = |_: &Seen| records.get(number - 1).copied().unwrap_or_default().to_owned();
            let work = Work { file, sql: statement.text, at: statement.at, statement: Some(number), record: &record };
            self.transaction(&work, &mut Seen::default()).await?;
        }
        Ok(())
    }
}

/// Opens the transaction, gets at the tables unless Coder's own server migrates, and says whether it has them, which
/// transaction it is, and whether the session still has the runner's lock.
fn begin(
    approach: Approach,
    lock_timeout: Duration,
    budget: Option<Duration>,
    statement_timeout: Duration,
    tables: &[(String, String)],
    held: &str,
) -> String {
    let nowait = if approach == Approach::Probe { " NOWAIT" } else { "" };
    let locks: Vec<_> =
        tables.iter().map(|(table, mode)| format!("LOCK TABLE {table} IN {mode} MODE{nowait}; ")).collect();
    let locks = locks.concat();
    // An autovacuum steps aside after this time, if this role may say so.
    let deadlock = budget.map_or_else(String::new, |budget| {
        format!(
            "BEGIN PERFORM set_config('deadlock_timeout', '{}', true); EXCEPTION WHEN OTHERS THEN NULL; END; ",
            (budget / 2).as_millis().max(1)
        )
    });
    // In a block of its own, because a table that is not free is no error worth a line in the server's log.
    format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
         DO $coderdb$ BEGIN {deadlock}\
         IF NOT {} THEN PERFORM set_config('coderdb.locked', 'migrating', true); RETURN; END IF; \
         BEGIN {locks}PERFORM set_config('coderdb.locked', 'true', true); \
         EXCEPTION WHEN lock_not_available THEN PERFORM set_config('coderdb.locked', 'false', true); \
         WHEN undefined_table THEN PERFORM set_config('coderdb.locked', 'true', true); END; END $coderdb$; \
         SELECT current_setting('coderdb.locked'), pg_current_xact_id()::text, {held}",
        setting(lock_timeout),
        statement_timeout.as_millis(),
        migrator::TRY
    )
}

/// Runs statements, and counts those that are done before one is refused.
async fn run(conn: &mut PgConnection, sql: &str) -> Result<(), (usize, sqlx::Error)> {
    let mut answers = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(conn);
    let mut completed = 0;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Either::Left(_)) => completed += 1,
            Ok(Either::Right(_)) => {}
            Err(error) => return Err((completed, error)),
        }
    }
    Ok(())
}

async fn roll_back(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql("ROLLBACK").execute(conn).await.map(drop).map_err(Error::from)
}

fn is_lost(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_))
        || sqlstate(error).is_some_and(|state| state.starts_with("57P"))
}

/// A time-out as the server takes it; 0 would be none.
fn setting(length: Duration) -> u128 {
    length.as_millis().clamp(1, i32::MAX as u128)
}

fn millis(length: Duration) -> u64 {
    length.as_millis().try_into().unwrap_or(u64::MAX)
}

/// refinery's checksum of a text.
fn checksum(text: &str) -> u64 {
    Migration::unapplied("V1__statement", text).map_or(0, |statement| statement.checksum())
}
