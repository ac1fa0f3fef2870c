//! Provisioner jobs (domain: jobs): the listing, the steps of a job's life, and the reaper.

mod access_path;
mod filter;
mod find;
mod lifecycle;
mod listing;
mod pruning;
mod reaper;
mod row;

use std::time::Duration;

pub use find::*;
pub use lifecycle::*;
pub use listing::*;
pub use pruning::*;
pub use reaper::*;

/// How long after its last heartbeat a daemon still counts as online (domain: daemons).
pub const STALE_INTERVAL: Duration = Duration::from_secs(90);
