//! Provisioner daemons.

use axum::{Json, extract::State};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Api, error::Failure, error::Message, path, path::Path, query::Query, session::Session};
use crate::{
    authz::ReadDaemons,
    duration,
    model::{DaemonDetails, DaemonFilter, DaemonJob, DaemonStatus, JobStatus, Label, ProvisionerType, Tags},
    store::{daemons, jobs::STALE_INTERVAL},
};

/// A provisioner daemon.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ProvisionerDaemon)]
pub(super) struct DaemonJson {
    id: Uuid,
    organization_id: Uuid,
    key_id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Null when it was never seen.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    last_seen_at: Option<OffsetDateTime>,
    name: String,
    version: String,
    api_version: String,
    #[schema(value_type = Vec<ProvisionerType>)]
    provisioners: Vec<Label<ProvisionerType>>,
    tags: Tags,
    key_name: String,
    status: DaemonStatus,
    #[schema(required)]
    current_job: Option<DaemonJobJson>,
    #[schema(required)]
    previous_job: Option<DaemonJobJson>,
}

/// What a daemon works on, or has worked on last.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ProvisionerDaemonJob)]
struct DaemonJobJson {
    id: Uuid,
    status: JobStatus,
    template_name: String,
    template_icon: String,
    template_display_name: String,
}

impl From<DaemonJob> for DaemonJobJson {
    fn from(job: DaemonJob) -> Self {
        let DaemonJob { id, status, template_name, template_display_name, template_icon } = job;
        Self { id: id.0, status, template_name, template_icon, template_display_name }
    }
}

impl From<DaemonDetails> for DaemonJson {
    fn from(details: DaemonDetails) -> Self {
        let DaemonDetails { daemon, status, key_name, current_job, previous_job } = details;
        Self {
            id: daemon.id.0,
            organization_id: daemon.organization_id.0,
            key_id: daemon.key_id.0,
            created_at: daemon.created_at,
            last_seen_at: daemon.last_seen_at,
            name: daemon.name,
            version: daemon.version,
            api_version: daemon.api_version,
            provisioners: daemon.provisioners,
            tags: daemon.tags,
            key_name,
            status,
            current_job: current_job.map(Into::into),
            previous_job: previous_job.map(Into::into),
        }
    }
}

/// List provisioner daemons
///
/// The newest first. Daemons that are offline are left out, unless they are asked for.
#[utoipa::path(
    get,
    path = "/api/v2/organizations/{organization}/provisionerdaemons",
    operation_id = "get-provisioner-daemons",
    tag = "Provisioning",
    params(
        ("organization" = String, Path, description = "Organization ID or name; `default` for the default one"),
        ("limit" = Option<u32>, Query, description = "At most so many; 50 if absent, 0 for all", maximum = 2_147_483_647),
        ("ids" = Option<Vec<Uuid>>, Query, explode = false, description = "Only these daemons"),
        ("tags" = Option<String>, Query, description = "Only daemons with these tags: a JSON object of strings"),
        ("status" = Option<Vec<DaemonStatus>>, Query, explode = false, description = "Only daemons with one of these statuses"),
        ("offline" = Option<bool>, Query, description = "Whether offline daemons are listed, too"),
        ("max_age" = Option<String>, Query, description = "Only daemons that were seen within this time, such as `24h`, or never"),
    ),
    responses(
        (status = 200, body = [DaemonJson], description = "The daemons"),
        (status = 400, body = Message, description = "A parameter is wrong or unknown"),
        (status = 404, body = Message, description = "There is no such organization, or no right to read its jobs"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    session: Session,
    Path(organization): Path<String>,
    mut query: Query,
) -> Result<Json<Vec<DaemonJson>>, Failure> {
    let mut conn = api.connection().await?;
    let organization = path::organization(&mut conn, &session, &organization).await?;
    let permit = ReadDaemons::check(&session.actor, organization.id)?;
    let limit = query.limit(50);
    let ids = query.list("ids");
    let tags = query.value("tags", super::jobs::tags);
    let status: Vec<DaemonStatus> = query.list("status");
    let offline = query.flag("offline").unwrap_or_default();
    let max_age = query.value("max_age", |text| {
        duration::parse(text)
            .filter(|_| !text.starts_with('-'))
            .ok_or_else(|| "must be a valid duration, such as 24h".to_owned())
    });
    query.finish()?;

    let now = OffsetDateTime::now_utc();
    // The status is computed from the time, so it is looked at here; an organization has few daemons.
    let filter = DaemonFilter { ids, tags, ..DaemonFilter::default() };
    let found = daemons::list(&mut conn, &permit, &filter, now, STALE_INTERVAL).await;
    let mut found = found.map_err(|error| Failure::from(error).at("Internal error fetching provisioner daemons."))?;
    let is_young = |details: &DaemonDetails| match (max_age.filter(|age| !age.is_zero()), details.daemon.last_seen_at) {
        (Some(age), Some(seen)) => now - seen <= age,
        _ => true,
    };
    let is_wanted = |is: DaemonStatus| match is {
        DaemonStatus::Offline if offline => true,
        DaemonStatus::Offline => status.contains(&is),
        is => status.is_empty() || status.contains(&is),
    };
    found.retain(|details| is_young(details) && is_wanted(details.status));
    found.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
    Ok(Json(found.into_iter().map(DaemonJson::from).collect()))
}
