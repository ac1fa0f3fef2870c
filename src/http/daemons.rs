//! Provisioner daemons.

use axum::{Json, extract::State};
use time::OffsetDateTime;

use super::{Api, error::Failure, error::Message, path, path::Path, query::Query, session::Session};
use crate::{
    authz::ReadDaemons,
    duration,
    model::{DaemonDetails, DaemonFilter, DaemonStatus, daemon_json::DaemonJson},
    store::{daemons, jobs::STALE_INTERVAL},
};

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
) -> Result<Json<Vec<DaemonDetails>>, Failure> {
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
    Ok(Json(found))
}
