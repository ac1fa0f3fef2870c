//! The queue: the position of a job in it, and why it waits.

use std::fmt;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{JobId, Label, OrganizationId, ProvisionerType, Tags};

/// A position in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueuePosition {
    /// Counted from 1; 0 when the job is in no such queue.
    pub position: i64,
    /// How many jobs are in it.
    pub size: i64,
}

/// `3/17`
impl fmt::Display for QueuePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.position, self.size)
    }
}

/// Why a job waits: the first of these that is true, by the rule of the claim (domain: claims). A daemon can take a job
/// of its organization whose provisioner it runs and whose tags it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyWaiting {
    /// The daemon that took it does not exist any more: the job stays as it is until the reaper ends it.
    DaemonGone,
    /// A daemon took it and has given no sign of life for longer than the stale interval.
    DaemonSilent {
        /// Its last sign of life; `None` when there was never one.
        last_seen_at: Option<OffsetDateTime>,
    },
    /// Its cancellation was requested, and it has not ended yet.
    Canceling,
    /// The organization has no daemons.
    NoDaemons,
    /// No daemon has its tags.
    NoDaemonHasTags {
        /// The tags of the job.
        tags: Tags,
        /// Those of them that no daemon has; none when each has a daemon, but no daemon has all.
        missing: Tags,
    },
    /// The daemons that have its tags run other provisioners.
    OtherProvisioners {
        /// What it needs.
        provisioner: Label<ProvisionerType>,
        /// What they run.
        running: Vec<Label<ProvisionerType>>,
    },
    /// All daemons that can take it are offline.
    AllOffline {
        /// How many they are.
        daemons: i64,
        /// The last sign of life of any of them; `None` when there was never one.
        last_seen_at: Option<OffsetDateTime>,
    },
    /// All daemons that can take it and are online work on something else.
    AllBusy {
        /// How many they are.
        daemons: i64,
        /// The best position over these daemons, and the longest of their queues.
        position: QueuePosition,
    },
    /// A daemon is idle that can take it, and does so when it is its turn.
    Ranked(
        /// The best position over the daemons that can take it and are online, and the longest of their queues.
        QueuePosition,
    ),
}

impl WhyWaiting {
    /// A name for machines that stays the same between versions.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::DaemonGone => "daemon_gone",
            Self::DaemonSilent { .. } => "daemon_silent",
            Self::Canceling => "canceling",
            Self::NoDaemons => "no_daemons",
            Self::NoDaemonHasTags { .. } => "no_daemon_has_tags",
            Self::OtherProvisioners { .. } => "other_provisioners",
            Self::AllOffline { .. } => "all_offline",
            Self::AllBusy { .. } => "all_busy",
            Self::Ranked(_) => "ranked",
        }
    }

    /// Whether it waits until an operator acts, instead of until it is its turn.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        !matches!(self, Self::Canceling | Self::AllBusy { .. } | Self::Ranked(_))
    }

    /// What somebody can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        let with = |tags: &Tags| match tags {
            tags if tags.0.is_empty() => "with its tags".to_owned(),
            tags if *tags == Tags::untagged() => "without tags".to_owned(),
            tags => format!("with {tags}"),
        };
        match self {
            Self::DaemonGone => "cancel it and ask again; otherwise the reaper ends it as hung".to_owned(),
            Self::DaemonSilent { .. } => {
                "look after its daemon; if the daemon does not come back, the reaper ends the job as hung".to_owned()
            }
            Self::Canceling => "wait until its daemon ends it; the reaper does if the daemon does not".to_owned(),
            Self::NoDaemons => "start a provisioner daemon for the organization".to_owned(),
            Self::NoDaemonHasTags { tags, .. } => {
                format!("start a provisioner daemon {}, or change the tags of the template's version", with(tags))
            }
            Self::OtherProvisioners { provisioner, .. } => {
                format!("start a provisioner daemon with its tags that runs {provisioner}")
            }
            Self::AllOffline { .. } => "start one of these daemons again, or another one with their tags".to_owned(),
            Self::AllBusy { .. } => "wait for its turn, or start another daemon with its tags".to_owned(),
            Self::Ranked(_) => "wait for its turn; if no daemon takes it, read the log of an idle one".to_owned(),
        }
    }
}

