//! Builds of workspaces, their agents, and prebuilt workspaces.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    AgentLifecycle, AgentStatus, BuildReason, JobErrorCode, JobId, JobStatus, Label, LogLevel, OrganizationId,
    PrebuildStatus, PresetId, Tags, TemplateId, TemplateVersionId, Transition, UserId, WorkspaceAgentId,
    WorkspaceBuildId, WorkspaceId,
};

/// A name that a workspace may have (domain: workspaces).
///
/// 1 to 32 ASCII letters, digits and single hyphens, with a letter or a digit at both ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceName(String);

/// A text that cannot be the name of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a workspace; expected {}", WorkspaceName::RULE)]
pub struct InvalidWorkspaceName;

impl WorkspaceName {
    /// What is a name, in words.
    pub const RULE: &str = "1 to 32 letters, digits and single hyphens, starting and ending with a letter or digit, and \
                            neither new nor create";

    /// Words that addresses have in the place of the name of a workspace.
    const RESERVED: [&str; 2] = ["new", "create"];

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkspaceName {
    type Err = InvalidWorkspaceName;

    fn from_str(text: &str) -> Result<Self, InvalidWorkspaceName> {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if text.len() <= 32 && text.split('-').all(is_word) && !Self::RESERVED.contains(&text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidWorkspaceName)
        }
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for WorkspaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A workspace to create. Its organization and owner are those of the permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorkspace {
    /// The primary key.
    pub id: WorkspaceId,
    /// Its name.
    pub name: WorkspaceName,
    /// What it is made from.
    pub template_id: TemplateId,
    /// When it starts by itself, as a cron expression; `None` for never.
    pub autostart_schedule: Option<String>,
    /// After how long it stops by itself; `None` for never.
    pub ttl: Option<Duration>,
}

/// A build to create, and the job that carries it out. Its number is the next one of the workspace; who asked for it
/// comes from the permit.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBuild {
    /// The primary key.
    pub id: WorkspaceBuildId,
    /// The id of the job. Its source is that of the template version.
    pub job_id: JobId,
    /// Which workspace.
    pub workspace_id: WorkspaceId,
    /// A version of the workspace's template.
    pub template_version_id: TemplateVersionId,
    /// A preset of that version.
    pub preset_id: Option<PresetId>,
    /// What it does to the workspace.
    pub transition: Transition,
    /// Why.
    pub reason: BuildReason,
    /// What Terraform knows; `None` for what the build before left, `Some` of nothing for a fresh start.
    pub provisioner_state: Option<Vec<u8>>,
    /// When the workspace stops by itself.
    pub deadline: Option<OffsetDateTime>,
    /// How far the deadline may be moved; needs a deadline that is not later.
    pub max_deadline: Option<OffsetDateTime>,
    /// Which daemons may take the job.
    pub tags: Tags,
    /// The keys of the job's `input` that this layer does not read.
    pub options: Map<String, Value>,
    /// Opaque tracing context.
    pub trace_metadata: Option<Value>,
}

/// A row of `workspace_builds` without its provisioner state, which is big (domain: builds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceBuild {
    /// The primary key.
    pub id: WorkspaceBuildId,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When its row last changed.
    pub updated_at: OffsetDateTime,
    /// Which workspace.
    pub workspace_id: WorkspaceId,
    /// From which version of the template.
    pub template_version_id: TemplateVersionId,
    /// Its number among the builds of the workspace, from 1.
    pub build_number: i32,
    /// What it does to the workspace.
    pub transition: Label<Transition>,
    /// Who asked for it.
    pub initiator_id: UserId,
    /// The job that carries it out.
    pub job_id: JobId,
    /// How that stands.
    pub job_status: JobStatus,
    /// What went wrong with it; `None` for nothing.
    pub job_error: Option<String>,
    /// What kind of failure that is, if it is one of those that are told apart.
    pub job_error_code: Option<JobErrorCode>,
    /// When the workspace stops by itself; `None` for never.
    pub deadline: Option<OffsetDateTime>,
    /// How far the deadline may be moved; `None` without a bound.
    pub max_deadline: Option<OffsetDateTime>,
    /// Why.
    pub reason: Label<BuildReason>,
    /// Credits per day that its quota commit recorded; 0 before.
    pub daily_cost: i32,
    /// The preset that it was made from.
    pub preset_id: Option<PresetId>,
    /// Whether it has an external agent; `None` while that is not known.
    pub has_external_agent: Option<bool>,
}

