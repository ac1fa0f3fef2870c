//! Prebuilt workspaces and their queue (domain: prebuilds).
//!
//! Where the domain only names a rule, the rule is this project's. A *prebuild* is a workspace whose first build the
//! prebuilds user started, from a preset; it *failed* when the job of that build did, and is *claimed* when the
//! workspace belongs to another user. A prebuild that was canceled neither failed nor succeeded.

use std::{num::NonZeroU32, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, Timestamp, input, query::Query as _};
use crate::{
    authz::{FindPrebuilds, MaintainPrebuilds},
    model::{
        CanceledPrebuild, Entity, GroupId, JobId, Label, PrebuildBackoff, PrebuildMetrics, PrebuildOrganization,
        PrebuildPreset, PrebuildStatus, PrebuildsInProgress, PresetId, PresetPrebuilds, RunningPrebuild, SetOutcome,
        StalePrebuilds, TemplateId, TemplateVersionId, WorkspaceBuildId, WorkspaceId,
    },
};

/// How many stale pending jobs each preset has: first starts of prebuilds, not taken by any daemon, of versions that
/// are no longer active. Presets without one are left out. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.count_stale_pending", skip_all)]
pub async fn count_stale_pending(conn: &mut PgConnection, permit: &MaintainPrebuilds) -> Result<Vec<StalePrebuilds>> {
    sqlx::query_file_as!(StalePrebuilds, "queries/prebuilds/count_stale_pending.sql", permit.organization().0)
        .fetch_all(conn)
        .of_query("prebuilds/count_stale_pending")
        .await
}

/// Cancels stale pending jobs of the preset, oldest first and at most one per pair of `ids`, and deletes the workspaces
/// of exactly these: each gets a delete build and its job, with the next pair of ids and no state, because nothing was
/// built. Without a daemon that could take that job, seen within `stale_interval` before `now`, it is complete and the
/// workspace deleted at once. Fewer than `ids` means that no more are left.
///
/// One round trip, one statement. Skips locked rows: jobs that are being taken, workspaces that are being claimed.
///
/// # Errors
/// [`Error::Conflict`] with `workspace_builds_pkey`, `provisioner_jobs_pkey`, or with
/// `workspace_builds_workspace_id_build_number_key` when another transaction builds one of the workspaces meanwhile.
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
    .in_span("prebuilds/cancel_stale_pending")
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
        .of_query("prebuilds/count_in_progress")
        .await
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

/// The prebuilt workspaces that run and are not claimed, oldest first. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.running", skip_all)]
pub async fn running(conn: &mut PgConnection, permit: &MaintainPrebuilds) -> Result<Vec<RunningPrebuild>> {
    let rows = sqlx::query_file_as!(RunningRow, "queries/prebuilds/running.sql", permit.organization().0)
        .fetch_all(conn)
        .of_query("prebuilds/running")
        .await?;
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
        .of_query("prebuilds/presets")
        .await
}

struct BackoffRow {
    preset_id: PresetId,
    failures: i64,
    last_failed_at: Timestamp,
}

/// The presets of active versions whose newest prebuilds failed, with how many did so since the last one that
/// succeeded, among those that started within `lookback` before `now`. How long a preset has to wait for so many
/// failures is up to the caller. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.backoff", skip_all)]
pub async fn backoff(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    now: OffsetDateTime,
    lookback: Duration,
) -> Result<Vec<PrebuildBackoff>> {
    let since = input::before(now, lookback)?;
    let rows = sqlx::query_file_as!(BackoffRow, "queries/prebuilds/backoff.sql", permit.organization().0, since as _)
        .fetch_all(conn)
        .of_query("prebuilds/backoff")
        .await?;
    let backoff = |BackoffRow { preset_id, failures, last_failed_at }| PrebuildBackoff {
        preset_id,
        failures,
        last_failed_at: last_failed_at.0,
    };
    Ok(rows.into_iter().map(backoff).collect())
}

/// The presets of active versions whose `limit` newest prebuilds that came to an end all failed, whenever that was:
/// they are to become [`PrebuildStatus::HardLimited`]. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.at_failure_limit", skip_all)]
pub async fn at_failure_limit(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    limit: NonZeroU32,
) -> Result<Vec<PresetId>> {
    let limit = i64::from(limit.get());
    sqlx::query_file_scalar!("queries/prebuilds/at_failure_limit.sql", permit.organization().0, limit)
        .fetch_all(conn)
        .of_query("prebuilds/at_failure_limit")
        .await
}

struct StatusRow {
    template_id: TemplateId,
    template_name: String,
    preset_id: PresetId,
    preset_name: String,
    is_active: bool,
    wanted: i32,
    status: Label<PrebuildStatus>,
    running: i64,
    eligible: i64,
    starting: i64,
    waiting: i64,
    waiting_since: Option<Timestamp>,
    credits: i64,
    failed: i64,
    failures: i64,
    last_failed_at: Option<Timestamp>,
}

