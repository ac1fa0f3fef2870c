//! Brings a database to the schema that this version of the library works with.
//!
//! The migrations are embedded; refinery keeps the history (`coderdb.refinery_schema_history`), and any refinery
//! tool can read it. Around refinery stand what a deploy needs: one runner at a time, each migration in one transaction with its
//! history row, concurrent indexes that are recorded only when they are valid, errors that point into the file.

mod adopt;
mod drift;
mod driver;
mod error;
mod files;
mod history_table;
#[cfg(feature = "cli")]
pub(crate) mod lint;
mod lock;
mod locks;
mod log;
pub(crate) mod names;
mod observer;
mod plan;
mod repair;
mod rights;
mod run;
mod settings;
mod statements;
mod stop;

use std::time::Duration;

use refinery::{Runner, Target};
use sqlx::{PgConnection, Row};

use crate::connect;
pub use adopt::{
    Adopted, Adoption, Coder, Difference, Examination, IndexState, OwnIndex, Unknown, adopt, differences, examine,
    grants, owner_sql, unadopt,
};
pub use drift::{Drift, Object, Verification, verify};
use driver::Driver;
pub use error::{Error, Lost, NoTableLock, OlderTransactions, Outcome, Refusal};
pub use files::Migrations;
pub use lock::Holder;
pub use locks::{StatementLocks, locks};
pub use log::{Done, history};
pub use plan::{AdoptedFrom, Entry, Fit, Planned, Problem, State, Status};
pub use repair::{accept, drop_invalid_indexes, mark_applied};
use run::Run;
#[cfg(feature = "cli")]
pub(crate) use settings::pin;
pub use stop::Stop;

/// The oldest server that can be migrated: it says since when somebody waits for a lock.
const OLDEST_SERVER: i32 = 140_000;

/// How [`up`] runs.
#[derive(Debug, Clone)]
pub struct MigrateOptions {
    /// What to apply.
    pub migrations: Migrations,
    /// Stop after this version; `None` for the newest.
    pub target: Option<i64>,
    /// How long to wait for another runner to finish.
    pub runner_lock_timeout: Duration,
    /// How long others may be delayed because a migration waits for a table; `None` for as long as it waits. Without
    /// [an observer](Self::observer), each wait ends after this time, whether it delays anybody or not.
    pub max_stall: Option<Duration>,
    /// How long one attempt may wait for a table, where that delays nobody for longer than `max_stall`, or where only an
    /// autovacuum is in the way.
    pub lock_timeout: Duration,
    /// The lock retry budget: how long to try to get the tables of one migration, or to wait for the transactions that are
    /// older than an index, before the run gives up.
    pub lock_retry_budget: Duration,
    /// How long a statement may run; zero for as long as it takes, whatever the role's default is.
    pub statement_timeout: Duration,
    /// How to open a second connection to the same database: for a look at what a migration waits for and whom it delays,
    /// for canceling, and for finding out what became of a commit. `None` does without.
    pub observer: Option<connect::ConnectOptions>,
    /// The name of the machine, for [`history`]; `None` leaves it out.
    pub host: Option<String>,
    /// Stops the run from elsewhere.
    pub stop: Stop,
}

impl Default for MigrateOptions {
    fn default() -> Self {
        Self {
            migrations: Migrations::embedded(),
            target: None,
            runner_lock_timeout: Duration::from_mins(15),
            max_stall: Some(Duration::from_millis(250)),

            lock_timeout: Duration::from_secs(2),
            lock_retry_budget: Duration::from_mins(1),
            statement_timeout: Duration::ZERO,
            observer: None,
            host: None,
            stop: Stop::default(),
        }
    }
}

/// What happens while [`up`] runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another runner is at work.
    Waiting {
        /// Who it is; empty when it has just finished.
        holders: &'a [Holder],
    },
    /// A migration begins.
    Started {
        /// Its version.
        version: i64,
        /// Its name.
        name: &'a str,
    },
    /// A table lock was not to be had in time; nothing changed, and the migration is tried again.
    Retrying {
        /// Its version.
        version: i64,
        /// How often it has been tried.
        attempt: u32,
        /// Who had the table, in words; empty where nobody could look.
        blockers: &'a str,
    },
    /// An index is being built.
    Building {
        /// The version of its migration.
        version: i64,
        /// How far it is.
        progress: &'a Progress,
    },
}

/// How far the build of an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What the server does, in its own words.
    pub phase: String,
    /// How much of that it has done: blocks, or transactions that it waits for.
    pub done: i64,
    /// Of how many; 0 when that is unknown.
    pub total: i64,
    /// Whom it waits for, in words; empty when it waits for nobody.
    pub blockers: String,
}

