//! Organizations (domain 4.6). Deleted ones are never found.

use sqlx::PgConnection;

use super::{Error, Result};
use crate::model::{NameOrId, Organization, OrganizationId};

/// The organization with this id. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
#[tracing::instrument(name = "db.organizations.get", skip_all)]
pub async fn get(conn: &mut PgConnection, id: OrganizationId) -> Result<Organization> {
    sqlx::query_file_as!(Organization, "queries/organizations/get.sql", id.0)
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("organizations/get", e))?
        .ok_or_else(|| Error::not_found("organization", id))
}

/// The organization with this name in any case. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
#[tracing::instrument(name = "db.organizations.by_name", skip_all)]
pub async fn by_name(conn: &mut PgConnection, name: &str) -> Result<Organization> {
    sqlx::query_file_as!(Organization, "queries/organizations/by_name.sql", name)
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("organizations/by_name", e))?
        .ok_or_else(|| Error::not_found("organization", name))
}

/// The organization that is meant where none is named. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when no organization is the default.
#[tracing::instrument(name = "db.organizations.default", skip_all)]
pub async fn default(conn: &mut PgConnection) -> Result<Organization> {
    sqlx::query_file_as!(Organization, "queries/organizations/default.sql")
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("organizations/default", e))?
        .ok_or_else(|| Error::not_found("organization", "default"))
}

/// The organization that a person means (domain 10.1). One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub async fn resolve(conn: &mut PgConnection, organization: &NameOrId<OrganizationId>) -> Result<Organization> {
    match organization {
        NameOrId::Id(id) => get(conn, *id).await,
        NameOrId::Name(name) => by_name(conn, name).await,
    }
}
