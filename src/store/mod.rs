//! The queries. One module per entity, one function per operation, one file under `queries/` per statement.
//!
//! Every function takes `&mut PgConnection`, so that the caller decides on pools and transactions, and opens a span
//! `db.<module>.<function>`. Where its documentation says *one round trip*, a prepared statement is executed once; the
//! first use on a connection costs one more, to prepare it.

pub mod actors;
pub mod agents;
pub mod builds;
pub mod changes;
pub mod chats;
mod codec;
pub mod daemons;
mod error;
mod input;
pub mod job_logs;
pub mod job_timings;
pub mod jobs;
pub mod licenses;
pub mod organizations;
pub mod prebuilds;
pub mod quota;
pub mod runner;
pub mod settings;
pub mod templates;
pub mod transaction;
pub mod users;
pub mod workspaces;

pub(crate) use codec::{StoredJson, Timestamp};
pub use error::Error;

/// The connection that every operation takes.
pub use sqlx::PgConnection;

/// What every operation returns.
pub type Result<T> = std::result::Result<T, Error>;
