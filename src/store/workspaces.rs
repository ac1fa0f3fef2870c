//! Workspaces (domain 4.15), as far as listings name them.

use sqlx::PgConnection;

use super::{Error, Result};
use crate::{
    authz::ReadWorkspaces,
    model::{Workspace, WorkspaceId},
};

/// The workspace with this id in the organization, also a deleted one. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, it belongs to another organization, or the permit does not reach
/// its owner.
#[tracing::instrument(name = "db.workspaces.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadWorkspaces, id: WorkspaceId) -> Result<Workspace> {
    sqlx::query_file_as!(Workspace, "queries/workspaces/get.sql", permit.organization().0, id.0)
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("workspaces/get", e))?
        .filter(|workspace| permit.reaches(workspace.owner_id))
        .ok_or_else(|| Error::not_found("workspace", id))
}

/// The workspaces of the organization with this name in any case, deleted ones left out: one per owner at most,
/// ordered by the owner's username; empty when there is none. One round trip.
#[tracing::instrument(name = "db.workspaces.by_name", skip_all)]
pub async fn by_name(conn: &mut PgConnection, permit: &ReadWorkspaces, name: &str) -> Result<Vec<Workspace>> {
    let found = sqlx::query_file_as!(Workspace, "queries/workspaces/by_name.sql", permit.organization().0, name)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("workspaces/by_name", e))?;
    Ok(found.into_iter().filter(|workspace| permit.reaches(workspace.owner_id)).collect())
}
