//! Who asks: users with their roles (domain 12.2, 15).

use sqlx::PgConnection;

use super::{Error, Result};
use crate::{
    authz::{Actor, LoadActors},
    model::{OrganizationId, UserId},
};

struct RolesRow {
    site_roles: Vec<String>,
    organization_id: Option<OrganizationId>,
    organization_roles: Option<Vec<String>>,
}

/// The user as an actor, with the roles that the database holds now. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is no such user, or the user is deleted or suspended and may do nothing.
#[tracing::instrument(name = "db.actors.load", skip_all)]
pub async fn load(conn: &mut PgConnection, _permit: &LoadActors, user: UserId) -> Result<Actor> {
    let rows = sqlx::query_file_as!(RolesRow, "queries/actors/load.sql", user.0)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("actors/load", e))?;
    let Some(first) = rows.first() else { return Err(Error::not_found("user", user)) };
    let site = first.site_roles.clone();
    let organizations = rows.into_iter().filter_map(|row| row.organization_id.zip(row.organization_roles));
    Ok(Actor::user(user, &site, organizations))
}