/// What the prebuilt workspaces of each preset do now, and how many failed within `lookback` before `now`: of the
/// presets that want some, and of those that still hold some, by the names of template and preset. One round trip, one
/// snapshot, no locks; reads the unclaimed workspaces of the organization, and the prebuilds within `lookback`.
#[tracing::instrument(name = "db.prebuilds.status", skip_all)]
pub async fn status(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    now: OffsetDateTime,
    lookback: Duration,
) -> Result<Vec<PresetPrebuilds>> {
    let since = input::before(now, lookback)?;
    let rows = sqlx::query_file_as!(StatusRow, "queries/prebuilds/status.sql", permit.organization().0, since as _)
        .fetch_all(conn)
        .of_query("prebuilds/status")
        .await?;
    let status = |row: StatusRow| PresetPrebuilds {
        template_id: row.template_id,
        template_name: row.template_name,
        preset_id: row.preset_id,
        preset_name: row.preset_name,
        is_active: row.is_active,
        wanted: row.wanted,
        status: row.status,
        running: row.running,
        eligible: row.eligible,
        starting: row.starting,
        waiting: row.waiting,
        waiting_since: row.waiting_since.map(|at| at.0),
        credits: row.credits,
        failed: row.failed,
        failures: row.failures,
        last_failed_at: row.last_failed_at.map(|at| at.0),
    };
    Ok(rows.into_iter().map(status).collect())
}

/// Sets whether a preset gets prebuilt workspaces, and says whether that changed. One round trip; locks the preset.
///
/// # Errors
/// [`Error::NotFound`] when there is no such preset, or it belongs to another organization.
#[tracing::instrument(name = "db.prebuilds.set_status", skip_all)]
pub async fn set_status(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    preset: PresetId,
    status: PrebuildStatus,
) -> Result<SetOutcome> {
    let changed = sqlx::query_file_scalar!(
        "queries/prebuilds/set_status.sql",
        preset.0,
        permit.organization().0,
        status.as_str()
    )
    .fetch_optional(conn)
    .of_query("prebuilds/set_status")
    .await?;
    match changed {
        Some(true) => Ok(SetOutcome::Changed),
        Some(false) => Ok(SetOutcome::Unchanged),
        None => Err(Error::not_found(Entity::Preset, preset)),
    }
}

/// What became of all prebuilds, deleted ones included, by template and name of the preset. Reads every prebuild that
/// there ever was: for a page of metrics now and then. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.metrics", skip_all)]
pub async fn metrics(conn: &mut PgConnection, permit: &MaintainPrebuilds) -> Result<Vec<PrebuildMetrics>> {
    sqlx::query_file_as!(PrebuildMetrics, "queries/prebuilds/metrics.sql", permit.organization().0)
        .fetch_all(conn)
        .of_query("prebuilds/metrics")
        .await
}

/// The organizations for which [`presets`] has an answer, by name, and whether the prebuilds user has there what
/// [`ensure_organization`] makes. Deleted organizations are left out. One round trip, no locks.
#[tracing::instrument(name = "db.prebuilds.organizations", skip_all)]
pub async fn organizations(conn: &mut PgConnection, _permit: &FindPrebuilds) -> Result<Vec<PrebuildOrganization>> {
    sqlx::query_file_as!(PrebuildOrganization, "queries/prebuilds/organizations.sql")
        .fetch_all(conn)
        .of_query("prebuilds/organizations")
        .await
}

/// Makes the prebuilds user a member of the organization and of its quota group `coderprebuiltworkspaces`, which gets
/// the id `group` and an allowance of 0 when it is not there, and says whether anything was missing. What is there
/// stays as it is, the allowance included. One round trip; of callers at the same time, one makes it and the others
/// wait.
///
/// # Errors
/// [`Error::NotFound`] when there is no such organization, or it is deleted; [`Error::Conflict`] with `groups_pkey`.
#[tracing::instrument(name = "db.prebuilds.ensure_organization", skip_all)]
pub async fn ensure_organization(
    conn: &mut PgConnection,
    permit: &MaintainPrebuilds,
    group: GroupId,
    now: OffsetDateTime,
) -> Result<SetOutcome> {
    let (organization, now) = (permit.organization(), input::time("now", now)?);
    let changed =
        sqlx::query_file_scalar!("queries/prebuilds/ensure_organization.sql", organization.0, group.0, now as _)
            .fetch_optional(conn)
            .in_span("prebuilds/ensure_organization")
            .await
            .map_err(|e| Error::conflict("prebuilds/ensure_organization", &["groups_pkey"], e))?;
    match changed {
        Some(true) => Ok(SetOutcome::Changed),
        Some(false) => Ok(SetOutcome::Unchanged),
        None => Err(Error::not_found(Entity::Organization, organization)),
    }
}