/// A row of `workspace_agents`, as far as others than the agent itself need it (domain: agents).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceAgent {
    /// The primary key.
    pub id: WorkspaceAgentId,
    /// The agent that this one is a sub-agent of.
    pub parent_id: Option<WorkspaceAgentId>,
    /// Unique among the agents of the build.
    pub name: String,
    /// When the build made it.
    pub created_at: OffsetDateTime,
    /// When it first called.
    pub first_connected_at: Option<OffsetDateTime>,
    /// Its last sign of life.
    pub last_connected_at: Option<OffsetDateTime>,
    /// When it last hung up.
    pub disconnected_at: Option<OffsetDateTime>,
    /// How many seconds it may take to connect for the first time; 0 for no limit.
    pub connection_timeout_seconds: i32,
    /// Where its start-up or shutdown stands.
    pub lifecycle_state: Label<AgentLifecycle>,
    /// When its start-up scripts began.
    pub started_at: Option<OffsetDateTime>,
    /// When they were done.
    pub ready_at: Option<OffsetDateTime>,
    /// Such as `linux`.
    pub operating_system: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Its working directory, as it resolved it; may be empty.
    pub expanded_directory: String,
    /// Its place among the agents of the workspace; smaller comes first.
    pub display_order: i32,
    /// Bytes of log output stored for it; at most 1,048,576.
    pub logs_length: i32,
    /// Whether log output was dropped because of that cap.
    pub logs_overflowed: bool,
}

impl WorkspaceAgent {
    /// Whether it is connected: a pure function of the row, the time, and how long a silent agent counts
    /// (domain: agents).
    #[must_use]
    pub fn status(&self, now: OffsetDateTime, inactive_timeout: Duration) -> AgentStatus {
        let (Some(_), Some(last)) = (self.first_connected_at, self.last_connected_at.or(self.first_connected_at))
        else {
            let timeout = time::Duration::seconds(self.connection_timeout_seconds.into());
            let is_late = timeout.is_positive() && now - self.created_at > timeout;
            return if is_late { AgentStatus::Timeout } else { AgentStatus::Connecting };
        };
        let has_hung_up = self.disconnected_at.is_some_and(|at| at >= last);
        if has_hung_up || now - last > inactive_timeout { AgentStatus::Disconnected } else { AgentStatus::Connected }
    }
}

/// Where the start-up or the shutdown of an agent stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLifecycleState {
    /// The state.
    pub state: Label<AgentLifecycle>,
    /// When the start-up scripts began.
    pub started_at: Option<OffsetDateTime>,
    /// When they were done.
    pub ready_at: Option<OffsetDateTime>,
}

/// A line of an agent's log. Read, the level is a [`Label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLogLine<Level = LogLevel> {
    /// How bad it is.
    pub level: Level,
    /// The text; cut off after 1,024 characters. All of its bytes count towards the cap.
    pub output: String,
}

/// A stored line of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLog {
    /// Ascends within an agent.
    pub id: i64,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// The line.
    pub line: AgentLogLine<Label<LogLevel>>,
    /// Which of the agent's scripts wrote it.
    pub source: LogSourceId,
}

/// Where lines of an agent come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSourceId(pub Uuid);

impl LogSourceId {
    /// The source of lines that name none.
    pub const EXTERNAL: Self = Self(Uuid::from_u128(0x3b57_9bf4_1ed8_4b99_87a8_e9a1_e341_0410));
}

/// What became of a deadline.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineOutcome {
    /// It is set.
    Updated,
    /// The workspace belongs to the prebuilds user, and has no deadline until it is claimed.
    Prebuild,
}

/// How many stale pending jobs a preset has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StalePrebuilds {
    /// The preset.
    pub preset_id: PresetId,
    /// How many jobs.
    pub count: i64,
}

/// A prebuild whose pending job was canceled, and how its workspace goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanceledPrebuild {
    /// The job that was canceled.
    pub job_id: JobId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The template of that.
    pub template_id: TemplateId,
    /// The build that deletes the workspace.
    pub delete_build_id: WorkspaceBuildId,
    /// The job of that build: complete when `deleted`, else for a daemon.
    pub delete_job_id: JobId,
    /// Whether the workspace is deleted already, because no daemon could do it.
    pub deleted: bool,
}

