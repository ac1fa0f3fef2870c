//! How migrations are applied.

use std::time::Duration;

use super::{Migrations, Stop};
use crate::connect;

/// How [`up`](super::up()) runs.
#[derive(Debug, Clone)]
pub struct MigrateOptions {
    /// What to apply.
    pub migrations: Migrations,
    /// Stop after this version; `None` for the newest.
    pub target: Option<i64>,
    /// How long to wait for another runner to finish.
    pub runner_lock_timeout: Duration,
    /// How long others may be delayed because a migration waits for a table; `None` for as long as it waits. Without
    /// [an observer](Self::observer), each wait ends after this time, whether it delays another session or not.
    pub max_stall: Option<Duration>,
    /// How long one attempt may wait for a table lock if no other session is delayed for longer than `max_stall`, or if
    /// only an autovacuum holds the lock.
    pub lock_timeout: Duration,
    /// The lock retry budget: how long to try to get the tables of one migration, or to wait for the transactions that
    /// are older than an index, before the run gives up.
    pub lock_retry_budget: Duration,
    /// How long a statement may run; zero for as long as it takes, whatever the role's default is.
    pub statement_timeout: Duration,
    /// How to open a second connection to the same database: it observes what a migration waits for and which sessions
    /// it delays, cancels it, and asks for the outcome of a commit whose answer was lost. `None` does without.
    pub observer: Option<connect::ConnectOptions>,
    /// The name of the machine, for [`history`](super::history()); `None` leaves it out.
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