/// The reason in words that fit behind "it waits:" and behind "they wait:".
impl fmt::Display for WhyWaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last_seen =
            |at: &Option<OffsetDateTime>| match at.and_then(|at| at.truncate_to_second().format(&Rfc3339).ok()) {
                Some(at) => format!("last seen at {at}"),
                None => "never seen".to_owned(),
            };
        let matching = |daemons: &i64, what: &str| match daemons {
            1 => format!("the only matching daemon is {what}"),
            2 => format!("both matching daemons are {what}"),
            daemons => format!("all {daemons} matching daemons are {what}"),
        };
        match self {
            Self::DaemonGone => f.write_str("taken by a daemon that is gone"),
            Self::DaemonSilent { last_seen_at } => {
                write!(f, "taken by a daemon that is offline, {}", last_seen(last_seen_at))
            }
            Self::Canceling => f.write_str("being canceled"),
            Self::NoDaemons => f.write_str("the organization has no daemons"),
            Self::NoDaemonHasTags { tags, .. } if *tags == Tags::untagged() => f.write_str("no daemon is untagged"),
            Self::NoDaemonHasTags { missing, .. } if !missing.0.is_empty() => write!(f, "no daemon has {missing}"),
            Self::NoDaemonHasTags { tags, .. } if tags.0.is_empty() => f.write_str("no daemon has these tags"),
            Self::NoDaemonHasTags { tags, .. } => write!(f, "no daemon has all of {tags}"),
            Self::OtherProvisioners { provisioner, running } => {
                write!(f, "the daemons with these tags do not run {provisioner}")?;
                let running: Vec<_> = running.iter().map(ToString::to_string).collect();
                if running.is_empty() { Ok(()) } else { write!(f, " but {}", running.join(" and ")) }
            }
            Self::AllOffline { daemons, last_seen_at } => {
                write!(f, "{}, {}", matching(daemons, "offline"), last_seen(last_seen_at))
            }
            Self::AllBusy { daemons, position } => {
                write!(f, "{}: position {} of {}", matching(daemons, "busy"), position.position, position.size)
            }
            Self::Ranked(position) => {
                write!(f, "position {} of {} in the queue of a matching daemon", position.position, position.size)
            }
        }
    }
}

/// How many daemons there are of each status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DaemonCounts {
    /// Not seen for longer than the stale interval, or never.
    pub offline: i64,
    /// Waiting for a job.
    pub idle: i64,
    /// Working on one.
    pub busy: i64,
}

impl DaemonCounts {
    /// Those that are not offline.
    #[must_use]
    pub const fn online(&self) -> i64 {
        self.idle + self.busy
    }
}

impl std::ops::AddAssign for DaemonCounts {
    fn add_assign(&mut self, other: Self) {
        self.offline += other.offline;
        self.idle += other.idle;
        self.busy += other.busy;
    }
}

/// The pending jobs of an organization with the same tags and provisioner, and the daemons that can take them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagQueue {
    /// Whose jobs.
    pub organization_id: OrganizationId,
    /// Their tags.
    pub tags: Tags,
    /// Their provisioner.
    pub provisioner: Label<ProvisionerType>,
    /// How many they are.
    pub jobs: i64,
    /// How many of them the prebuilds user asked for.
    pub prebuilds: i64,
    /// When the oldest of them was created.
    pub oldest: OffsetDateTime,
    /// The daemons that can take them.
    pub daemons: DaemonCounts,
}

/// What one more daemon could take of what waits (domain: claims).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FurtherDaemon {
    /// How many jobs.
    pub jobs: i64,
    /// How many of them the prebuilds user asked for.
    pub prebuilds: i64,
    /// How many of them no daemon that is online can take.
    pub unserved: i64,
    /// The one that it would take first.
    pub first: Option<JobId>,
}
