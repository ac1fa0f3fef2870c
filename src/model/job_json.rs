//! The JSON of a provisioner job, key by key (domain: job json).

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    DaemonId, FileId, Job, JobDetails, JobErrorCode, JobId, JobInput, JobStatus, JobType, JobWithQueue, Label,
    OrganizationId, Tags, TemplateId, TemplateVersionId, Transition, UserId, WorkspaceBuildId, WorkspaceId,
};

/// A provisioner job.
#[derive(Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema), schema(as = ProvisionerJob))]
pub(crate) struct JobJson<'a> {
    id: JobId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    completed_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    canceled_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "str::is_empty")]
    #[cfg_attr(feature = "http", schema(required = false))]
    error: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    #[cfg_attr(feature = "http", schema(required = false, value_type = JobErrorCode))]
    error_code: &'a str,
    status: JobStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    worker_id: Option<DaemonId>,
    #[serde(skip_serializing_if = "str::is_empty")]
    #[cfg_attr(feature = "http", schema(required = false))]
    worker_name: &'a str,
    file_id: FileId,
    tags: &'a Tags,
    queue_position: i64,
    queue_size: i64,
    organization_id: OrganizationId,
    initiator_id: UserId,
    input: InputJson<'a>,
    #[cfg_attr(feature = "http", schema(value_type = JobType))]
    r#type: &'a Label<JobType>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[cfg_attr(feature = "http", schema(required = false))]
    available_workers: &'a [DaemonId],
    metadata: MetadataJson<'a>,
    logs_overflowed: bool,
}

/// What the job works on.
#[derive(Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema), schema(as = ProvisionerJobInput))]
struct InputJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    template_version_id: Option<TemplateVersionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    workspace_build_id: Option<WorkspaceBuildId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    error: Option<&'a str>,
}

/// The names of what the job works on.
#[derive(Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema), schema(as = ProvisionerJobMetadata))]
struct MetadataJson<'a> {
    template_version_name: &'a str,
    /// The zero UUID when there is no template: clients rely on the key.
    template_id: TemplateId,
    template_name: &'a str,
    template_display_name: &'a str,
    template_icon: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(nullable = false))]
    workspace_id: Option<WorkspaceId>,
    #[serde(skip_serializing_if = "str::is_empty")]
    #[cfg_attr(feature = "http", schema(required = false))]
    workspace_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(value_type = Option<Transition>, nullable = false))]
    workspace_build_transition: Option<&'a Label<Transition>>,
}

impl<'a> JobJson<'a> {
    fn new(job: &'a Job, queue_position: i64, queue_size: i64) -> Self {
        let JobInput { template_version_id, workspace_build_id, error } = &job.input;
        Self {
            id: job.id,
            created_at: job.created_at,
            started_at: job.started_at,
            completed_at: job.completed_at,
            canceled_at: job.canceled_at,
            error: job.error.as_deref().unwrap_or_default(),
            error_code: job.error_code.as_ref().map(JobErrorCode::as_str).unwrap_or_default(),
            status: job.status,
            worker_id: job.worker_id,
            worker_name: "",
            file_id: job.file_id,
            tags: &job.tags,
            queue_position,
            queue_size,
            organization_id: job.organization_id,
            initiator_id: job.initiator_id,
            input: InputJson {
                template_version_id: *template_version_id,
                workspace_build_id: *workspace_build_id,
                error: error.as_deref(),
            },
            r#type: &job.job_type,
            available_workers: &[],
            metadata: MetadataJson {
                template_version_name: "",
                template_id: TemplateId(Uuid::nil()),
                template_name: "",
                template_display_name: "",
                template_icon: "",
                workspace_id: None,
                workspace_name: "",
                workspace_build_transition: None,
            },
            logs_overflowed: job.logs_overflowed,
        }
    }
}

/// The keys (domain: job json) without worker name, available workers and metadata, which this query does not look up.
impl Serialize for JobWithQueue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JobJson::new(&self.job, self.queue_position, self.queue_size).serialize(serializer)
    }
}

/// All keys (domain: job json).
impl Serialize for JobDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JobJson {
            worker_name: &self.worker_name,
            available_workers: &self.available_workers,
            metadata: MetadataJson {
                template_version_name: &self.template_version_name,
                template_id: self.template_id.unwrap_or(TemplateId(Uuid::nil())),
                template_name: &self.template_name,
                template_display_name: &self.template_display_name,
                template_icon: &self.template_icon,
                workspace_id: self.workspace_id,
                workspace_name: &self.workspace_name,
                workspace_build_transition: self.workspace_build_transition.as_ref(),
            },
            ..JobJson::new(&self.job, self.queue_position, self.queue_size)
        }
        .serialize(serializer)
    }
}
