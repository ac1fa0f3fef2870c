//! Brings a database to the schema that this version of the library works with.
//!
//! The migrations are embedded; refinery keeps the history (`refinery_schema_history`), and any refinery tool can read
//! it. Around refinery stand what a deploy needs: one runner at a time, each migration in one transaction with its
//! history row, concurrent indexes that are recorded only when they are valid, errors that point into the file.

mod drift;
mod driver;
mod error;
#[cfg(feature = "cli")]
pub(crate) mod lint;
mod lock;
#[cfg(feature = "cli")]
pub(crate) mod names;
mod plan;
#[cfg(feature = "cli")]
mod statements;

use std::time::Duration;

use refinery::{Runner, Target};
use refinery_core::AsyncMigrate;
use sqlx::PgConnection;

pub use drift::{Drift, Object, Verification, verify};
use driver::Driver;
pub use error::{Error, Refusal};
pub use lock::Holder;
pub use plan::{Entry, Problem, State, Status};

/// refinery's own name for it, so that its tools find it.
const HISTORY: &str = "refinery_schema_history";

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// How [`up`] runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stop after this version; `None` for the newest.
    pub target: Option<i64>,
    /// How long to wait for another runner to finish.
    pub runner_lock_timeout: Duration,
    /// How long one attempt may wait for a table lock, and hold up everybody behind it.
    pub lock_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target: None,
            runner_lock_timeout: Duration::from_mins(15),
            // Not below PostgreSQL's deadlock_timeout of 1 s: only then does an autovacuum step aside.
            lock_timeout: Duration::from_secs(2),
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
    },
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
}

/// What is applied, pending and wrong. Writes nothing: a role that may only read is enough. Two round trips.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`]; what is wrong with the history is part of the answer.
#[tracing::instrument(name = "migrate.status", skip_all)]
pub async fn status(conn: &mut PgConnection) -> Result<Status, Error> {
    let exists = sqlx::query_scalar::<_, bool>("SELECT to_regclass($1) IS NOT NULL")
        .persistent(false)
        .bind(HISTORY)
        .fetch_one(&mut *conn)
        .await?;
    let applied = if exists {
        let mut driver = Driver::reader(conn);
        match driver.get_applied_migrations(HISTORY).await {
            Ok(applied) => applied,
            Err(error) => return Err(driver.into_error(error)),
        }
    } else {
        Vec::new()
    };
    Ok(plan::status(&applied, runner().get_migrations()))
}

/// Applies what is pending, in order, and returns what it applied: nothing, without a lock, when nothing is pending.
///
/// Safe when several runners start at once: one applies, the others wait for it and find nothing left to do. Each
/// migration is one transaction with its history row; a concurrent index is recorded once it is valid. When this
/// future is dropped, close the connection: it still holds the runner's lock.
///
/// # Errors
/// See [`Error`]; whatever fails, the migrations before it stay applied, and running again goes on from there.
#[tracing::instrument(name = "migrate.up", skip_all)]
pub async fn up(
    conn: &mut PgConnection,
    options: &Options,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Vec<Applied>, Error> {
    if let Some(target) = options.target
        && !runner().get_migrations().iter().any(|m| m.version() == target)
    {
        return Err(Error::UnknownTarget { target, newest: newest() });
    }
    if status(conn).await?.check()?.pending_up_to(options.target) == 0 {
        return Ok(Vec::new());
    }
    lock::acquire(conn, options.runner_lock_timeout, &mut on_event).await?;
    let result = locked(conn, options, &mut on_event).await;
    let released = lock::release(conn).await;
    let applied = result?;
    released?;
    Ok(applied)
}

async fn locked(
    conn: &mut PgConnection,
    options: &Options,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<Vec<Applied>, Error> {
    // Again, because another runner may have finished the work while this one waited.
    let pending = status(conn).await?.check()?.pending();
    let runner = runner().set_target(options.target.map_or(Target::Latest, Target::Version));
    let mut driver = Driver::writer(conn, options.lock_timeout, pending, on_event);
    match runner.run_async(&mut driver).await {
        Ok(_) => Ok(driver.into_applied()),
        Err(error) => Err(driver.into_error(error)),
    }
}

/// The newest version that this library knows.
#[must_use]
pub fn newest() -> i64 {
    runner().get_migrations().iter().map(refinery::Migration::version).max().unwrap_or_default()
}

/// The files of this version, to look at.
#[cfg(feature = "cli")]
pub(crate) fn sources() -> Vec<lint::Source> {
    let source = |file: &refinery::Migration| lint::Source {
        path: format!("migrations/V{:04}__{}.sql", file.version(), file.name()),
        sql: file.sql().unwrap_or_default().to_owned(),
    };
    let mut sources: Vec<_> = runner().get_migrations().iter().map(source).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn runner() -> Runner {
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    runner
}
