//! What can go wrong while a database is migrated, and where in which file.

use std::{fmt, io, time::Duration};

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
    /// Coder's own server made the database, and it is not adopted; nothing was written.
    #[error(
        "this database was made by Coder{}: run `coderdb migrate adopt`",
        version.map(|version| format!(" (version {version})")).unwrap_or_default()
    )]
    MadeByCoder {
        /// The version of Coder's schema; `None` where this role may not read it.
        version: Option<i64>,
    },
    /// The database cannot be adopted as it is; nothing was written.
    #[error("the database cannot be adopted:\n{}", indented(reasons))]
    CannotAdopt {
        /// What is in the way.
        reasons: Vec<String>,
    },
    /// There is something to know before the database is adopted; nothing was written.
    #[error("before it is adopted:\n{}", indented(reasons))]
    Unconfirmed {
        /// What.
        reasons: Vec<String>,
    },
    /// Coder's own migrator, or another session with an exclusive lock on its tables, did not finish in time. Trying
    /// again may help.
    #[error("Coder's own migrator, or a lock on its tables, was in the way for {}s{}", waited.as_secs(), behind(holders))]
    MigratorBusy {
        /// How long this runner waited.
        waited: Duration,
        /// Whose session it is, in words.
        holders: String,
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
    #[error("the session was moved to another server process: a pooler lends it per transaction")]
    SessionLost,
    /// The session has the runner's lock, and did not get it from this run.
    #[error(
        "the session has the runner's lock already: another run has the same session, be it from its program or from a pooler \
         that lends it per transaction"
    )]
    SessionShared,
    /// The session has not the runner's lock any more, and is the one that took it.
    #[error("the runner's lock was given back while it was needed: something in this session has unlocked it")]
    LockReleased,
    /// A table lock could not be taken in time. Nothing changed; trying again may help.
    #[error("{0}")]
    TableLock(#[source] Box<NoTableLock>),
    /// An index could not be built or dropped beside its users, because older transactions did not end. Trying again
    /// may help.
    #[error("{0}")]
    OlderTransactions(Box<OlderTransactions>),
    /// The server refused a statement of a migration.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The connection was lost while a migration was committed.
    #[error("{0}")]
    LostCommit(#[source] Box<Lost>),
    /// An index was built and is not valid, so that the migration is not recorded. Running again builds it anew.
    #[error("{file}: the index {index} is not valid; run `coderdb migrate up` again")]
    InvalidIndex {
        /// The migration's file.
        file: String,
        /// The index.
        index: String,
    },
    /// A statement that runs without a transaction, and whose effect the catalog does not show.
    #[error(
        "{file}: {}expected CREATE [UNIQUE] INDEX CONCURRENTLY name ON table, or DROP INDEX CONCURRENTLY name, with plain \
         names and without IF NOT EXISTS, which would accept an invalid index",
        statement.map(|statement| format!("statement {statement}: ")).unwrap_or_default()
    )]
    Unprovable {
        /// The migration's file.
        file: String,
        /// Which statement, from 1.
        statement: Option<usize>,
    },
    /// A no-transaction migration of which a part was done was changed in that part.
    #[error("{file}: statement {statement} is done, and was another one then")]
    EditedMidway {
        /// The migration's file.
        file: String,
        /// Which statement, from 1.
        statement: usize,
    },
    /// The database was migrated by a newer version, with a migration that older ones must not run on.
    #[error("the schema is newer than this coderdb can work with: V{version:04}__{name}")]
    TooNew {
        /// The version of that migration.
        version: i64,
        /// Its name.
        name: String,
    },
    /// The migrations were applied in another schema than the one that this session works in, or that schema is gone.
    #[error("{}", elsewhere(home.as_deref(), current.as_deref()))]
    Elsewhere {
        /// The schema that they were applied in; `None` if it is gone.
        home: Option<String>,
        /// The first schema of the session's `search_path` that there is.
        current: Option<String>,
    },
    /// The role lacks what the pending migrations need; nothing was done.
    #[error("the role {role} cannot apply what is pending; it needs:\n{}", missing.iter().map(|right| format!("  {right}")).collect::<Vec<_>>().join("\n"))]
    Rights {
        /// The role.
        role: String,
        /// What it lacks, in words.
        missing: Vec<String>,
    },
    /// The history changed while it was read, so that another migration came next than the one that was to run.
    #[error(
        "expected version {} next, and refinery would record: {record}; nothing of it was run",
        expected.map_or_else(|| "none".to_owned(), |version| version.to_string())
    )]
    Mixed {
        /// The version that was to run.
        expected: Option<i64>,
        /// The row that refinery handed over instead.
        record: String,
    },
    /// The server is none that can be migrated.
    #[error("{reason}")]
    Unfit {
        /// Why.
        reason: String,
    },
    /// The run was asked to stop; what it did before stays.
    #[error("stopped before everything was applied")]
    Stopped,
    /// A file or a directory cannot be read.
    #[error("{path} cannot be read")]
    Io {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is no migration.
    #[error("{location}: {problem}")]
    File {
        /// The file, with line and column where there is one.
        location: String,
        /// What is wrong.
        problem: String,
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

/// A table lock that could not be taken in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: no lock on {} within {}s, in {attempts} attempts{}; nothing changed",
    tables_or_any(tables),
    waited.as_secs(),
    behind(blockers)
)]
pub struct NoTableLock {
    /// The migration's file.
    pub file: String,
    /// For how long it was tried.
    pub waited: Duration,
    /// How often it queued for the lock.
    pub attempts: u32,
    /// The tables; empty without an observer.
    pub tables: Vec<String>,
    /// The sessions that held them, described in words; empty without an observer.
    pub blockers: String,
    /// What the driver said the last time.
    pub source: Option<sqlx::Error>,
}

