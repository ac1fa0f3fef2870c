//! Organizations (domain: organizations). Deleted ones are never found.

use sqlx::PgConnection;

use super::{Error, Result, input, query::Query as _};
use crate::{
    authz::ReadOrganizations,
    model::{Entity, NameOrId, Organization, OrganizationId},
};

/// The organization with this id. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach it.
#[tracing::instrument(name = "db.organizations.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadOrganizations, id: OrganizationId) -> Result<Organization> {
    sqlx::query_file_as!(Organization, "queries/organizations/get.sql", id.0)
        .fetch_optional(conn)
        .of_query("organizations/get")
        .await?
        .filter(|organization| permit.reaches(organization.id))
        .ok_or_else(|| Error::not_found(Entity::Organization, id))
}

/// The organization with this name in any case. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach it.
#[tracing::instrument(name = "db.organizations.by_name", skip_all)]
pub async fn by_name(conn: &mut PgConnection, permit: &ReadOrganizations, name: &str) -> Result<Organization> {
    input::text("name", name)?;
    sqlx::query_file_as!(Organization, "queries/organizations/by_name.sql", name)
        .fetch_optional(conn)
        .of_query("organizations/by_name")
        .await?
        .filter(|organization| permit.reaches(organization.id))
        .ok_or_else(|| Error::not_found(Entity::Organization, name))
}

/// The organizations that the permit reaches, in the order of their names in any case. One round trip; a deployment has
/// few.
#[tracing::instrument(name = "db.organizations.list", skip_all)]
pub async fn list(conn: &mut PgConnection, permit: &ReadOrganizations) -> Result<Vec<Organization>> {
    let all = sqlx::query_file_as!(Organization, "queries/organizations/list.sql")
        .fetch_all(conn)
        .of_query("organizations/list")
        .await?;
    Ok(all.into_iter().filter(|organization| permit.reaches(organization.id)).collect())
}

/// The organization that is meant where none is named. One round trip.
///
/// # Errors
/// [`Error::NotFound`] with [`Entity::DefaultOrganization`] when none is the default, or the permit does not reach it.
#[tracing::instrument(name = "db.organizations.default", skip_all)]
pub async fn default(conn: &mut PgConnection, permit: &ReadOrganizations) -> Result<Organization> {
    sqlx::query_file_as!(Organization, "queries/organizations/default.sql")
        .fetch_optional(conn)
        .of_query("organizations/default")
        .await?
        .filter(|organization| permit.reaches(organization.id))
        .ok_or_else(|| Error::not_found(Entity::DefaultOrganization, "there is none"))
}

/// The organization that a person means (domain: organizations). One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach it.
pub async fn resolve(
    conn: &mut PgConnection,
    permit: &ReadOrganizations,
    organization: &NameOrId<OrganizationId>,
) -> Result<Organization> {
    match organization {
        NameOrId::Id(id) => get(conn, permit, *id).await,
        NameOrId::Name(name) => by_name(conn, permit, name).await,
    }
}
