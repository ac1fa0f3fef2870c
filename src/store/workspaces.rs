//! Workspaces (domain: workspaces).

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, input, query::Query as _};
use crate::{
    authz::{BuildWorkspaces, CreateWorkspaces, ReadWorkspaces},
    model::{Entity, InvalidWorkspaceName, NewWorkspace, Workspace, WorkspaceId, WorkspaceName},
};

/// Creates a workspace for the permit's owner, last used `now`. One round trip, one statement; locks nothing that
/// exists, but waits for a transaction that creates a workspace with the same name for the same owner.
///
/// # Errors
/// [`Error::Conflict`] with `workspaces_owner_id_lower_idx` when the owner has a workspace with that name in any case,
/// and with `workspaces_pkey` when there is one with that id; [`Error::NotFound`] when the organization has no such
/// template or is deleted, or the template is, or neither a role nor its lists let use it, or the owner is no member
/// there, deleted or suspended; [`Error::Invalid`] for a schedule with a NUL byte and a `ttl` beyond 292 years.
#[tracing::instrument(name = "db.workspaces.create", skip_all)]
pub async fn create(
    conn: &mut PgConnection,
    permit: &CreateWorkspaces,
    new: &NewWorkspace,
    now: OffsetDateTime,
) -> Result<()> {
    new.autostart_schedule.as_deref().map_or(Ok(()), |schedule| input::text("autostart_schedule", schedule))?;
    let now = input::time("now", now)?;
    let ttl = new.ttl.map(|ttl| i64::try_from(ttl.as_nanos())).transpose();
    let ttl = ttl.map_err(|_| Error::Invalid { field: "ttl", expected: "292 years at most" })?;
    sqlx::query_file!(
        "queries/workspaces/create.sql",
        new.id.0,
        permit.owner().0,
        permit.organization().0,
        new.template_id.0,
        new.name.as_str(),
        new.autostart_schedule.as_deref(),
        ttl,
        now,
        permit.user().map(|user| user.0)
    )
    .fetch_optional(conn)
    .in_span("workspaces/create")
    .await
    .map_err(|e| Error::conflict("workspaces/create", &["workspaces_owner_id_lower_idx", "workspaces_pkey"], e))?
    .map(|_| ())
    .ok_or_else(|| Error::not_found(Entity::Template, new.template_id))
}

impl From<InvalidWorkspaceName> for Error {
    fn from(_: InvalidWorkspaceName) -> Self {
        Self::Invalid { field: "name", expected: WorkspaceName::RULE }
    }
}

/// The workspace with this id in the organization, also a deleted one. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, it belongs to another organization, or the permit does not reach
/// its owner.
#[tracing::instrument(name = "db.workspaces.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadWorkspaces, id: WorkspaceId) -> Result<Workspace> {
    sqlx::query_file_as!(Workspace, "queries/workspaces/get.sql", permit.organization().0, id.0)
        .fetch_optional(conn)
        .of_query("workspaces/get")
        .await?
        .filter(|workspace| permit.reaches(workspace.owner_id))
        .ok_or_else(|| Error::not_found(Entity::Workspace, id))
}

/// The workspace with this id in the organization, also a deleted one, locked until the caller's transaction ends, so
/// that only one at a time decides on its next build. One round trip; waits for the lock of the row.
///
/// # Errors
/// As [`get`].
#[tracing::instrument(name = "db.workspaces.get_with_lock", skip_all)]
pub async fn get_with_lock(conn: &mut PgConnection, permit: &BuildWorkspaces, id: WorkspaceId) -> Result<Workspace> {
    let owner = permit.owner().map(|owner| owner.0);
    let organization = permit.organization().0;
    sqlx::query_file_as!(Workspace, "queries/workspaces/get_with_lock.sql", organization, owner, id.0)
        .fetch_optional(conn)
        .of_query("workspaces/get_with_lock")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Workspace, id))
}

/// The workspaces of the organization with this name in any case, deleted ones left out: one per owner at most,
/// ordered by the owner's username; empty when there is none. One round trip.
#[tracing::instrument(name = "db.workspaces.by_name", skip_all)]
pub async fn by_name(conn: &mut PgConnection, permit: &ReadWorkspaces, name: &str) -> Result<Vec<Workspace>> {
    input::text("name", name)?;
    let found = sqlx::query_file_as!(Workspace, "queries/workspaces/by_name.sql", permit.organization().0, name)
        .fetch_all(conn)
        .of_query("workspaces/by_name")
        .await?;
    Ok(found.into_iter().filter(|workspace| permit.reaches(workspace.owner_id)).collect())
}