/// How many prebuild jobs wait or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrebuildsInProgress {
    /// The template.
    pub template_id: TemplateId,
    /// Its active version.
    pub template_version_id: TemplateVersionId,
    /// What the builds do.
    pub transition: Label<Transition>,
    /// The preset that they are made from.
    pub preset_id: Option<PresetId>,
    /// How many jobs.
    pub count: i64,
}

/// A prebuilt workspace that runs and is not claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningPrebuild {
    /// The primary key.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// What it is made from.
    pub template_id: TemplateId,
    /// The version that it runs.
    pub template_version_id: TemplateVersionId,
    /// The preset of its newest build that has one.
    pub current_preset_id: Option<PresetId>,
    /// Whether all of its agents are ready.
    pub ready: bool,
    /// When it was created.
    pub created_at: OffsetDateTime,
}

/// A preset that wants prebuilt workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrebuildPreset {
    /// The template.
    pub template_id: TemplateId,
    /// Its name.
    pub template_name: String,
    /// Whether it is gone.
    pub template_deleted: bool,
    /// Whether it says that it should not be used.
    pub template_deprecated: bool,
    /// The version that the preset belongs to.
    pub template_version_id: TemplateVersionId,
    /// Its name.
    pub template_version_name: String,
    /// Whether it is the active one.
    pub is_active_version: bool,
    /// The preset.
    pub preset_id: PresetId,
    /// Its name.
    pub preset_name: String,
    /// How many workspaces it wants.
    pub desired_instances: i32,
    /// Whether it gets them.
    pub status: Label<PrebuildStatus>,
}

/// The failures for which a preset has to wait before it gets more prebuilt workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrebuildBackoff {
    /// The preset.
    pub preset_id: PresetId,
    /// How many of its prebuilds failed since the last one that did not; at least 1.
    pub failures: i64,
    /// When the last of them ended.
    pub last_failed_at: OffsetDateTime,
}

/// What became of all prebuilds of a template and a name of its presets, of all versions. These numbers only grow,
/// except when a preset or a workspace is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrebuildMetrics {
    /// The template.
    pub template_id: TemplateId,
    /// Its name.
    pub template_name: String,
    /// The name of the presets.
    pub preset_name: String,
    /// How many there ever were.
    pub created: i64,
    /// Of how many the first build failed.
    pub failed: i64,
    /// How many were claimed.
    pub claimed: i64,
}

/// What the prebuilt workspaces of a preset do now. Only unclaimed ones count, each by its newest build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresetPrebuilds {
    /// The template.
    pub template_id: TemplateId,
    /// Its name.
    pub template_name: String,
    /// The preset.
    pub preset_id: PresetId,
    /// Its name.
    pub preset_name: String,
    /// Whether it belongs to the active version of a template that is not deleted.
    pub is_active: bool,
    /// How many workspaces it wants; 0 if it is not active.
    pub wanted: i32,
    /// Whether it gets them: `hard_limited` after too many failures.
    pub status: Label<PrebuildStatus>,
    /// How many run.
    pub running: i64,
    /// How many of those can be claimed: all of their agents are ready.
    pub eligible: i64,
    /// How many are started by a daemon now.
    pub starting: i64,
    /// How many wait for a daemon to start them.
    pub waiting: i64,
    /// Since when the oldest of those waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub waiting_since: Option<OffsetDateTime>,
    /// What they all consume of the quota of the prebuilds user, in credits.
    pub credits: i64,
    /// How many prebuilds failed within the time that was asked for.
    pub failed: i64,
    /// How many of those failed since the last one that succeeded.
    pub failures: i64,
    /// When the last of these ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_failed_at: Option<OffsetDateTime>,
}

impl PresetPrebuilds {
    /// Until when the reconciler waits before it creates more, if it waits for `interval` after each failure since the
    /// last success; `None` if none failed.
    #[must_use]
    pub fn backoff_until(&self, interval: Duration) -> Option<OffsetDateTime> {
        let failures = u32::try_from(self.failures).ok().filter(|failures| *failures > 0)?;
        self.last_failed_at?.checked_add(time::Duration::try_from(interval.checked_mul(failures)?).ok()?)
    }
}

/// An organization that wants prebuilt workspaces, and what their user has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrebuildOrganization {
    /// The organization.
    pub id: OrganizationId,
    /// Its name.
    pub name: String,
    /// Whether the prebuilds user is a member.
    pub is_member: bool,
    /// Whether it has the quota group of prebuilds.
    pub has_group: bool,
    /// Whether the prebuilds user is in that group.
    pub is_in_group: bool,
}
