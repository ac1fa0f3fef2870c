//! Why there is no connection.

use std::{io::ErrorKind, time::Duration};

/// Why [`ConnectOptions`](super::ConnectOptions) could not be read, or gave no connection. It never shows a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What should say how to connect cannot be read.
    #[error("{origin} {problem}")]
    Invalid {
        /// Where it stands: a variable, or a line of a file.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No server there, or it refused.
    #[error("cannot connect to {server}")]
    Failed {
        /// The database, host and port.
        server: String,
        /// What the driver says of it.
        source: sqlx::Error,
    },
    /// No answer in time.
    #[error("cannot connect to {server}: no answer within {waited:?}")]
    NoAnswer {
        /// The database, host and port.
        server: String,
        /// How long the attempt took.
        waited: Duration,
    },
    /// A server, but not one of the kind that was asked for: a standby instead of a primary, for example.
    #[error("cannot connect to {server}: the server is not {wanted}")]
    OtherTarget {
        /// The database, host and port.
        server: String,
        /// What was asked for, in libpq's words.
        wanted: &'static str,
    },
    /// No pooler in transaction mode that keeps prepared statements.
    #[error(
        "cannot connect to {server}: no pooler there keeps prepared statements in transaction mode, so that they would be \
         missing on its other sessions; set max_prepared_statements = 200 (PgBouncer 1.21 or later)"
    )]
    ForgetsStatements {
        /// The database, host and port.
        server: String,
    },
}

impl Error {
    /// Whether the same attempt may succeed a little later: the server starts, fails over, or has no room.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Invalid { .. } | Self::ForgetsStatements { .. } => false,
            Self::NoAnswer { .. } | Self::OtherTarget { .. } => true,
            // No such socket; a certificate that is not to be trusted.
            Self::Failed { source: sqlx::Error::Io(error), .. } => {
                !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData)
            }
            Self::Failed { source, .. } => {
                let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
                // cannot_connect_now, admin_shutdown, crash_shutdown, too_many_connections; a pooler without a server
                let passing = ["57P01", "57P02", "57P03", "53300", "08P01", "08006"];
                code.is_some_and(|code| passing.contains(&&*code))
            }
        }
    }
}

pub(super) fn invalid(origin: &str, problem: impl Into<String>) -> Error {
    Error::Invalid { origin: origin.to_owned(), problem: problem.into() }
}
