//! What goes into the queue, and how each step of a job's life can end.

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{
    BuildReason, FileId, Job, JobErrorCode, JobId, JobStatus, JobType, Label, OrganizationId, ProvisionerType, Tags,
    TemplateVersionId, Transition, UserId, WorkspaceBuildId, WorkspaceId,
};

/// The target of a job about a version of a template: the version, and what is done to it. It decides the type of the
/// job (domain: jobs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobTarget {
    /// Import it.
    Import {
        /// The version. Its row may come after the job.
        version: TemplateVersionId,
        /// Its source, which the initiator has uploaded.
        file: FileId,
        /// Which provisioner carries it out.
        provisioner: ProvisionerType,
    },
    /// Plan it without building anything, from the source that it was imported from.
    DryRun(TemplateVersionId),
}

impl JobTarget {
    /// The type of a job about this.
    #[must_use]
    pub const fn job_type(self) -> JobType {
        match self {
            Self::Import { .. } => JobType::TemplateVersionImport,
            Self::DryRun(_) => JobType::TemplateVersionDryRun,
        }
    }

    /// The version.
    #[must_use]
    pub const fn template_version_id(self) -> TemplateVersionId {
        match self {
            Self::Import { version, .. } | Self::DryRun(version) => version,
        }
    }
}

/// A job that is about to enter the queue. Its organization, its initiator and its target come from the permit.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Now: when it enters the queue, and its first sign of life.
    pub created_at: OffsetDateTime,
    /// The other keys of its `input`, which this layer does not read.
    pub options: Map<String, Value>,
    /// Which daemons may take it.
    pub tags: Tags,
    /// Opaque tracing context.
    pub trace_metadata: Option<Value>,
}

/// The codes that a failing job may be given freely. `INSUFFICIENT_QUOTA` is none of them: it takes a rejected commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// `MISSING_TEMPLATE_PARAMETER`.
    MissingTemplateParameter,
    /// `REQUIRED_TEMPLATE_VARIABLES`.
    RequiredTemplateVariables,
}

impl FailureCode {
    /// The runner's classifier for the two older codes (domain: error codes): a case-sensitive search in the final
    /// message.
    ///
    /// Only for failures that the runner itself words: what a provisioner reports is passed on without a code. A text
    /// that mentions quota has no code, whatever it says.
    ///
    /// ```
    /// use coderdb::model::FailureCode;
    ///
    /// assert_eq!(FailureCode::classify("missing parameter: region"), Some(FailureCode::MissingTemplateParameter));
    /// assert_eq!(FailureCode::classify("insufficient quota"), None);
    /// ```
    #[must_use]
    pub fn classify(message: &str) -> Option<Self> {
        if message.contains("missing parameter") {
            Some(Self::MissingTemplateParameter)
        } else if message.contains("required template variables") {
            Some(Self::RequiredTemplateVariables)
        } else {
            None
        }
    }
}

impl From<FailureCode> for JobErrorCode {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::MissingTemplateParameter => Self::MissingTemplateParameter,
            FailureCode::RequiredTemplateVariables => Self::RequiredTemplateVariables,
        }
    }
}

/// The answer to a daemon that reports on a job (domain: worker messages): only the daemon that took a job may.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum ByWorker<T> {
    /// The job is the daemon's own, and this came of the report.
    Done(T),
    /// No daemon has taken the job: "job isn't running yet". Nothing changed.
    NotRunningYet,
    /// Another daemon has taken the job: "you don't own this job". Nothing changed.
    OtherOwner,
    /// The job was the daemon's own, and has ended: by the reaper, say. Nothing changed; the daemon should stop.
    Ended,
}

/// What a daemon learns from its heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Heartbeat {
    /// Whether the job is to be canceled: the daemon should stop and end it.
    pub cancel_requested: bool,
}

