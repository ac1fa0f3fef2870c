//! Brings a database to the schema that this version of the library works with.
//!
//! The migrations are embedded; refinery keeps the history (`coderdb.refinery_schema_history`), and any refinery tool
//! can read it. What a deploy needs besides is here: one runner at a time, each migration in one transaction with its
//! history row, concurrent indexes that are recorded only when they are valid, errors that point into the file.

mod adopt;
mod baseline;
mod coder;
mod drift;
mod driver;
mod error;
mod event;
mod files;
mod history;
mod history_table;
mod index;
#[cfg(feature = "cli")]
pub(crate) mod lint;
mod lock;
mod locks;
mod log;
mod migrator;
pub(crate) mod names;
mod observer;
mod options;
mod plan;
mod prepare;
mod repair;
mod rights;
mod run;
mod session;
mod settings;
mod sql;
mod statements;
mod status;
mod stop;
mod up;
mod verify;

pub use adopt::{
    Adopted, Adoption, Difference, Examination, IndexState, OwnIndex, adopt, differences, examine, grants, owner_sql,
    unadopt,
};
pub use coder::{Coder, Unknown};
pub use drift::{Drift, Object};
pub use error::{Error, Lost, NoTableLock, OlderTransactions, Outcome, Refusal};
pub use event::{Applied, Event, Progress};
#[cfg(all(feature = "pool", feature = "postgres"))]
pub(crate) use files::Identity;
pub use files::{Migrations, newest};
pub use history::{Done, history, history_of};
pub use lock::Holder;
pub use locks::{StatementLocks, locks};
pub use options::MigrateOptions;
pub use plan::{AdoptedFrom, Entry, Fit, Planned, Problem, State, Status};
pub use repair::{accept, drop_invalid_indexes, mark_applied};
#[cfg(feature = "cli")]
pub(crate) use settings::pin;
pub use status::{plan, status, status_of};
pub use stop::Stop;
pub use up::up;
pub use verify::{Verification, verify};