/// Transactions that an index waited for, and that did not end.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{file}: the index {index} has waited for older transactions for {}s{}; {}",
    waited.as_secs(),
    behind(blockers),
    if *is_left { "it is left invalid, and the next run drops it" } else { "nothing changed" }
)]
pub struct OlderTransactions {
    /// The migration's file.
    pub file: String,
    /// The index.
    pub index: String,
    /// For how long it waited.
    pub waited: Duration,
    /// Their sessions, described in words; empty if the server does not show them.
    pub blockers: String,
    /// Whether an invalid index is left, because another session has a lock on its table.
    pub is_left: bool,
}

/// A commit without an answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: the connection was lost during the commit{}, {outcome}",
    statement.map(|statement| format!(" of statement {statement}")).unwrap_or_default()
)]
pub struct Lost {
    /// The migration's file.
    pub file: String,
    /// Which statement of it, from 1; `None` when it was all of it.
    pub statement: Option<usize>,
    /// What became of it.
    pub outcome: Outcome,
    /// What the driver said.
    pub source: sqlx::Error,
}

/// What became of a commit without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The migration, or the statement, is applied and recorded.
    Committed,
    /// Nothing of it is left.
    RolledBack,
    /// The server could not be asked.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committed => "which was done: it is applied and recorded",
            Self::RolledBack => "which was rolled back: nothing of it is left",
            Self::Unknown => "and the server cannot be asked what became of it: the next run will know",
        })
    }
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
    /// Line and column from 1, in characters, and the line itself: where the server names a position; else where the
    /// statement begins.
    pub at: Option<(usize, usize, String)>,
    /// Which statement of the file, from 1, and of how many; `None` when it was the commit.
    pub statement: Option<(usize, usize)>,
    /// Whether the migration was one transaction, so that nothing of it is left.
    pub rolled_back: bool,
    /// Whether the file is embedded in this version of the library and cannot be edited.
    pub is_embedded: bool,
    /// Whether it is the first migration of all.
    pub is_first: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, state, message, detail, hint, at, statement, rolled_back, .. } = self;
        write!(f, "[{state}]: {message}\n  --> {file}")?;
        let margin = at.as_ref().map_or(1, |(line, ..)| line.to_string().len());
        if let Some((line, column, _)) = at {
            write!(f, ":{line}:{column}")?;
        }
        if let Some((number, count)) = statement {
            write!(f, "   (statement {number} of {count})")?;
        }
        if let Some((line, column, text)) = at {
            // Whatever is as wide as on the line above it.
            let before: String = text.chars().take(column - 1).map(|c| if c == '\t' { c } else { blank(c) }).collect();
            write!(f, "\n{:margin$} |\n{line} | {text}\n{:margin$} | {before}^", "", "")?;
        }
        if let Some(detail) = detail {
            write!(f, "\n{:margin$} = detail: {detail}", "")?;
        }
        if let Some(hint) = hint {
            write!(f, "\n{:margin$} = hint: {hint}", "")?;
        }
        let state = if *rolled_back {
            "rolled back; the migration is not recorded, those before it are"
        } else {
            "not recorded; running again goes on behind the last statement that is done"
        };
        write!(f, "\n{:margin$} = state: {state}", "")
    }
}

/// A blank as wide as the character: two columns for what East Asian scripts write.
fn blank(c: char) -> char {
    let is_wide = matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    if is_wide { '\u{3000}' } else { ' ' }
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

fn elsewhere(home: Option<&str>, current: Option<&str>) -> String {
    let current = current.unwrap_or("none");
    match home {
        Some(home) => format!(
            "the migrations of this database were applied in the schema {home}, and this session works in {current}"
        ),
        None => {
            "the history says that migrations are applied, and the schema that they were applied in is gone".to_owned()
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

fn indented(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("  {reason}")).collect::<Vec<_>>().join("\n")
}

fn tables_or_any(tables: &[String]) -> String {
    if tables.is_empty() { "a table".to_owned() } else { tables.join(", ") }
}

fn behind(blockers: &str) -> String {
    if blockers.is_empty() { String::new() } else { format!(", behind {blockers}") }
}

fn join(holders: &[Holder]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let refusal = Refusal {
            file: "migrations/V0001__m.sql".to_owned(),
            state: "42704".to_owned(),
            message: "type \"intt\" does not exist".to_owned(),
            detail: None,
            hint: Some("mend it".to_owned()),
            at: Some((3, 5, "  a intt".to_owned())),
            statement: Some((1, 2)),
            rolled_back: true,
            is_embedded: false,
            is_first: true,
        };
        let text = concat!(
            "[42704]: type \"intt\" does not exist\n",
            "  --> migrations/V0001__m.sql:3:5   (statement 1 of 2)\n",
            "  |\n",
            "3 |   a intt\n",
            "  |     ^\n",
            "  = hint: mend it\n",
            "  = state: rolled back; the migration is not recorded, those before it are",
        );
        assert_eq!(refusal.to_string(), text);
    }
}
