//! Prebuilt workspaces and their queue (domain 7.7).

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, Timestamp, input};
use crate::{
    authz::MaintainPrebuilds,
    model::{
        CanceledPrebuild, JobId, PrebuildPreset, PrebuildsInProgress, PresetId, RunningPrebuild, StalePrebuilds,
        TemplateId, TemplateVersionId, WorkspaceBuildId, WorkspaceId,
    },
};

/// How many stale pending jobs each preset has: first starts of prebuilds, not taken by any daemon, of versions that
/// are no longer active. Presets without one are left out. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.count_stale_pending", skip_all)]
pub async fn count_stale_pending(conn: &mut PgConnection, permit: &MaintainPrebuilds) -> Result<Vec<StalePrebuilds>> {
    sqlx::query_file_as!(StalePrebuilds, "queries/prebuilds/count_stale_pending.sql", permit.organization().0)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("prebuilds/count_stale_pending", e))
}

/// Cancels stale pending jobs of the preset, oldest first and at most one per pair of `ids`, and deletes the workspaces
/// of exactly these: each gets a delete build and its job, with the next pair of ids and no state, because nothing was
/// built. Without a daemon that could take that job, seen within `stale_interval` before `now`, it is complete and the
/// workspace deleted at once. Fewer than `ids` means that no more are left.
///
/// One round trip, one statement. Skips what somebody else has locked: jobs that are being taken, workspaces that are
/// being claimed.
///
/// # Errors
/// [`Error::Conflict`] with `workspace_builds_pkey`, `provisioner_jobs_pkey`, or with
/// `workspace_builds_workspace_id_build_number_key` when somebody builds one of the workspaces in this moment.
#[tracing::instrument(name = "db.prebuilds.cancel_stale_pending", skip_all)]
pub async fn cancel_stale_pending(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    preset: PresetId,
    ids: &[(WorkspaceBuildId, JobId)],
    now: OffsetDateTime,
    stale_interval: Duration,
) -> Result<Vec<CanceledPrebuild>> {
    let (builds, jobs): (Vec<_>, Vec<_>) = ids.iter().map(|(build, job)| (build.0, job.0)).unzip();
    let online_since = input::before(now, stale_interval)?;
    let now = input::time("now", now)?;
    sqlx::query_file_as!(
        CanceledPrebuild,
        "queries/prebuilds/cancel_stale_pending.sql",
        permit.organization().0,
        preset.0,
        now,
        &builds,
        &jobs,
        online_since
    )
    .fetch_all(conn)
    .await
    .map_err(|e| {
        let constraints =
            ["workspace_builds_workspace_id_build_number_key", "workspace_builds_pkey", "provisioner_jobs_pkey"];
        Error::conflict("prebuilds/cancel_stale_pending", &constraints, e)
    })
}

/// How many prebuild jobs of active versions are pending or running, per preset and transition. One round trip, no
/// locks.
#[tracing::instrument(name = "db.prebuilds.count_in_progress", skip_all)]
pub async fn count_in_progress(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
) -> Result<Vec<PrebuildsInProgress>> {
    sqlx::query_file_as!(PrebuildsInProgress, "queries/prebuilds/count_in_progress.sql", permit.organization().0)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("prebuilds/count_in_progress", e))
}

struct RunningRow {
    id: WorkspaceId,
    name: String,
    template_id: TemplateId,
    template_version_id: TemplateVersionId,
    current_preset_id: Option<PresetId>,
    ready: bool,
    created_at: Timestamp,
}

/// The prebuilt workspaces that run and that nobody has claimed, oldest first. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.running", skip_all)]
pub async fn running(conn: &mut PgConnection, permit: &MaintainPrebuilds) -> Result<Vec<RunningPrebuild>> {
    let rows = sqlx::query_file_as!(RunningRow, "queries/prebuilds/running.sql", permit.organization().0)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("prebuilds/running", e))?;
    let running = |row: RunningRow| RunningPrebuild {
        id: row.id,
        name: row.name,
        template_id: row.template_id,
        template_version_id: row.template_version_id,
        current_preset_id: row.current_preset_id,
        ready: row.ready,
        created_at: row.created_at.0,
    };
    Ok(rows.into_iter().map(running).collect())
}

/// The presets that say how many prebuilt workspaces they want, of one template or of all, deleted ones included, by
/// template name. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.presets", skip_all)]
pub async fn presets(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    template: Option<TemplateId>,
) -> Result<Vec<PrebuildPreset>> {
    let template = template.map(|template| template.0);
    sqlx::query_file_as!(PrebuildPreset, "queries/prebuilds/presets.sql", permit.organization().0, template)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("prebuilds/presets", e))
}
