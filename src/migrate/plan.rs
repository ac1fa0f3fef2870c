//! What is applied, pending and wrong: a pure function of the history and the files.

use std::fmt;

use refinery::Migration;
use serde::Serialize;

use super::Error;

/// The state of a database's schema, migration by migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The newest version that is applied; `None` for a database without a schema.
    pub version: Option<i64>,
    /// The newest version that this library knows.
    pub newest: i64,
    /// Every migration that is known or applied, in the order of the versions.
    pub migrations: Vec<Entry>,
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its version.
    pub version: i64,
    /// Its name, as the file has it, or the history if there is no file.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// When it was applied, in RFC 3339; `None` when it was not.
    pub applied_on: Option<String>,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The history has it as it is in the file.
    Applied,
    /// It will be applied next, or after those before it.
    Pending,
    /// The history has its version, with another name or content.
    Changed,
    /// The history has a version that this library does not know.
    Unknown,
    /// It was never applied, though a later one was.
    Skipped,
}

impl State {
    /// The state in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

/// A migration that stands in the way of every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Entry);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { version, name, state, .. } = &self.0;
        write!(f, "V{version:04}__{name}: ")?;
        f.write_str(match state {
            State::Changed => "its file differs from what was applied",
            State::Unknown => "was applied by a newer or another coderdb",
            State::Skipped => "was never applied, though a later one was",
            State::Applied | State::Pending => "is fine",
        })
    }
}

impl Status {
    /// Whether nothing is pending and nothing is wrong.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.migrations.iter().all(|entry| entry.state == State::Applied)
    }

    /// What is wrong with the history; empty when the pending migrations can be applied.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let fine = |entry: &&Entry| !matches!(entry.state, State::Applied | State::Pending);
        self.migrations.iter().filter(fine).cloned().map(Problem).collect()
    }

    pub(super) fn check(self) -> Result<Self, Error> {
        let problems = self.problems();
        if problems.is_empty() { Ok(self) } else { Err(Error::History { problems }) }
    }

    pub(super) fn pending(self) -> Vec<Entry> {
        self.migrations.into_iter().filter(|entry| entry.state == State::Pending).collect()
    }

    pub(super) fn pending_up_to(&self, target: Option<i64>) -> usize {
        let wanted = |entry: &&Entry| entry.state == State::Pending && target.is_none_or(|t| entry.version <= t);
        self.migrations.iter().filter(wanted).count()
    }
}

pub(super) fn status(applied: &[Migration], files: &[Migration]) -> Status {
    let version = applied.iter().map(Migration::version).max();
    let history = |v| applied.iter().find(|a| a.version() == v);
    let mut migrations: Vec<Entry> = files
        .iter()
        .map(|file| {
            let state = match history(file.version()) {
                Some(row) if row == file => State::Applied,
                Some(_) => State::Changed,
                None if version.is_some_and(|v| v > file.version()) => State::Skipped,
                None => State::Pending,
            };
            entry(file, state, history(file.version()))
        })
        .collect();
    let unknown = applied.iter().filter(|row| !files.iter().any(|file| file.version() == row.version()));
    migrations.extend(unknown.map(|row| entry(row, State::Unknown, Some(row))));
    migrations.sort_by_key(|entry| entry.version);
    let newest = files.iter().map(Migration::version).max().unwrap_or_default();
    Status { version, newest, migrations }
}

fn entry(named_by: &Migration, state: State, history: Option<&Migration>) -> Entry {
    let applied_on = history
        .and_then(Migration::applied_on)
        .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    Entry { version: named_by.version(), name: named_by.name().to_owned(), state, applied_on }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: i64, sql: &str) -> Migration {
        Migration::unapplied(&format!("V{version}__m"), sql).expect("a valid name")
    }

    fn applied(of: &Migration) -> Migration {
        Migration::applied(of.version(), of.name().to_owned(), time::OffsetDateTime::UNIX_EPOCH, of.checksum())
    }

    fn states(history: &[Migration], files: &[Migration]) -> Vec<State> {
        status(history, files).migrations.into_iter().map(|entry| entry.state).collect()
    }

    #[test]
    fn each_migration_has_exactly_one_state() {
        use State::{Applied, Changed, Pending, Skipped, Unknown};
        let files = [file(1, "a"), file(2, "b"), file(3, "c")];
        let [one, two, three] = [applied(&files[0]), applied(&files[1]), applied(&files[2])];
        assert_eq!(states(&[], &files), [Pending, Pending, Pending]);
        assert_eq!(states(std::slice::from_ref(&one), &files), [Applied, Pending, Pending]);
        assert_eq!(states(&[one.clone(), two, three.clone()], &files), [Applied, Applied, Applied]);
        assert_eq!(states(&[one.clone(), three], &files), [Applied, Skipped, Applied]);
        assert_eq!(states(&[applied(&file(1, "edited"))], &files), [Changed, Pending, Pending]);
        assert_eq!(states(&[one, applied(&file(9, "z"))], &files[..1]), [Applied, Unknown]);
    }

    #[test]
    fn a_problem_stops_everything_and_names_the_migration() {
        let files = [file(1, "a"), file(2, "b")];
        let error = status(&[applied(&files[1])], &files).check().unwrap_err();
        assert!(error.to_string().contains("V0001__m: was never applied"), "{error}");
    }
}
