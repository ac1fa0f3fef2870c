//! Why there is no connection.

use std::{cmp::Reverse, collections::BTreeMap, panic::Location, time::Duration};

use crate::connect;

/// Why [`Pool::get`](super::Pool::get) gave no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was none in time.
    #[error("{}", timeout(*waited, *max_size, holders, last.as_deref()))]
    Timeout {
        /// How long the caller waited.
        waited: Duration,
        /// How many connections there may be.
        max_size: usize,
        /// Who has them, the longest first.
        holders: Vec<Holder>,
        /// Why the last attempt to connect came to nothing, if none has succeeded since.
        last: Option<String>,
    },
    /// The server refuses: wrong password, no such database, no TLS.
    #[error(transparent)]
    Connect(connect::Error),
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}

/// Who has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The location in the code that asked for it.
    pub at: &'static Location<'static>,
    /// For how long.
    pub held: Duration,
}

fn timeout(waited: Duration, max_size: usize, holders: &[Holder], last: Option<&str>) -> String {
    let why = last.map_or_else(String::new, |last| format!(": {last}"));
    // By location: a leak shows as many connections of one.
    let mut locations: BTreeMap<_, (usize, Duration)> = BTreeMap::new();
    for holder in holders {
        let counted = locations.entry(holder.at).or_default();
        *counted = (counted.0 + 1, counted.1.max(holder.held));
    }
    let mut locations: Vec<_> = locations.into_iter().collect();
    locations.sort_by_key(|(_, (_, held))| Reverse(*held));
    let described =
        |(at, (count, held)): &(&Location<'_>, (usize, Duration))| format!("{count} by {at} for up to {held:.1?}");
    let held = match holders.len() {
        0 => String::new(),
        count => {
            format!(
                "; {count} of {max_size} are held: {}",
                locations.iter().map(described).collect::<Vec<_>>().join(", ")
            )
        }
    };
    format!("no connection within {waited:?}{why}{held}")
}
