//! Steps of operations that take several.

use coderdb::{
    authz::{Actor, BuildWorkspaces, RunJobs},
    model::{
        BuildReason, Entity, JobId, NewBuild, OrganizationId, Tags, TemplateVersionId, Transition, WorkspaceBuildId,
        WorkspaceId,
    },
    sqlx::{self, Connection, PgConnection},
    store::{self, Error, Result, quota::CommitOutcome},
};

use crate::support::policy::{At, NOW, u};

/// The commit takes a serializable transaction, which one of the caller still can become.
pub async fn serializable(conn: &mut PgConnection) -> Result<()> {
    if conn.is_in_transaction() {
        let level = sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").execute(&mut *conn).await;
        level.map_err(Error::Unavailable)?;
    }
    Ok(())
}

pub async fn commit_quota(conn: &mut PgConnection, permit: &RunJobs, job: JobId, cost: i64) -> Result<CommitOutcome> {
    serializable(conn).await?;
    store::quota::commit(conn, permit, job, cost).await
}

/// The text without what the caller asked for by itself.
pub fn without_ids(text: &str, at: At) -> String {
    let mut text = text.to_owned();
    for kind in 0..=12 {
        text = text.replace(&u(at.home * 100 + kind).to_string(), "…");
    }
    for n in [at.organization, at.user] {
        text = text.replace(&u(n).to_string(), "…");
    }
    for (name, n) in [("organization", at.organization), ("template", at.home), ("user", at.user)] {
        text = text.replace(&format!("{name}-{n}"), "…");
    }
    text
}

/// Starts the workspace of organization 1 in a version.
pub async fn build(conn: &mut PgConnection, who: &Actor, version: u32) -> Result<usize> {
    let permit = BuildWorkspaces::check(who, OrganizationId(u(1)))?;
    let new = NewBuild {
        template_version_id: TemplateVersionId(u(version)),
        transition: Transition::Start,
        ..new_build(WorkspaceId(u(103)))
    };
    match store::builds::create(conn, &permit, &new, NOW).await {
        Err(Error::NotFound { entity, .. }) if entity != Entity::Template => panic!("{entity} not found"),
        created => Ok(usize::from(created? == 2)),
    }
}

/// A build that stops a workspace in the version that it has.
pub fn new_build(workspace: WorkspaceId) -> NewBuild {
    NewBuild {
        id: WorkspaceBuildId(u(5001)),
        job_id: JobId(u(5002)),
        workspace_id: workspace,
        template_version_id: TemplateVersionId(u(107)),
        preset_id: None,
        transition: Transition::Stop,
        reason: BuildReason::Initiator,
        provisioner_state: None,
        deadline: None,
        max_deadline: None,
        tags: Tags::default(),
        options: serde_json::Map::new(),
        trace_metadata: None,
    }
}
