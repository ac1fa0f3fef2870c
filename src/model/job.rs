//! Provisioner jobs as the queries return them.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    DaemonId, FileId, JobId, JobStatus, JobType, Label, OrganizationId, ProvisionerType, StorageMethod, Tags,
    TemplateId, TemplateVersionId, Transition, UserId, WorkspaceBuildId, WorkspaceId,
};

/// A row of `provisioner_jobs` (domain: jobs). All times are UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The primary key.
    pub id: JobId,
    /// When it entered the queue.
    pub created_at: OffsetDateTime,
    /// The last sign of life of its daemon.
    pub updated_at: OffsetDateTime,
    /// When a daemon took it; `None` while it waits.
    pub started_at: Option<OffsetDateTime>,
    /// When its cancellation was requested.
    pub canceled_at: Option<OffsetDateTime>,
    /// When it ended.
    pub completed_at: Option<OffsetDateTime>,
    /// Why it failed; `None` or empty when it did not.
    pub error: Option<String>,
    /// What kind of failure it was, where that is known.
    pub error_code: Option<JobErrorCode>,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Who asked for it; [`UserId::PREBUILDS`] for prebuilt workspaces.
    pub initiator_id: UserId,
    /// Which provisioner carries it out.
    pub provisioner: Label<ProvisionerType>,
    /// How its source is stored.
    pub storage_method: Label<StorageMethod>,
    /// What it does.
    pub job_type: Label<JobType>,
    /// What it is about.
    pub input: JobInput,
    /// The daemon that took it; the daemon's row may be gone.
    pub worker_id: Option<DaemonId>,
    /// Its source.
    pub file_id: FileId,
    /// Which daemons may take it.
    pub tags: Tags,
    /// Opaque tracing context.
    pub trace_metadata: Option<Value>,
    /// Computed by the database from the times and the error.
    pub status: JobStatus,
    /// Bytes of log output stored for it; at most 1,048,576.
    pub logs_length: i32,
    /// Whether log output was dropped because of that cap.
    pub logs_overflowed: bool,
}

/// What a job is about: the ids in its `input` that this layer understands (domain: jobs).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobInput {
    /// The version to import or to try, for the two template jobs.
    pub template_version_id: Option<TemplateVersionId>,
    /// The build to carry out, for a workspace build.
    pub workspace_build_id: Option<WorkspaceBuildId>,
    /// Why the stored input could not be understood, beginning with `decode input`; `None` when it could.
    pub error: Option<String>,
}

impl JobInput {
    /// What a stored document means, whatever else is in it: numbers and depths that no decoder takes are passed over.
    ///
    /// ```
    /// use coderdb::model::JobInput;
    ///
    /// let input = JobInput::of(br#"{"workspace_build_id": "c0de0000-0006-4000-8000-000000000001"}"#);
    /// assert!(input.workspace_build_id.is_some() && input.error.is_none());
    /// ```
    #[must_use]
    pub fn of(json: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Ids<'a> {
            #[serde(borrow)]
            template_version_id: Option<&'a RawValue>,
            #[serde(borrow)]
            workspace_build_id: Option<&'a RawValue>,
        }

        let json = json.trim_ascii();
        if json == b"null" {
            return Self::default();
        }
        let ids = Some(json).filter(|json| json.starts_with(b"{")).and_then(|json| serde_json::from_slice(json).ok());
        let Some(Ids { template_version_id, workspace_build_id }) = ids else {
            return Self { error: Some("decode input: expected a JSON object".to_owned()), ..Self::default() };
        };
        let mut error = None;
        let mut id = |key: &str, value: Option<&RawValue>| {
            // As the operator ->> of the server: the text of a string, the JSON of anything else.
            let value = value?.get();
            let text = serde_json::from_str(value).unwrap_or_else(|_| value.to_owned());
            let id = uuid_as_the_server_reads_it(&text);
            if id.is_none() && error.is_none() {
                error = Some(format!("decode input: {key} is not a UUID"));
            }
            id
        };
        Self {
            template_version_id: id("template_version_id", template_version_id).map(TemplateVersionId),
            workspace_build_id: id("workspace_build_id", workspace_build_id).map(WorkspaceBuildId),
            error,
        }
    }
}

/// In braces or without, with a hyphen behind each four digits or without: what a listing joins is what it shows.
fn uuid_as_the_server_reads_it(text: &str) -> Option<Uuid> {
    let mut rest = match text.strip_prefix('{') {
        Some(inside) => inside.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(32);
    for group in 0..8 {
        if group > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let (four, behind) = rest.split_at_checked(4)?;
        digits.push_str(four);
        rest = behind;
    }
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_hex && rest.is_empty()).then(|| Uuid::try_parse(&digits).ok()).flatten()
}

