//! Builds of workspaces (domain: builds).

use serde_json::{Map, Value};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, Text, Timestamp, input, query::Query as _};
use crate::{
    authz::{BuildWorkspaces, ProvisionerStates, ReadWorkspaces, RunJobs},
    model::{
        BuildReason, DeadlineOutcome, Entity, JobId, JobStatus, Label, NewBuild, PresetId, TemplateId,
        TemplateVersionId, Transition, UserId, WorkspaceBuild, WorkspaceBuildId, WorkspaceId,
    },
};

const ZERO: OffsetDateTime = time::macros::datetime!(0001-01-01 0:00 UTC);
const DEADLINE: &str = "workspace_builds_deadline_below_max_deadline";
/// A build that loses its number to another one is tried again; so many others in a row do not exist.
const MAX_ATTEMPTS: u32 = 1_000;

struct BuildRow {
    id: WorkspaceBuildId,
    created_at: Timestamp,
    updated_at: Timestamp,
    workspace_id: WorkspaceId,
    template_version_id: TemplateVersionId,
    build_number: i32,
    transition: Label<Transition>,
    initiator_id: UserId,
    job_id: JobId,
    job_status: JobStatus,
    job_error: Option<Text>,
    job_error_code: Option<Text>,
    deadline: Timestamp,
    max_deadline: Timestamp,
    reason: Label<BuildReason>,
    daily_cost: i32,
    template_version_preset_id: Option<PresetId>,
    has_external_agent: Option<bool>,
}

impl From<BuildRow> for WorkspaceBuild {
    fn from(row: BuildRow) -> Self {
        let nonzero = |at: Timestamp| Some(at.0).filter(|at| *at != ZERO);
        Self {
            id: row.id,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            workspace_id: row.workspace_id,
            template_version_id: row.template_version_id,
            build_number: row.build_number,
            transition: row.transition,
            initiator_id: row.initiator_id,
            job_id: row.job_id,
            job_status: row.job_status,
            job_error: row.job_error.map(|text| text.0).filter(|error| !error.is_empty()),
            job_error_code: row.job_error_code.map(|text| text.0).filter(|code| !code.is_empty()).map(Into::into),
            deadline: nonzero(row.deadline),
            max_deadline: nonzero(row.max_deadline),
            reason: row.reason,
            daily_cost: row.daily_cost,
            preset_id: row.template_version_preset_id,
            has_external_agent: row.has_external_agent,
        }
    }
}

/// Creates a build and the job that carries it out, both or neither, and returns the build's number: the next one of
/// the workspace, from 1, without a gap however many are created at once.
///
/// The job's source and provisioner are those of the template version's own job; its cost is 0 until the quota commit.
/// A start ends the dormancy of the workspace: it counts as used, and is not deleted any more.
///
/// It does not ask whether the build before has ended. One that has not leaves its state too late for this one, which
/// then goes on from an older state: look first, under the lock of
/// [`workspaces::get_with_lock`](super::workspaces::get_with_lock).
///
/// One round trip, one statement, and one more for every other build that took the number first. Waits for other
/// transactions that create a build of the workspace or delete it.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such workspace, the permit does not reach its owner, it is deleted,
/// or the version is not one of its template, or the preset not one of the version; and when neither a role nor the
/// lists of the template let read it for a start, or use it for another version than before. [`Error::Conflict`] with
/// `workspace_builds_deadline_below_max_deadline`, `workspace_builds_pkey`, `workspace_builds_job_id_key` or
/// `provisioner_jobs_pkey`. [`Error::Invalid`] for NUL characters, and options that name the build.
#[tracing::instrument(name = "db.builds.create", skip_all)]
pub async fn create(
    conn: &mut PgConnection,
    permit: &BuildWorkspaces,
    new: &NewBuild,
    now: OffsetDateTime,
) -> Result<i32> {
    let now = input::time("now", now)?;
    let deadline = new.deadline.map(|at| input::time("deadline", at)).transpose()?;
    let max_deadline = new.max_deadline.map(|at| input::time("max_deadline", at)).transpose()?;
    let input = input::job("workspace_build_id", new.id.0, &new.options)?;
    input::tags("tags", &new.tags)?;
    let tags = Value::from_iter(new.tags.0.clone());
    new.trace_metadata.as_ref().map_or(Ok(()), |metadata| input::json("trace_metadata", metadata))?;
    for _ in 0..MAX_ATTEMPTS {
        let row = sqlx::query_file!(
            "queries/builds/create.sql",
            new.id.0,
            new.workspace_id.0,
            new.job_id.0,
            permit.organization().0,
            permit.owner().map(|owner| owner.0),
            new.template_version_id.0,
            new.preset_id.map(|preset| preset.0),
            new.transition.as_str(),
            new.reason.as_str(),
            permit.initiator().0,
            new.provisioner_state.as_deref(),
            deadline as _,
            max_deadline as _,
            &tags as _,
            now,
            &input as _,
            new.trace_metadata as _,
            permit.reader().map(|reader| reader.0),
            permit.user().map(|user| user.0)
        )
        .fetch_optional(&mut *conn)
        .in_span("builds/create")
        .await
        .map_err(|e| {
            let constraints =
                [DEADLINE, "workspace_builds_pkey", "workspace_builds_job_id_key", "provisioner_jobs_pkey"];
            Error::conflict("builds/create", &constraints, e)
        })?
        .ok_or_else(|| Error::not_found(Entity::Workspace, new.workspace_id))?;
        if !row.allowed {
            return Err(Error::not_found(Entity::Template, row.template_id));
        }
        if let Some(number) = row.build_number {
            return Ok(number);
        }
    }
    Err(Error::Conflict { constraint: "workspace_builds_workspace_id_build_number_key" })
}

