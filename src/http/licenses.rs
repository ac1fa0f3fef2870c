//! Licenses.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// What is remembered between requests.
#[derive(Default)]
pub(super) struct State {
    /// When somebody last asked for the entitlements to be computed anew.
    pub refreshed: Mutex<Option<Instant>>,
}

/// From one refresh to the next.
pub(super) const PAUSE: Duration = Duration::from_mins(1);
