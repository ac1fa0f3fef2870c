//! What a user consumes and may consume.

use axum::{Json, extract::State};

use super::{Api, error::Failure, error::Message, path, path::Path, query::Query, session, session::Session};
use crate::{authz::ReadQuota, model::Quota, store::quota};

/// Get workspace quota by user
///
/// In credits. The user need not be a member: former members may still consume credits.
#[utoipa::path(
    get,
    path = "/api/v2/organizations/{organization}/members/{user}/workspace-quota",
    operation_id = "get-workspace-quota-by-user",
    tag = "Enterprise",
    params(
        ("organization" = String, Path, description = "Organization ID or name; `default` for the default one"),
        ("user" = String, Path, description = "User ID, name, or `me`"),
    ),
    responses(
        (status = 200, body = Quota, description = "Credits"),
        (status = 400, body = Message, description = "A parameter is unknown"),
        (status = 404, body = Message, description = "There is no such organization or user, or no right to read the quota"),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    session: Session,
    Path((organization, user)): Path<(String, String)>,
    query: Query,
) -> Result<Json<Quota>, Failure> {
    query.finish()?;
    usage(&api, &session, &organization, &user).await
}

/// Get workspace quota by user in the default organization
#[utoipa::path(
    get,
    path = "/api/v2/workspace-quota/{user}",
    operation_id = "get-workspace-quota-by-user-deprecated",
    tag = "Enterprise",
    params(("user" = String, Path, description = "User ID, name, or `me`")),
    responses(
        (status = 200, body = Quota, description = "Credits"),
        (status = 400, body = Message, description = "A parameter is unknown"),
        (status = 404, body = Message, description = "There is no such user, or no right to read the quota"),
    )
)]
#[deprecated(note = "name the organization")]
pub(super) async fn get_in_default_organization(
    State(api): State<Api>,
    session: Session,
    Path(user): Path<String>,
    query: Query,
) -> Result<Json<Quota>, Failure> {
    query.finish()?;
    usage(&api, &session, "default", &user).await
}

async fn usage(api: &Api, session: &Session, organization: &str, user: &str) -> Result<Json<Quota>, Failure> {
    let mut conn = api.connection().await?;
    let organization = path::organization(&mut conn, session, organization).await?;
    let user = match session.user().filter(|_| user == "me") {
        Some(me) => me,
        None => session::user(&mut conn, session, user).await?.id,
    };
    let permit = ReadQuota::check(&session.actor, user, organization.id)?;
    let usage = quota::usage(&mut conn, &permit).await;
    Ok(Json(usage.map_err(|error| Failure::from(error).at("Failed to get consumed"))?))
}
