//! Templates (domain 4.13), as far as listings name them.

use sqlx::PgConnection;

use super::{Error, Result, input};
use crate::{
    authz::ReadTemplates,
    model::{NameOrId, Template, TemplateId},
};

/// The template with this id in the organization, also a deleted one. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or it belongs to another organization.
#[tracing::instrument(name = "db.templates.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadTemplates, id: TemplateId) -> Result<Template> {
    sqlx::query_file_as!(Template, "queries/templates/get.sql", permit.organization().0, id.0)
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
pub async fn by_name(conn: &mut PgConnection, permit: &ReadTemplates, name: &str) -> Result<Template> {
    input::text("name", name)?;
    sqlx::query_file_as!(Template, "queries/templates/by_name.sql", permit.organization().0, name)
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
    permit: &ReadTemplates,
    template: &NameOrId<TemplateId>,
) -> Result<Template> {
    match template {
        NameOrId::Id(id) => get(conn, permit, *id).await,
        NameOrId::Name(name) => by_name(conn, permit, name).await,
    }
}
