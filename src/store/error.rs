//! What can go wrong between a caller and the database.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use sqlx::postgres::PgDatabaseError;

use crate::{authz::Denied, model::Entity};

/// Why an operation could not be done. An expected answer is never an error: it is part of the result.
///
/// No message contains SQL, values of rows, or a connection string; the source has what the driver said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing has this id or name, or the caller may not see it.
    #[error("{entity} not found: {key}")]
    NotFound {
        /// What was looked for.
        entity: Entity,
        /// The id or name as it was given.
        key: String,
    },
    /// An argument is not what it must be; nothing was written.
    #[error("invalid {field}: expected {expected}")]
    Invalid {
        /// Which argument.
        field: &'static str,
        /// What it must be, in words.
        expected: &'static str,
    },
    /// A named constraint of the schema forbids it; nothing was written.
    #[error("conflict with {constraint}")]
    Conflict {
        /// The constraint.
        constraint: &'static str,
    },
    /// A stored value is not what the schema promises.
    #[error("corrupt value in column {column} of {query}")]
    Corrupt {
        /// The query that met it.
        query: &'static str,
        /// The column of that query.
        column: String,
        /// What is wrong with the value.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table, column, type or function is missing or another one, or a column that this version does not know must be
    /// given a value; nothing was written.
    #[error("the database schema is missing or too old{}; run `coderdb migrate up`", Said(.0))]
    Schema(#[source] sqlx::Error),
    /// The server cannot be reached, is starting or stopping, or has too many connections. Trying again may help.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The transaction lost a race against another one. Trying the whole transaction again helps.
    #[error("the transaction conflicted with another one")]
    Serialization(#[source] sqlx::Error),
    /// The server refused the statement for another reason.
    #[error("the database refused {query}{}", SqlState(.source))]
    Sql {
        /// The query that it refused.
        query: &'static str,
        /// What the driver said.
        source: sqlx::Error,
    },
}

impl Error {
    /// A name for the kind of failure that stays the same between versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Invalid { .. } => "invalid",
            Self::Conflict { .. } => "conflict",
            Self::Corrupt { .. } => "corrupt",
            Self::Schema(_) => "schema",
            Self::Unavailable(_) => "unavailable",
            Self::Serialization(_) => "serialization",
            Self::Sql { .. } => "sql",
        }
    }

    /// Whether the same call may succeed later without a change of its input or of the schema.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Serialization(_))
    }

    pub(crate) fn not_found(entity: Entity, key: impl fmt::Display) -> Self {
        Self::NotFound { entity, key: key.to_string() }
    }

    /// For a statement whose decision this version does not know: it must not pass for success.
    pub(crate) fn unknown_outcome(query: &'static str, outcome: &str) -> Self {
        Self::Corrupt { query, column: "outcome".to_owned(), source: format!("unknown outcome {outcome:?}").into() }
    }

    /// As [`Self::from_sqlx`], for a statement that one of these constraints may forbid.
    pub(crate) fn conflict(query: &'static str, constraints: &[&'static str], error: sqlx::Error) -> Self {
        let violated = super::input::constraint(&error);
        match constraints.iter().find(|constraint| Some(**constraint) == violated) {
            Some(constraint) => Self::Conflict { constraint },
            None => Self::from_sqlx(query, error),
        }
    }

    /// Sorts what the driver says of the query with this name.
    pub(crate) fn from_sqlx(query: &'static str, error: sqlx::Error) -> Self {
        note_outdated(&error);
        if is_label_unknown_there(&error) {
            return Self::Invalid { field: "label", expected: "one that the enumerated type has in this database" };
        }
        let state =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned);
        match (error, state.as_deref()) {
            (sqlx::Error::ColumnDecode { index, source }, _) => Self::Corrupt { query, column: index, source },
            (error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut), _) => {
                Self::Unavailable(error)
            }
            // undefined table, column, function and object; another type; a null where none may be
            (error, Some("42P01" | "42703" | "42883" | "42704" | "42804" | "23502")) => Self::Schema(error),
            (error, Some("40001" | "40P01")) => Self::Serialization(error),
            (error, Some("57P01" | "57P02" | "57P03" | "53300")) => Self::Unavailable(error),
            (source, _) => Self::Sql { query, source },
        }
    }
}

/// Whether a label was asked for, or written, that the type lacks: a later server may have dropped it. The message is
/// translated.
fn is_label_unknown_there(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| error.code() == "22P02" && error.routine() == Some("enum_in"))
}

/// How often a connection's prepared statements were found not to fit any more, in this process.
static OUTDATED: AtomicU64 = AtomicU64::new(0);

/// See [`note_outdated`].
#[cfg(feature = "pool")]
pub(crate) fn outdated() -> u64 {
    OUTDATED.load(Ordering::Relaxed)
}

/// Notes an error that says that what its connection has prepared, or knows of types, is that of another schema: on the
/// same connection it would come again. So pools replace all connections that were opened before.
pub(crate) fn note_outdated(error: &sqlx::Error) {
    let Some(error) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) else {
        return;
    };
    let is_outdated = match error.code() {
        // Its columns have other types than those that the client was told. The message is translated.
        "0A000" => error.routine() == Some("RevalidateCachedQuery"),
        // Types were dropped and made anew. This message is not translated.
        "XX000" => error.message().starts_with("cache lookup failed for type "),
        // The server has forgotten it: DISCARD, DEALLOCATE, or a pooler.
        "26000" => true,
        _ => false,
    };
    if is_outdated {
        OUTDATED.fetch_add(1, Ordering::Relaxed);
        let (sqlstate, reason) = (error.code(), error.message());
        tracing::warn!(name: "store.statement_outdated", sqlstate, reason, "the schema has changed below a prepared statement");
    }
}

/// Not allowed and not there look the same.
impl From<Denied> for Error {
    fn from(Denied { entity, key }: Denied) -> Self {
        Self::NotFound { entity, key }
    }
}

/// The server's own words, which name what it has not.
struct Said<'a>(&'a sqlx::Error);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_database_error().map_or(Ok(()), |error| write!(f, ": {}", error.message()))
    }
}

struct SqlState<'a>(&'a sqlx::Error);

impl fmt::Display for SqlState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_database_error().and_then(sqlx::error::DatabaseError::code) {
            Some(state) => write!(f, " (SQLSTATE {state})"),
            None => Ok(()),
        }
    }
}
