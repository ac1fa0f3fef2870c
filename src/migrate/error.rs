//! What can go wrong while a database is migrated, and where in which file.

use std::{fmt, time::Duration};

use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use super::{Holder, Problem};

/// Why migrating stopped. The migrations before it stay applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such migration.
    #[error("there is no version {target}; the newest is {newest}")]
    UnknownTarget {
        /// What was asked for.
        target: i64,
        /// The newest version that this library knows.
        newest: i64,
    },
    /// The history and the files do not fit together.
    #[error("the migration history does not fit this version of coderdb:\n{}", lines(problems))]
    History {
        /// What is wrong, migration by migration.
        problems: Vec<Problem>,
    },
    /// Another runner did not finish in time. Trying again may help.
    #[error("another runner has held the lock for {}s: {}", waited.as_secs(), join(holders))]
    LockBusy {
        /// How long this runner waited.
        waited: Duration,
        /// Who the other one is.
        holders: Vec<Holder>,
    },
    /// The session is not the one that took the lock. Migrate over a direct connection.
    #[error("the session was moved to another server process; migrate over a direct connection, not through a pooler")]
    SessionLost,
    /// A table lock was not to be had. Nothing changed; trying again may help.
    #[error("{file}: a table lock was not to be had in {attempts} attempts; nothing changed")]
    TableLock {
        /// The migration's file.
        file: String,
        /// How often it was tried.
        attempts: u32,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// The server refused a statement of a migration.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// An index was built and is not valid, so that the migration is not recorded. Running again builds it anew.
    #[error("{file}: the index {index} is not valid; run `coderdb migrate up` again")]
    InvalidIndex {
        /// The migration's file.
        file: String,
        /// The index.
        index: String,
    },
    /// A no-transaction file holds something else than one `CREATE INDEX CONCURRENTLY`.
    #[error("{file}: a no-transaction file holds exactly one CREATE INDEX CONCURRENTLY with a name")]
    NoTransaction {
        /// The migration's file.
        file: String,
    },
    /// The history table holds what refinery did not write.
    #[error("the migration history is malformed at version {version}")]
    MalformedHistory {
        /// The version of the malformed row.
        version: i64,
    },
    /// refinery refused for a reason of its own.
    #[error("the migrations cannot be run")]
    Refinery(#[source] Box<refinery::Error>),
    /// The server cannot be reached any more. Running again goes on where this run stopped.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The server refused a statement that is not part of a migration, or the history table has another shape.
    #[error("the migration history cannot be read or written")]
    Sql(#[source] sqlx::Error),
}

/// A statement of a migration that the server refused, and where it stands.
#[derive(Debug)]
pub struct Refusal {
    /// The migration's file.
    pub file: String,
    /// The SQLSTATE.
    pub state: String,
    /// What the server says.
    pub message: String,
    /// What else the server says.
    pub detail: Option<String>,
    /// What the server, or the migration, advises.
    pub hint: Option<String>,
    /// The position, if the server named one: line and column from 1, and the line itself.
    pub at: Option<(usize, usize, String)>,
    /// Whether the migration was one transaction, so that nothing of it is left.
    pub rolled_back: bool,
}

impl Refusal {
    pub(super) fn new(file: String, sql: &str, error: &PgDatabaseError, rolled_back: bool) -> Self {
        Self {
            file,
            state: error.code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            at: error.position().and_then(|position| locate(sql, &position)),
            rolled_back,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, state, message, detail, hint, at, rolled_back } = self;
        write!(f, "[{state}] {message}\n  --> {file}")?;
        if let Some((line, column, text)) = at {
            let margin = line.to_string().len();
            write!(f, ":{line}:{column}\n{:margin$} |\n{line} | {text}\n{:margin$} | {:>column$}", "", "", "^")?;
        }
        if let Some(detail) = detail {
            write!(f, "\n  = detail: {detail}")?;
        }
        if let Some(hint) = hint {
            write!(f, "\n  = hint: {hint}")?;
        }
        f.write_str(if *rolled_back {
            "\n  = state: rolled back; the migration is not recorded, those before it are"
        } else {
            "\n  = state: not recorded; running again resumes it"
        })
    }
}

/// Line, column and text of a position, which the server counts in characters from 1.
fn locate(sql: &str, position: &PgErrorPosition<'_>) -> Option<(usize, usize, String)> {
    let PgErrorPosition::Original(at) = position else { return None };
    let before: String = sql.chars().take(at.checked_sub(1)?).collect();
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    Some((line + 1, column + 1, sql.lines().nth(line)?.to_owned()))
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        // The server ends the session, or has no room for one; every other refusal stays one.
        let gone = state.is_some_and(|state| state.starts_with("57P") || state == "53300");
        match error {
            sqlx::Error::Database(_) if !gone => Self::Sql(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => Self::Sql(error),
            _ => Self::Unavailable(error),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

fn join(holders: &[Holder]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_counted_in_characters_and_points_at_its_line() {
        let sql = "-- ü\nCREATE TABLE t (\n  a intt\n);";
        let at = sql
            .chars()
            .take_while(|_| true)
            .collect::<String>()
            .find("intt")
            .map(|byte| sql[..byte].chars().count() + 1);
        let found = locate(sql, &PgErrorPosition::Original(at.expect("in the text")));
        assert_eq!(found, Some((3, 5, "  a intt".to_owned())));
    }

    #[test]
    fn the_caret_stands_under_the_column() {
        let refusal = Refusal {
            file: "migrations/V0001__m.sql".to_owned(),
            state: "42704".to_owned(),
            message: "type \"intt\" does not exist".to_owned(),
            detail: None,
            hint: Some("mend it".to_owned()),
            at: Some((3, 5, "  a intt".to_owned())),
            rolled_back: true,
        };
        let text = "[42704] type \"intt\" does not exist\n  --> migrations/V0001__m.sql:3:5\n  |\n3 |   a intt\n  \
                    |     ^\n  = hint: mend it\n  = state: rolled back; the migration is not recorded, those before \
                    it are";
        assert_eq!(refusal.to_string(), text);
    }
}
