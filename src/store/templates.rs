//! Templates (domain 4.13), as far as listings name them.

use sqlx::PgConnection;

use super::{Error, Result};
use crate::model::{NameOrId, OrganizationId, Template, TemplateId};

/// The template with this id in the organization, also a deleted one. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or it belongs to another organization.
#[tracing::instrument(name = "db.templates.get", skip_all)]
pub async fn get(conn: &mut PgConnection, organization: OrganizationId, id: TemplateId) -> Result<Template> {
    sqlx::query_file_as!(Template, "queries/templates/get.sql", organization.0, id.0)
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("templates/get", e))?
        .ok_or_else(|| Error::not_found("template", id))
}

/// The template with this name in any case, deleted ones left out. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when the organization has none.
#[tracing::instrument(name = "db.templates.by_name", skip_all)]
pub async fn by_name(conn: &mut PgConnection, organization: OrganizationId, name: &str) -> Result<Template> {
    sqlx::query_file_as!(Template, "queries/templates/by_name.sql", organization.0, name)
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("templates/by_name", e))?
        .ok_or_else(|| Error::not_found("template", name))
}

/// The template of the organization that a person means. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub async fn resolve(
    conn: &mut PgConnection,
    organization: OrganizationId,
    template: &NameOrId<TemplateId>,
) -> Result<Template> {
    match template {
        NameOrId::Id(id) => get(conn, organization, *id).await,
        NameOrId::Name(name) => by_name(conn, organization, name).await,
    }
}
