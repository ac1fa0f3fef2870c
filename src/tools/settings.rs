//! How long the tools wait.

use std::time::Duration;

/// How long the tools wait for what (domain: chat tools).
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For a build.
    pub build_timeout: Duration,
    /// For the first connection to an agent, in all.
    pub agent_connect_timeout: Duration,
    /// From one attempt to connect to the next.
    pub agent_retry_interval: Duration,
    /// For one attempt to connect.
    pub agent_attempt_timeout: Duration,
    /// For the start-up scripts of an agent.
    pub startup_timeout: Duration,
    /// How often the state of the start-up scripts is read; it is not announced.
    pub startup_poll_interval: Duration,
    /// After so much silence an agent no longer counts as connected (domain: agents).
    pub agent_inactive_timeout: Duration,
    /// For the numbers in the reply of a build that was over quota; without them the reply goes out then.
    pub quota_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            build_timeout: Duration::from_mins(10),
            agent_connect_timeout: Duration::from_mins(2),
            agent_retry_interval: Duration::from_secs(2),
            agent_attempt_timeout: Duration::from_secs(5),
            startup_timeout: Duration::from_mins(10),
            startup_poll_interval: Duration::from_secs(2),
            agent_inactive_timeout: Duration::from_secs(30),
            quota_timeout: Duration::from_secs(5),
        }
    }
}
