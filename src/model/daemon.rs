//! Provisioner daemons: the processes that take jobs.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{DaemonId, DaemonStatus, JobId, JobStatus, Label, OrganizationId, ProvisionerKeyId, ProvisionerType, Tags};

/// A row of `provisioner_daemons` (domain: daemons). All times are UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct Daemon {
    /// The primary key, which jobs know as their worker.
    pub id: DaemonId,
    /// When it first connected.
    pub created_at: OffsetDateTime,
    /// Unique in its organization together with the owner in its tags, in any case of the latter.
    pub name: String,
    /// Which jobs it can carry out.
    pub provisioners: Vec<Label<ProvisionerType>>,
    /// The server that it connected to, where that is known.
    pub replica_id: Option<Uuid>,
    /// Which jobs it may take.
    pub tags: Tags,
    /// Its last sign of life; `None` when there was never one.
    pub last_seen_at: Option<OffsetDateTime>,
    /// The version of the program.
    pub version: String,
    /// The version of the protocol that it speaks.
    pub api_version: String,
    /// Whose jobs it takes.
    pub organization_id: OrganizationId,
    /// The key that it signed in with.
    pub key_id: ProvisionerKeyId,
}

/// What a daemon says of itself when it connects.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDaemon {
    /// Now; kept by a daemon that is there already.
    pub created_at: OffsetDateTime,
    /// 1 to 64 characters.
    pub name: String,
    /// Which jobs it can carry out.
    pub provisioners: Vec<ProvisionerType>,
    /// The server that it connects to; kept by a daemon that is there already.
    pub replica_id: Option<Uuid>,
    /// Which jobs it may take.
    pub tags: Tags,
    /// Its last sign of life.
    pub last_seen_at: Option<OffsetDateTime>,
    /// The version of the program.
    pub version: String,
    /// The version of the protocol that it speaks.
    pub api_version: String,
    /// The key that it signs in with. A built-in key serves daemons of every organization.
    pub key_id: ProvisionerKeyId,
}

/// Which daemons of an organization (domain: daemons). The filters combine by AND; the default lets every daemon pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonFilter {
    /// Only these; empty for any.
    pub ids: Vec<DaemonId>,
    /// Only daemons whose tags include all of these. The exact untagged set selects exactly untagged ones
    /// (domain: tags).
    pub tags: Option<Tags>,
    /// Only daemons with each of these tags, whatever others they have.
    pub has_tags: Vec<(String, String)>,
    /// At most so many; `None` for all.
    pub limit: Option<u32>,
}

/// A daemon with what it does and did (domain: daemons).
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonDetails {
    /// The daemon.
    pub daemon: Daemon,
    /// What it does.
    pub status: DaemonStatus,
    /// The name of its key.
    pub key_name: String,
    /// The job that it took and has not finished, even when it is offline.
    pub current_job: Option<DaemonJob>,
    /// The job that it finished last.
    pub previous_job: Option<DaemonJob>,
}

/// A job of a daemon. The names are empty where the job has no template, or one of another organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonJob {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// The name of the template that it works with.
    pub template_name: String,
    /// Its name for people.
    pub template_display_name: String,
    /// The path or URL of its icon.
    pub template_icon: String,
}

/// A daemon that may take a job.
#[derive(Debug, Clone, PartialEq)]
pub struct EligibleDaemon {
    /// The job.
    pub job_id: JobId,
    /// The daemon, online or not.
    pub daemon: Daemon,
}

/// What became of a daemon's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum HeartbeatOutcome {
    /// It is the last one now.
    Recorded,
    /// The stored one is later, or the daemon never connected: nothing was written.
    Ignored,
}