/// What kind of failure ended a job (domain: error codes).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobErrorCode {
    /// `MISSING_TEMPLATE_PARAMETER`: the build lacks a parameter that its template requires.
    MissingTemplateParameter,
    /// `REQUIRED_TEMPLATE_VARIABLES`: the import lacks a variable that the template requires.
    RequiredTemplateVariables,
    /// `INSUFFICIENT_QUOTA`: the quota commit of the build was rejected.
    InsufficientQuota,
    /// A code that this version does not know, which only a database without the CHECK can hold.
    Other(String),
}

#[cfg(feature = "http")]
impl utoipa::PartialSchema for JobErrorCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        let known = [Self::MissingTemplateParameter, Self::RequiredTemplateVariables, Self::InsufficientQuota];
        let values = known.map(|code| code.as_str().to_owned());
        let doc = "What kind of failure ended a job; absent for every other failure.";
        ObjectBuilder::new().schema_type(Type::String).description(Some(doc)).enum_values(Some(values)).into()
    }
}

#[cfg(feature = "http")]
impl utoipa::ToSchema for JobErrorCode {
    fn name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }
}

impl JobErrorCode {
    /// The code as the database and the JSON contract spell it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::MissingTemplateParameter => "MISSING_TEMPLATE_PARAMETER",
            Self::RequiredTemplateVariables => "REQUIRED_TEMPLATE_VARIABLES",
            Self::InsufficientQuota => "INSUFFICIENT_QUOTA",
            Self::Other(code) => code,
        }
    }
}

impl JobErrorCode {
    /// Whether the build lacks a parameter that its template requires.
    #[must_use]
    pub const fn is_missing_template_parameter(&self) -> bool {
        matches!(self, Self::MissingTemplateParameter)
    }

    /// Whether the import lacks a variable that the template requires.
    #[must_use]
    pub const fn is_required_template_variables(&self) -> bool {
        matches!(self, Self::RequiredTemplateVariables)
    }

    /// Whether the quota commit of the build was rejected. The stored code alone decides, never a text.
    #[must_use]
    pub const fn is_insufficient_quota(&self) -> bool {
        matches!(self, Self::InsufficientQuota)
    }
}

impl From<String> for JobErrorCode {
    fn from(code: String) -> Self {
        match code.as_str() {
            "MISSING_TEMPLATE_PARAMETER" => Self::MissingTemplateParameter,
            "REQUIRED_TEMPLATE_VARIABLES" => Self::RequiredTemplateVariables,
            "INSUFFICIENT_QUOTA" => Self::InsufficientQuota,
            _ => Self::Other(code),
        }
    }
}

impl fmt::Display for JobErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A job with its position among the jobs that the same online daemons can take (domain: positions).
///
/// There is no worker name here: this is the query that templates and builds call for every page they show.
#[derive(Debug, Clone, PartialEq)]
pub struct JobWithQueue {
    /// The job.
    pub job: Job,
    /// The best position over all online tag sets that can serve the job, counted from 1; 0 when there is none.
    pub queue_position: i64,
    /// The longest queue over those tag sets, in jobs; 0 when there is none.
    pub queue_size: i64,
}

/// A job with everything that the listing of an organization shows (domain: listings).
///
/// Names are empty, and ids are `None`, where the job has no such thing, or where the workspace, template or version
/// belongs to another organization. The worker and the build are looked up by id alone.
#[derive(Debug, Clone, PartialEq)]
pub struct JobDetails {
    /// The job.
    pub job: Job,
    /// The position among all jobs that wait anywhere in the database, counted from 1; 0 when it does not wait.
    pub queue_position: i64,
    /// How many jobs wait anywhere in the database: the same number in every row.
    pub queue_size: i64,
    /// The daemons of the organization that may take the job, oldest first; empty once it has started.
    pub available_workers: Vec<DaemonId>,
    /// The name of the daemon that took the job.
    pub worker_name: String,
    /// What the job's build does to its workspace; `None` when the job builds no workspace.
    pub workspace_build_transition: Option<Label<Transition>>,
    /// The workspace that the job builds.
    pub workspace_id: Option<WorkspaceId>,
    /// Its name.
    pub workspace_name: String,
    /// The name of the template version that the job works with.
    pub template_version_name: String,
    /// The template of that version; a version that is being imported may have none yet.
    pub template_id: Option<TemplateId>,
    /// Its name.
    pub template_name: String,
    /// Its name for people.
    pub template_display_name: String,
    /// The path or URL of its icon.
    pub template_icon: String,
}

/// Which job something has, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundJob {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub organization_id: OrganizationId,
}

/// How a job stands, as far as those who wait for it care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Where it stands.
    pub status: JobStatus,
    /// What went wrong with it; `None` for nothing.
    pub error: Option<String>,
    /// What kind of failure that is, if it is one of those that are told apart.
    pub error_code: Option<JobErrorCode>,
    /// The id of its last log line; `None` when there is none.
    pub last_log_id: Option<i64>,
}