/// How a job fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failure<'a> {
    /// What went wrong. Empty for nothing: the job ends without an error.
    pub error: &'a str,
    /// What kind of failure that is, if it is one of those that are told apart.
    pub code: Option<FailureCode>,
    /// What Terraform knows of what a build did nevertheless; `None` leaves what is stored.
    pub provisioner_state: Option<&'a [u8]>,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The job. It is `canceled` if that was requested and it has no error.
    pub job: Job,
    /// The build that it carried out, if it was for one: who watches its workspace is to be told.
    pub build: Option<EndedBuild>,
}

/// A build whose job has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedBuild {
    /// The build.
    pub id: WorkspaceBuildId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The owner of that.
    pub owner_id: UserId,
    /// Why there was a build.
    pub reason: Label<BuildReason>,
    /// What it was to do to the workspace.
    pub transition: Label<Transition>,
}

/// Who is to be notified of a build that failed (domain: ending a job).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureNotice {
    /// The template admins: a build that a user asked for failed.
    ToTemplateAdmins,
    /// The owner of the workspace: an automatic build failed.
    ToOwner(UserId),
}

impl Ended {
    /// Who is to be notified; `None` unless a build failed.
    #[must_use]
    pub fn notice(&self) -> Option<FailureNotice> {
        let build = self.build.as_ref().filter(|_| self.job.status == JobStatus::Failed)?;
        Some(if build.reason == BuildReason::Initiator {
            FailureNotice::ToTemplateAdmins
        } else {
            FailureNotice::ToOwner(build.owner_id)
        })
    }
}

/// How an attempt to end a job went.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum End {
    /// It has.
    Ended(Box<Ended>),
    /// It had ended before: "job already completed". Nothing changed but what the field says.
    AlreadyCompleted {
        /// Whether the state that came too late is stored with the build: it is, where no newer build of the workspace
        /// exists, so that what was built can be destroyed.
        state_kept: bool,
    },
}

/// How a request to cancel a job went (domain: canceling).
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum CancelOutcome {
    /// No daemon worked on it, so it has ended.
    Canceled(Box<Job>),
    /// Its daemon sees it in the answer to its next heartbeat, and ends the job.
    Canceling(Box<Job>),
    /// It had ended before. Nothing changed.
    AlreadyFinished(Box<Job>),
    /// It was requested before. Nothing changed.
    AlreadyCanceled(Box<Job>),
    /// Its status is not the expected one. Nothing changed.
    NotInExpectedState(Box<Job>),
    /// Its template does not let users cancel builds that run: owner role is required. Nothing changed.
    NotAllowed,
}

/// Why a job is to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stuck {
    /// No daemon ever took it.
    Pending,
    /// Its daemon no longer reports.
    Hung,
}

/// A job without a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StuckJob {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// What is wrong with it.
    pub stuck: Stuck,
}

/// An old job that was looked at (domain: pruning).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldJob {
    /// The job.
    pub id: JobId,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// How long its logs were when it ended, in bytes.
    pub logs_length: i32,
    /// Whether it has ended and nothing needs it, so that it is deleted, or would be.
    pub is_deletable: bool,
}

/// A table with more dead rows than autovacuum has come to (domain: pruning).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRows {
    /// Its name.
    pub table: String,
    /// How many dead rows the server counts there.
    pub dead_rows: i64,
}

/// How an attempt to reap a job went (domain: reaping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ReapOutcome {
    /// It has failed.
    Reaped {
        /// What was wrong with it.
        stuck: Stuck,
        /// The id that subscribers of its logs should read after.
        logs_after: i64,
    },
    /// Its row is locked, or it is gone. Nothing changed.
    Unavailable,
    /// It had ended before. Nothing changed.
    AlreadyCompleted,
    /// It has shown a sign of life since. Nothing changed.
    Alive,
}

/// A daemon that asks for work.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities<'a> {
    /// The provisioners that it can run.
    pub provisioners: &'a [ProvisionerType],
    /// Its tags.
    pub tags: &'a Tags,
}
