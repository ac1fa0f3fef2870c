//! The JSON of a provisioner daemon, key by key, for the command line and over HTTP.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::{
    DaemonDetails, DaemonId, DaemonJob, DaemonStatus, JobId, JobStatus, Label, OrganizationId, ProvisionerKeyId,
    ProvisionerType, Tags,
};

/// A provisioner daemon.
#[derive(Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema), schema(as = ProvisionerDaemon))]
pub(crate) struct DaemonJson<'a> {
    id: DaemonId,
    organization_id: OrganizationId,
    key_id: ProvisionerKeyId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Null when it was never seen.
    #[serde(with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "http", schema(required))]
    last_seen_at: Option<OffsetDateTime>,
    name: &'a str,
    version: &'a str,
    api_version: &'a str,
    #[cfg_attr(feature = "http", schema(value_type = Vec<ProvisionerType>))]
    provisioners: &'a [Label<ProvisionerType>],
    tags: &'a Tags,
    key_name: &'a str,
    status: DaemonStatus,
    #[cfg_attr(feature = "http", schema(required))]
    current_job: Option<DaemonJobJson<'a>>,
    #[cfg_attr(feature = "http", schema(required))]
    previous_job: Option<DaemonJobJson<'a>>,
}

/// What a daemon works on, or has worked on last.
#[derive(Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema), schema(as = ProvisionerDaemonJob))]
struct DaemonJobJson<'a> {
    id: JobId,
    status: JobStatus,
    template_name: &'a str,
    template_icon: &'a str,
    template_display_name: &'a str,
}

impl<'a> From<&'a DaemonJob> for DaemonJobJson<'a> {
    fn from(job: &'a DaemonJob) -> Self {
        let DaemonJob { id, status, template_name, template_display_name, template_icon } = job;
        Self { id: *id, status: *status, template_name, template_icon, template_display_name }
    }
}

impl Serialize for DaemonDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { daemon, status, key_name, current_job, previous_job } = self;
        DaemonJson {
            id: daemon.id,
            organization_id: daemon.organization_id,
            key_id: daemon.key_id,
            created_at: daemon.created_at,
            last_seen_at: daemon.last_seen_at,
            name: &daemon.name,
            version: &daemon.version,
            api_version: &daemon.api_version,
            provisioners: &daemon.provisioners,
            tags: &daemon.tags,
            key_name,
            status: *status,
            current_job: current_job.as_ref().map(Into::into),
            previous_job: previous_job.as_ref().map(Into::into),
        }
        .serialize(serializer)
    }
}
