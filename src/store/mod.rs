//! The queries. One module per entity, one function per operation, one file under `queries/` per statement.
//!
//! Every function takes `&mut PgConnection`, so that the caller decides on pools and transactions, and opens a span
//! `db.<module>.<function>`. Where its documentation says *one round trip*, a prepared statement is executed once; the
//! first use on a connection costs one more, to prepare it.
//!
//! An operation happens as a whole or not at all (in [`runner`], step by step), at whatever point the connection breaks
//! or its future is dropped. A dropped operation leaves neither a transaction nor a lock, and the connection can be
//! used at once. A caller that got no answer may call again; the documentation of an operation says if it is then done
//! twice.
//!
//! This does not hold for `begin` of the driver (sqlx 0.9.0): dropped before it is done, it leaves its transaction
//! open, and in a transaction it ends that one without a word. Close such a connection.
//!
//! Arguments that could not be stored or read again are [`Error::Invalid`] before anything is sent: NUL characters,
//! times outside of the years 1 to 9999, JSON of more than 100 levels. Rows that hold such values nevertheless, or tags
//! and inputs that are not what their type says, fail no listing. Neither do labels of enumerated types that this
//! version does not know ([`Label`](crate::model::Label)), nor bytes that are no UTF-8, which a database with the
//! encoding `SQL_ASCII` may hold: those are read as U+FFFD, where the connection is one of `connect::ConnectOptions` or
//! has that `client_encoding`.

pub mod actors;
pub mod agents;
pub mod api_keys;
pub mod builds;
pub mod changes;
pub mod chats;
mod codec;
pub mod daemons;
mod error;
pub mod files;
mod input;
pub mod job_logs;
pub mod job_timings;
pub mod jobs;
pub mod licenses;
pub mod organizations;
pub mod prebuilds;
mod query;
pub mod queue;
pub mod quota;
pub mod runner;
pub mod settings;
pub mod templates;
pub mod transaction;
pub mod users;
pub mod workspaces;

pub(crate) use codec::{StoredInput, StoredJson, Text, Timestamp};
pub use error::Error;
#[cfg(feature = "pool")]
pub(crate) use error::{note_outdated, outdated};

/// Counts an event for the metrics recorder of this process.
#[cfg_attr(not(feature = "http"), expect(unused_variables, reason = "nobody records"))]
pub(crate) fn count(name: &'static str, by: usize) {
    #[cfg(feature = "http")]
    metrics::counter!(name).increment(by as u64);
}

/// The connection that every operation takes.
pub use sqlx::PgConnection;

/// What every operation returns.
pub type Result<T> = std::result::Result<T, Error>;