/// The build with this id. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, its workspace is in another organization, or the permit does not reach its
/// owner.
#[tracing::instrument(name = "db.builds.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadWorkspaces, id: WorkspaceBuildId) -> Result<WorkspaceBuild> {
    let owner = permit.owner().map(|owner| owner.0);
    sqlx::query_file_as!(BuildRow, "queries/builds/get.sql", permit.organization().0, owner, id.0)
        .fetch_optional(conn)
        .of_query("builds/get")
        .await?
        .map(Into::into)
        .ok_or_else(|| Error::not_found(Entity::Build, id))
}

/// The build that the job carries out. One round trip.
///
/// # Errors
/// As [`get`].
#[tracing::instrument(name = "db.builds.by_job", skip_all)]
pub async fn by_job(conn: &mut PgConnection, permit: &ReadWorkspaces, job: JobId) -> Result<WorkspaceBuild> {
    let owner = permit.owner().map(|owner| owner.0);
    sqlx::query_file_as!(BuildRow, "queries/builds/by_job.sql", permit.organization().0, owner, job.0)
        .fetch_optional(conn)
        .of_query("builds/by_job")
        .await?
        .map(Into::into)
        .ok_or_else(|| Error::not_found(Entity::BuildOfJob, job))
}

/// The build of the workspace with this number. One round trip.
///
/// # Errors
/// As [`get`].
#[tracing::instrument(name = "db.builds.by_number", skip_all)]
pub async fn by_number(
    conn: &mut PgConnection,
    permit: &ReadWorkspaces,
    workspace: WorkspaceId,
    number: i32,
) -> Result<WorkspaceBuild> {
    let owner = permit.owner().map(|owner| owner.0);
    let organization = permit.organization().0;
    sqlx::query_file_as!(BuildRow, "queries/builds/by_number.sql", organization, owner, workspace.0, number)
        .fetch_optional(conn)
        .of_query("builds/by_number")
        .await?
        .map(Into::into)
        .ok_or_else(|| Error::not_found(Entity::Build, number))
}

/// The build of the workspace with the highest number; `None` when it has none, or there is no such workspace where
/// the permit reaches. One round trip.
#[tracing::instrument(name = "db.builds.latest", skip_all)]
pub async fn latest(
    conn: &mut PgConnection,
    permit: &ReadWorkspaces,
    workspace: WorkspaceId,
) -> Result<Option<WorkspaceBuild>> {
    let owner = permit.owner().map(|owner| owner.0);
    sqlx::query_file_as!(BuildRow, "queries/builds/latest.sql", permit.organization().0, owner, workspace.0)
        .fetch_optional(conn)
        .of_query("builds/latest")
        .await
        .map(|found| found.map(Into::into))
}

