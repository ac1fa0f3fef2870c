//! Licenses. No answer shows the text of one.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Api, body::Body, done, error::Failure, error::Message, path::Path, query::Query, session::Session};
use crate::{
    authz::{ReadLicenses, WriteLicenses},
    licenses::{self, AddOutcome, Claims, LicenseError},
    model::{DeleteLicenseOutcome, License, LicenseId},
    store::{self, settings},
};

/// When the entitlements were last refreshed.
#[derive(Default)]
pub(super) struct Refreshed(Mutex<Option<Instant>>);

/// From one refresh to the next.
const PAUSE: Duration = Duration::from_mins(1);

impl Refreshed {
    /// How long one has to wait; `None` when one may refresh now, which is noted.
    fn wait(&self) -> Option<Duration> {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wait = last.and_then(|last| PAUSE.checked_sub(last.elapsed())).filter(|wait| !wait.is_zero());
        if wait.is_none() {
            *last = Some(Instant::now());
        }
        wait
    }
}

/// A license.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = License)]
pub(super) struct LicenseJson {
    id: i32,
    uuid: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    uploaded_at: OffsetDateTime,
    /// What it claims, as it is written in it; empty where what is stored is no license.
    #[schema(value_type = Object)]
    claims: Claims,
}

impl From<License> for LicenseJson {
    fn from(license: License) -> Self {
        let claims = licenses::claims(&license).unwrap_or_default();
        Self { id: license.id.0, uuid: license.uuid, uploaded_at: license.uploaded_at, claims }
    }
}

/// A license to add.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = AddLicenseRequest)]
pub(super) struct Add {
    /// The signed text: a JSON web token.
    license: String,
}

/// Get licenses
///
/// In the order in which they were added; expired ones, too. Without the right to read licenses, the list is empty.
#[utoipa::path(
    get,
    path = "/api/v2/licenses",
    operation_id = "get-licenses",
    tag = "Enterprise",
    responses(
        (status = 200, body = [LicenseJson], description = "The licenses"),
        (status = 400, body = Message, description = "A parameter is unknown"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    session: Session,
    query: Query,
) -> Result<Json<Vec<LicenseJson>>, Failure> {
    query.finish()?;
    let Ok(permit) = ReadLicenses::check(&session.actor) else { return Ok(Json(Vec::new())) };
    let mut conn = api.connection().await?;
    let found = store::licenses::list(&mut conn, &permit).await;
    let found = found.map_err(|error| Failure::from(error).at("Internal error fetching licenses."))?;
    Ok(Json(found.into_iter().map(Into::into).collect()))
}

/// Add new license
///
/// Its signature must be that of a key that the service knows. One that is not valid yet may be added.
#[utoipa::path(
    post,
    path = "/api/v2/licenses",
    operation_id = "add-new-license",
    tag = "Enterprise",
    request_body = Add,
    responses(
        (status = 201, body = LicenseJson, description = "It is added"),
        (status = 400, body = Message, description = "It is no license, or not one for this deployment, or the body is wrong"),
        (status = 403, body = Message, description = "No right to add licenses"),
        (status = 409, body = Message, description = "It is there already"),
        (status = 413, body = Message, description = "The body is too large"),
    )
)]
pub(super) async fn add(
    State(api): State<Api>,
    session: Session,
    query: Query,
    body: Result<Body<Add>, Failure>,
) -> Result<(StatusCode, Json<LicenseJson>), Failure> {
    const FAILED: &str = "Unable to add license to database";
    query.finish()?;
    let (read, write) = (ReadLicenses::check(&session.actor), WriteLicenses::check(&session.actor));
    let (Ok(read), Ok(write)) = (read, write) else { return Err(Failure::forbidden()) };
    let Body(Add { license }) = body?;
    let mut conn = api.connection().await?;
    let deployment = settings::deployment_id(&mut conn, &read).await;
    let deployment = deployment.map_err(|error| Failure::from(error).at(FAILED))?;
    let keys = &api.0.settings.license_keys;
    let new = licenses::verify(license.as_bytes(), keys, deployment.as_deref(), OffsetDateTime::now_utc())?;
    match licenses::add(&mut conn, &read, &write, &new).await {
        Ok(AddOutcome::Added(license)) => Ok((StatusCode::CREATED, Json(license.into()))),
        Ok(AddOutcome::Duplicate(id)) => {
            Err(Failure::new(StatusCode::CONFLICT, "License already exists.").detail(format!("It is license {id}.")))
        }
        Err(error) => Err(Failure::from(error).at(FAILED)),
    }
}

impl From<LicenseError> for Failure {
    fn from(error: LicenseError) -> Self {
        Self::bad_request(error.message()).detail(error.detail()).validation("license", error.code())
    }
}

/// Update license entitlements
///
/// Makes every server of the deployment compute its entitlements again. Once a minute at most.
#[utoipa::path(
    post,
    path = "/api/v2/licenses/refresh-entitlements",
    operation_id = "update-license-entitlements",
    tag = "Enterprise",
    responses(
        (status = 200, body = Message, description = "They are told"),
        (status = 400, body = Message, description = "Somebody did so within the last minute, or a parameter is unknown",
            headers(("Retry-After" = Option<u64>, description = "Seconds to wait"))),
        (status = 403, body = Message, description = "No right to add licenses"),
    )
)]
pub(super) async fn refresh(State(api): State<Api>, session: Session, query: Query) -> Result<Json<Message>, Failure> {
    query.finish()?;
    let permit = WriteLicenses::check(&session.actor).map_err(|_| Failure::forbidden())?;
    let mut conn = api.connection().await?;
    if let Some(wait) = api.0.refreshed.wait() {
        let seconds = wait.as_secs() + 1;
        let said =
            format!("Entitlements already recently refreshed, please wait {seconds} seconds to force a new refresh");
        return Err(Failure::bad_request(said).retry_after(Duration::from_secs(seconds)));
    }
    let told = store::licenses::refresh(&mut conn, &permit).await;
    told.map_err(|error| Failure::from(error).at("Failed to refresh entitlements"))?;
    Ok(done("Entitlements updated"))
}

/// Delete license
#[utoipa::path(
    delete,
    path = "/api/v2/licenses/{id}",
    operation_id = "delete-license",
    tag = "Enterprise",
    params(("id" = i32, Path, description = "License ID")),
    responses(
        (status = 200, description = "It is deleted"),
        (status = 400, body = Message, description = "A parameter is unknown"),
        (status = 403, body = Message, description = "No right to delete licenses"),
        (status = 404, body = Message, description = "There is no such license"),
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<(), Failure> {
    let not_found = |message: &str| Failure::new(StatusCode::NOT_FOUND, message);
    let id = id.parse().map(LicenseId).map_err(|_| not_found("License ID must be an integer"))?;
    query.finish()?;
    let permit = WriteLicenses::check(&session.actor).map_err(|_| Failure::forbidden())?;
    let mut conn = api.connection().await?;
    match store::licenses::delete(&mut conn, &permit, id).await {
        Ok(DeleteLicenseOutcome::Deleted) => Ok(()),
        Ok(DeleteLicenseOutcome::Unknown) => Err(not_found("Unknown license ID")),
        Err(error) => Err(Failure::from(error).at("Internal error deleting license.")),
    }
}
