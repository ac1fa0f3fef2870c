//! The settings of prebuilt workspaces.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::{Api, body::Body, error::Failure, error::Message, query::Query, session::Session};
use crate::{
    authz::{ReadPrebuildsSettings, WritePrebuildsSettings},
    model::{PrebuildsSettings, SetOutcome},
    store::settings,
};

/// Get prebuilds settings
#[utoipa::path(
    get,
    path = "/api/v2/prebuilds/settings",
    operation_id = "get-prebuilds-settings",
    tag = "Prebuilds",
    responses(
        (status = 200, body = PrebuildsSettings, description = "The settings"),
        (status = 400, body = Message, description = "A parameter is unknown"),
        (status = 403, body = Message, description = "No right to read the settings"),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    session: Session,
    query: Query,
) -> Result<Json<PrebuildsSettings>, Failure> {
    query.finish()?;
    let permit = ReadPrebuildsSettings::check(&session.actor).map_err(|_| Failure::forbidden())?;
    let mut conn = api.connection().await?;
    let found = settings::prebuilds(&mut conn, &permit).await;
    Ok(Json(found.map_err(|error| Failure::from(error).at("Failed to unmarshal prebuilds settings."))?))
}

/// Update prebuilds settings
///
/// Paused, prebuilt workspaces are neither created nor deleted; jobs that wait or run go on.
#[utoipa::path(
    put,
    path = "/api/v2/prebuilds/settings",
    operation_id = "update-prebuilds-settings",
    tag = "Prebuilds",
    request_body = PrebuildsSettings,
    responses(
        (status = 200, body = PrebuildsSettings, description = "The settings"),
        (status = 304, description = "They were so before"),
        (status = 400, body = Message, description = "The body is no such settings, or a parameter is unknown"),
        (status = 403, body = Message, description = "No right to change the settings"),
        (status = 413, body = Message, description = "The body is too large"),
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    session: Session,
    query: Query,
    body: Result<Body<PrebuildsSettings>, Failure>,
) -> Result<Response, Failure> {
    query.finish()?;
    // Who may not write learns nothing of what is stored, nor of the body.
    let permit = WritePrebuildsSettings::check(&session.actor).map_err(|_| Failure::forbidden())?;
    let Body(wanted) = body?;
    let mut conn = api.connection().await?;
    match settings::set_prebuilds(&mut conn, &permit, wanted).await {
        Ok(SetOutcome::Changed) => Ok(Json(wanted).into_response()),
        Ok(SetOutcome::Unchanged) => Ok(StatusCode::NOT_MODIFIED.into_response()),
        Err(error) => Err(Failure::from(error).at("Internal error updating prebuilds settings.")),
    }
}
