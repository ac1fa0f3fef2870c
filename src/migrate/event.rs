//! The events of a run, and its result.

use super::Holder;

/// What happens while [`up`](super::up()) runs.
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
    /// A table lock could not be taken in time; nothing changed, and the migration is tried again.
    Retrying {
        /// Its version.
        version: i64,
        /// How often it has been tried.
        attempt: u32,
        /// The sessions that had the table, described in words; empty without an observer.
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
    /// The sessions that it waits for, described in words; empty if there is none.
    pub blockers: String,
}

/// One migration that [`up`](super::up()) applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// The longest delay of another session's statement, in milliseconds; `None` without an observer.
    pub delay_milliseconds: Option<u64>,
}
