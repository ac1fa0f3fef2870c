//! Expected waits, shares of the queue, and capacity.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Label, OrganizationId, ProvisionerType, Tags};

/// How much longer a job waits, if people go on asking as in the last day (domain: expected wait).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedWait {
    /// In half of the runs it started within this time.
    pub p50: Duration,
    /// In a tenth of the runs.
    pub p10: Duration,
    /// In nine tenths.
    pub p90: Duration,
    /// The number of ended jobs from whose times it is computed.
    pub samples: usize,
}

/// The jobs ahead of another one in the queues of the daemons that can claim it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Those that people asked for.
    pub people: i64,
    /// Those that the prebuilds user asked for.
    pub prebuilds: i64,
}

/// Daemons that are not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherDaemons {
    /// What each of them has.
    pub tags: Tags,
    /// How many.
    pub count: u32,
}

/// How many daemons the jobs with the same tags and provisioner need, computed from recorded jobs (domain: capacity).
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// Whose jobs.
    pub organization_id: OrganizationId,
    /// Their tags.
    pub tags: Tags,
    /// Their provisioner.
    pub provisioner: Label<ProvisionerType>,
    /// The earliest moment that the record covers.
    pub since: OffsetDateTime,
    /// How many were created since then.
    pub jobs: usize,
    /// How many of them the prebuilds user asked for.
    pub prebuilds: usize,
    /// How many were created in an hour.
    pub jobs_per_hour: f64,
    /// What half of those that have ended took.
    pub service_p50: Option<Duration>,
    /// What 95 % of those that have ended took.
    pub service_p95: Option<Duration>,
    /// Which share of the time the daemons that can take them would have worked; `None` without such daemons.
    pub busy: Option<f64>,
    /// How many daemons that are online can take them.
    pub daemons: usize,
    /// How many it would take if they took nothing else, for `wait_p95` to be within the target.
    pub needed: usize,
    /// Within which time 95 % of them have started.
    pub recorded_wait_p95: Option<Duration>,
    /// The same, if the daemons that are online now had been there all the time; `None` when no daemon can take them.
    pub wait_p95: Option<Duration>,
    /// The same with the further daemons; `None` without such, too.
    pub further_wait_p95: Option<Duration>,
}

/// By what the jobs of a queue are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareBy {
    /// By their initiator.
    Initiator,
    /// By the template of their builds.
    Template,
    /// By their tags.
    Tags,
}

impl ShareBy {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Template => "template",
            Self::Tags => "tags",
        }
    }
}

/// A median, and what 95 of 100 stay within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// The median.
    pub p50: Duration,
    /// The 95th percentile.
    pub p95: Duration,
}

/// One group of jobs, with its part of the queue and of the daemons (domain: shares of the queue).
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The initiator or the template; `None` for tags, and for jobs that build no template.
    pub id: Option<Uuid>,
    /// Its name; empty when it is not there any more.
    pub name: String,
    /// The tags, if they are what the jobs have in common.
    pub tags: Option<Tags>,
    /// How many wait.
    pub waiting: i64,
    /// How many of them the prebuilds user asked for.
    pub waiting_prebuilds: i64,
    /// Which part of all that wait they are, from 0 to 1.
    pub waiting_share: f64,
    /// How many a daemon has taken.
    pub running: i64,
    /// Which part of all that run they are, from 0 to 1.
    pub running_share: f64,
    /// How many of those that were created of late have started.
    pub started: i64,
    /// How long those that wait have waited so far.
    pub waiting_for: Option<Spread>,
    /// How long those that have started waited.
    pub started_after: Option<Spread>,
}
