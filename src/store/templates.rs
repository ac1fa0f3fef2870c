//! Templates and their versions (domain: templates), as far as listings name them and workspaces are made from them.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Error, Result, StoredJson, Text, input, query::Query as _};
use crate::{
    authz::{FindTemplates, ReadTemplates},
    model::{
        Entity, JobStatus, NameOrId, OrganizationId, Template, TemplateId, TemplateRules, TemplateVersion,
        TemplateVersionId,
    },
};

/// The user, and the right that the lists of a template must give to that user.
fn lists(permit: &ReadTemplates) -> (Option<uuid::Uuid>, &'static str) {
    (permit.user().map(|user| user.0), permit.right().as_str())
}

/// The template with this id in the organization, also a deleted one. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, it belongs to another organization, or the permit does not reach it.
#[tracing::instrument(name = "db.templates.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadTemplates, id: TemplateId) -> Result<Template> {
    let (organization, (user, right)) = (permit.organization().0, lists(permit));
    sqlx::query_file_as!(Template, "queries/templates/get.sql", organization, id.0, user, right)
        .fetch_optional(conn)
        .of_query("templates/get")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Template, id))
}

/// The template with this name in any case, deleted ones left out. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when the organization has none that the permit reaches.
#[tracing::instrument(name = "db.templates.by_name", skip_all)]
pub async fn by_name(conn: &mut PgConnection, permit: &ReadTemplates, name: &str) -> Result<Template> {
    input::text("name", name)?;
    let (organization, (user, right)) = (permit.organization().0, lists(permit));
    sqlx::query_file_as!(Template, "queries/templates/by_name.sql", organization, name, user, right)
        .fetch_optional(conn)
        .of_query("templates/by_name")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Template, name))
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

struct RulesRow {
    id: TemplateId,
    name: Text,
    display_name: Text,
    organization_id: OrganizationId,
    deleted: bool,
    deprecated: Text,
    active_version_id: TemplateVersionId,
    default_ttl: i64,
    allow_user_autostop: bool,
    require_active_version: bool,
}

/// The template with this id, also a deleted one, in whichever organization the permit reaches, and what it says of its
/// workspaces. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none in an organization that is not deleted and that the permit reaches.
#[tracing::instrument(name = "db.templates.find", skip_all)]
pub async fn find(conn: &mut PgConnection, permit: &FindTemplates, id: TemplateId) -> Result<TemplateRules> {
    let (all, user) = (permit.everything_in(), permit.user().map(|user| user.0));
    let right = permit.right().as_str();
    let row = sqlx::query_file_as!(RulesRow, "queries/templates/find.sql", id.0, all.as_deref() as _, user, right)
        .fetch_optional(conn)
        .of_query("templates/find")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Template, id))?;
    let RulesRow { id, name, display_name, organization_id, .. } = row;
    Ok(TemplateRules {
        template: Template { id, name: name.0, display_name: display_name.0, organization_id },
        deleted: row.deleted,
        deprecated: Some(row.deprecated.0).filter(|reason| !reason.is_empty()),
        active_version_id: row.active_version_id,
        default_ttl: u64::try_from(row.default_ttl).ok().filter(|ttl| *ttl > 0).map(Duration::from_nanos),
        allow_user_autostop: row.allow_user_autostop,
        require_active_version: row.require_active_version,
    })
}

struct VersionRow {
    id: TemplateVersionId,
    name: Text,
    archived: bool,
    has_external_agent: Option<bool>,
    job_status: JobStatus,
    tags: StoredJson,
}

/// A version of a template of the organization, and how its import stands. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when the template has no such version, belongs to another organization, or the permit does not
/// reach it.
#[tracing::instrument(name = "db.templates.version", skip_all)]
pub async fn version(
    conn: &mut PgConnection,
    permit: &ReadTemplates,
    template: TemplateId,
    id: TemplateVersionId,
) -> Result<TemplateVersion> {
    let organization = permit.organization().0;
    let (user, right) = lists(permit);
    let row =
        sqlx::query_file_as!(VersionRow, "queries/templates/version.sql", organization, template.0, id.0, user, right)
            .fetch_optional(conn)
            .of_query("templates/version")
            .await?
            .ok_or_else(|| Error::not_found(Entity::TemplateVersion, id))?;
    Ok(TemplateVersion {
        id: row.id,
        name: row.name.0,
        archived: row.archived,
        job_status: row.job_status,
        tags: row.tags.0.unwrap_or_default().into(),
        has_external_agent: row.has_external_agent,
    })
}
