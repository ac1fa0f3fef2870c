//! The rows that statements on jobs return.

use uuid::Uuid;

use crate::{
    model::{
        DaemonId, FileId, Job, JobDetails, JobId, JobStatus, JobType, JobWithQueue, Label, OrganizationId,
        ProvisionerType, StorageMethod, TemplateId, Transition, UserId, WorkspaceId,
    },
    store::{StoredInput, StoredJson, Text, Timestamp},
};

/// A struct for the columns of a job and more columns, because the query macros know no nesting.
macro_rules! job_row {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(sqlx::FromRow)]
        pub(super) struct $name {
            pub(super) id: JobId,
            pub(super) created_at: Timestamp,
            pub(super) updated_at: Timestamp,
            pub(super) started_at: Option<Timestamp>,
            pub(super) canceled_at: Option<Timestamp>,
            pub(super) completed_at: Option<Timestamp>,
            pub(super) error: Option<Text>,
            pub(super) organization_id: OrganizationId,
            pub(super) initiator_id: UserId,
            pub(super) provisioner: Label<ProvisionerType>,
            pub(super) storage_method: Label<StorageMethod>,
            pub(super) job_type: Label<JobType>,
            pub(super) input: StoredInput,
            pub(super) worker_id: Option<DaemonId>,
            pub(super) file_id: FileId,
            pub(super) tags: StoredJson,
            pub(super) error_code: Option<Text>,
            pub(super) trace_metadata: Option<StoredJson>,
            pub(super) job_status: JobStatus,
            pub(super) logs_length: i32,
            pub(super) logs_overflowed: bool,
            $($(#[$meta])* pub(super) $field: $type,)*
        }

        impl $name {
            pub(super) fn job(&mut self) -> Job {
                Job {
                    id: self.id,
                    created_at: self.created_at.0,
                    updated_at: self.updated_at.0,
                    started_at: self.started_at.map(|at| at.0),
                    canceled_at: self.canceled_at.map(|at| at.0),
                    completed_at: self.completed_at.map(|at| at.0),
                    error: self.error.take().map(|text| text.0),
                    error_code: self.error_code.take().map(|code| code.0).filter(|code| !code.is_empty()).map(Into::into),
                    organization_id: self.organization_id,
                    initiator_id: self.initiator_id,
                    provisioner: self.provisioner.clone(),
                    storage_method: self.storage_method.clone(),
                    job_type: self.job_type.clone(),
                    input: std::mem::take(&mut self.input.0),
                    worker_id: self.worker_id,
                    file_id: self.file_id,
                    tags: self.tags.0.take().unwrap_or_default().into(),
                    trace_metadata: self.trace_metadata.take().and_then(|stored| stored.0),
                    status: self.job_status,
                    logs_length: self.logs_length,
                    logs_overflowed: self.logs_overflowed,
                }
            }
        }
    };
}

pub(super) use job_row;

job_row!(WithQueueRow { queue_position: i64, queue_size: i64 });

// The `!` and `?` are part of the column names: the macro reads them, and a statement built at run time keeps them.
job_row!(DetailsRow {
    #[sqlx(rename = "queue_position!")]
    queue_position: i64,
    #[sqlx(rename = "queue_size!")]
    queue_size: i64,
    #[sqlx(rename = "available_workers!")]
    available_workers: Vec<Uuid>,
    #[sqlx(rename = "template_version_name!: Text")]
    template_version_name: Text,
    #[sqlx(rename = "template_id?")]
    template_id: Option<TemplateId>,
    #[sqlx(rename = "template_name!: Text")]
    template_name: Text,
    #[sqlx(rename = "template_display_name!: Text")]
    template_display_name: Text,
    #[sqlx(rename = "template_icon!: Text")]
    template_icon: Text,
    #[sqlx(rename = "workspace_id?")]
    workspace_id: Option<WorkspaceId>,
    #[sqlx(rename = "workspace_name!: Text")]
    workspace_name: Text,
    #[sqlx(rename = "worker_name!: Text")]
    worker_name: Text,
    #[sqlx(rename = "workspace_build_transition?")]
    workspace_build_transition: Option<Label<Transition>>,
});

impl From<WithQueueRow> for JobWithQueue {
    fn from(mut row: WithQueueRow) -> Self {
        Self { job: row.job(), queue_position: row.queue_position, queue_size: row.queue_size }
    }
}

impl From<DetailsRow> for JobDetails {
    fn from(mut row: DetailsRow) -> Self {
        Self {
            job: row.job(),
            queue_position: row.queue_position,
            queue_size: row.queue_size,
            available_workers: row.available_workers.into_iter().map(DaemonId).collect(),
            worker_name: row.worker_name.0,
            workspace_build_transition: row.workspace_build_transition,
            workspace_id: row.workspace_id,
            workspace_name: row.workspace_name.0,
            template_version_name: row.template_version_name.0,
            template_id: row.template_id,
            template_name: row.template_name.0,
            template_display_name: row.template_display_name.0,
            template_icon: row.template_icon.0,
        }
    }
}