/// One migration that [`up`] applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// The longest that it delayed anybody else's statement, in milliseconds; `None` when nobody could look.
    pub delay_milliseconds: Option<u64>,
}

/// What is applied, pending and wrong with this version's migrations. Writes nothing: a role that may only read, and a
/// standby, are enough. One round trip.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`]; what is wrong with the history is part of the answer.
#[tracing::instrument(name = "migrate.status", skip_all)]
pub async fn status(conn: &mut PgConnection) -> Result<Status, Error> {
    status_of(conn, &Migrations::embedded()).await
}

/// What is applied, pending and wrong with other migrations; see [`status`].
///
/// # Errors
/// As [`status`].
pub async fn status_of(conn: &mut PgConnection, migrations: &Migrations) -> Result<Status, Error> {
    let history = history_table::read(conn).await?;
    let mut status = plan::status(&history.migrations, &migrations.as_applied());
    if let Some(baseline) = history.baseline {
        baseline.mark(&mut status);
    }
    Ok(status)
}

/// What [`up`] would run, in its order. Writes nothing; one round trip, as [`status`].
///
/// # Errors
/// As [`status`], and [`Error::History`] and [`Error::TooNew`], which would stop it.
pub async fn plan<'m>(conn: &mut PgConnection, migrations: &'m Migrations) -> Result<Vec<Planned<'m>>, Error> {
    let pending = status_of(conn, migrations).await?.check()?.pending_up_to(None);
    Ok(pending.into_iter().filter_map(|version| migrations.get(version)).map(Planned::of).collect())
}

/// Applies what is pending, in order, and returns what it applied: nothing, without a lock, when nothing is pending.
///
/// Safe when several runners start at once: one applies, the others wait for it and find nothing left to do. Each
/// migration is one transaction with its history row. One that cannot be, runs statement by statement, each recorded with
/// what it did; a concurrent index is recorded once it is valid. When this future is dropped, close the connection: it
/// still holds the runner's lock.
///
/// # Errors
/// See [`Error`]; whatever fails, the migrations before it stay applied, and running again goes on from there.
#[tracing::instrument(name = "migrate.up", skip_all)]
pub async fn up(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Vec<Applied>, Error> {
    if let Some(target) = options.target
        && options.migrations.get(target).is_none()
    {
        return Err(Error::UnknownTarget { target, newest: options.migrations.newest() });
    }
    let status = status_of(conn, &options.migrations).await?.check()?;
    if status.pending_up_to(options.target).is_empty() {
        return Ok(Vec::new());
    }
    let files: Vec<_> =
        status.pending_up_to(options.target).iter().filter_map(|v| options.migrations.get(*v)).collect();
    alone(conn, options, &files, &mut on_event, async |conn, pid, on_event| locked(conn, pid, options, on_event).await)
        .await
}

/// Does something as the only runner, in a session with the settings that it needs.
async fn alone<T, E: FnMut(Event<'_>) + Send>(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    files: &[&files::File],
    on_event: &mut E,
    work: impl AsyncFnOnce(&mut PgConnection, i32, &mut E) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut restore = settings::pin(conn).await?;
    let prepared = async {
        fit_to_migrate(conn).await?;
        rights::check(conn, files).await?;
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
async fn fit_to_migrate(conn: &mut PgConnection) -> Result<(), Error> {
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
    } else if schema == "coderdb" || schema.starts_with("pg_") {
        format!("the session would create in the schema {schema}, which is not for that: the search_path is {path}")
    } else {
        return Ok(());
    };
    Err(Error::Unfit { reason })
}

async fn locked(
    conn: &mut PgConnection,
    pid: i32,
    options: &MigrateOptions,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<Vec<Applied>, Error> {
    lock::is_held(conn, pid).await?;
    // Again, because another runner may have finished the work while this one waited.
    let status = status_of(conn, &options.migrations).await?.check()?;
    let pending = status.pending_up_to(options.target);
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    history_table::prepare(conn).await?;
    let mut runner = Runner::new(&options.migrations.to_apply().map_err(|error| Error::Refinery(Box::new(error)))?)
        // A newer version of the library may have applied more.
        .set_abort_missing(false)
        .set_target(options.target.map_or(Target::Latest, Target::Version));
    runner.set_migration_table_name(history_table::TABLE);
    let run = Run::new(conn, pid, options, on_event).await?;
    let mut driver = Driver::new(run, &options.migrations, pending);
    match runner.run_async(&mut driver).await {
        Ok(_) => Ok(driver.into_applied()),
        Err(error) => Err(driver.into_error(error)),
    }
}

/// The newest version that this library knows.
#[must_use]
pub fn newest() -> i64 {
    Migrations::embedded().newest()
}