/// What the job of the build was given beside its target, as [`NewBuild::options`] has it, such as the values of its
/// parameters; nothing where what is stored is no JSON object. One round trip.
///
/// # Errors
/// As [`get`].
#[tracing::instrument(name = "db.builds.options", skip_all)]
pub async fn options(
    conn: &mut PgConnection,
    permit: &BuildWorkspaces,
    id: WorkspaceBuildId,
) -> Result<Map<String, Value>> {
    let owner = permit.owner().map(|owner| owner.0);
    let stored = sqlx::query_file_scalar!("queries/builds/options.sql", permit.organization().0, owner, id.0)
        .fetch_optional(conn)
        .of_query("builds/options")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Build, id))?;
    Ok(match stored.0 {
        Some(Value::Object(options)) => options,
        _ => Map::new(),
    })
}

/// Sets when the workspace of a build stops by itself, and how far that may be moved; `None` for never and without a
/// bound. Does nothing for workspaces of the prebuilds user. One round trip; locks the build.
///
/// # Errors
/// [`Error::NotFound`] as [`get`]; [`Error::Conflict`] with `workspace_builds_deadline_below_max_deadline` when there is
/// a bound and no deadline that is not later.
#[tracing::instrument(name = "db.builds.update_deadline", skip_all)]
pub async fn update_deadline(
    conn: &mut PgConnection,
    permit: &BuildWorkspaces,
    id: WorkspaceBuildId,
    deadline: Option<OffsetDateTime>,
    max_deadline: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<DeadlineOutcome> {
    let now = input::time("now", now)?;
    let deadline = deadline.map(|at| input::time("deadline", at)).transpose()?;
    let max_deadline = max_deadline.map(|at| input::time("max_deadline", at)).transpose()?;
    let is_prebuild = sqlx::query_file_scalar!(
        "queries/builds/update_deadline.sql",
        permit.organization().0,
        permit.owner().map(|owner| owner.0),
        id.0,
        deadline as _,
        max_deadline as _,
        now
    )
    .fetch_optional(conn)
    .in_span("builds/update_deadline")
    .await
    .map_err(|e| Error::conflict("builds/update_deadline", &[DEADLINE], e))?
    .ok_or_else(|| Error::not_found(Entity::Build, id))?;
    Ok(if is_prebuild { DeadlineOutcome::Prebuild } else { DeadlineOutcome::Updated })
}

/// What Terraform knew when the build of a job began that the daemon carries out: what the build before left; `None`
/// for nothing. What it knows afterwards is stored when the job ends, by [`jobs::complete`](super::jobs::complete) and
/// [`jobs::fail`](super::jobs::fail). One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, it is not (or no longer) the daemon's, or it is for no build.
#[tracing::instrument(name = "db.builds.state_of_job", skip_all)]
pub async fn state_of_job(conn: &mut PgConnection, permit: &RunJobs, job: JobId) -> Result<Option<Vec<u8>>> {
    let (organization, daemon) = (permit.organization().0, permit.daemon().0);
    sqlx::query_file_scalar!("queries/builds/state_of_job.sql", job.0, organization, daemon)
        .fetch_optional(conn)
        .of_query("builds/state_of_job")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Job, job))
}

/// Stores what Terraform knows after a build. One round trip; locks the build.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such build.
#[tracing::instrument(name = "db.builds.update_state", skip_all)]
pub async fn update_state(
    conn: &mut PgConnection,
    permit: &ProvisionerStates,
    id: WorkspaceBuildId,
    state: &[u8],
    now: OffsetDateTime,
) -> Result<()> {
    let (organization, now) = (permit.organization().0, input::time("now", now)?);
    let done = sqlx::query_file!("queries/builds/update_state.sql", organization, id.0, state, now)
        .execute(conn)
        .of_query("builds/update_state")
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::not_found(Entity::Build, id)) }
}

/// What Terraform knew after a build; `None` when nothing was stored. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such build.
#[tracing::instrument(name = "db.builds.state", skip_all)]
pub async fn state(
    conn: &mut PgConnection,
    permit: &ProvisionerStates,
    id: WorkspaceBuildId,
) -> Result<Option<Vec<u8>>> {
    sqlx::query_file_scalar!("queries/builds/state.sql", permit.organization().0, id.0)
        .fetch_optional(conn)
        .of_query("builds/state")
        .await?
        .ok_or_else(|| Error::not_found(Entity::Build, id))
}
