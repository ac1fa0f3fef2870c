//! The jobs that something else names: a build, a version of a template, a dry run of one.

use sqlx::PgConnection;

use crate::{
    authz::FindJobs,
    model::{Entity, FoundJob, JobId, TemplateVersionId, WorkspaceBuildId},
    store::{Error, Result, query::Query as _},
};

/// The job that carries out the build, and its organization, for which other permits are asked for then. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none where the permit reaches.
#[tracing::instrument(name = "db.jobs.find_of_build", skip_all)]
pub async fn find_of_build(conn: &mut PgConnection, permit: &FindJobs, build: WorkspaceBuildId) -> Result<FoundJob> {
    sqlx::query_file_as!(FoundJob, "queries/jobs/find_of_build.sql", build.0)
        .fetch_optional(conn)
        .of_query("jobs/find_of_build")
        .await?
        .filter(|found| permit.reaches(found.organization_id))
        .ok_or_else(|| Error::not_found(Entity::Build, build))
}

/// The job that imports the version of a template, and its organization, as [`find_of_build`]. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none where the permit reaches.
#[tracing::instrument(name = "db.jobs.find_of_version", skip_all)]
pub async fn find_of_version(
    conn: &mut PgConnection,
    permit: &FindJobs,
    version: TemplateVersionId,
) -> Result<FoundJob> {
    sqlx::query_file_as!(FoundJob, "queries/jobs/find_of_version.sql", version.0)
        .fetch_optional(conn)
        .of_query("jobs/find_of_version")
        .await?
        .filter(|found| permit.reaches(found.organization_id))
        .ok_or_else(|| Error::not_found(Entity::TemplateVersion, version))
}

/// The job, if it is a dry run of the version of a template, and its organization, as [`find_of_build`]. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none where the permit reaches.
#[tracing::instrument(name = "db.jobs.find_of_dry_run", skip_all)]
pub async fn find_of_dry_run(
    conn: &mut PgConnection,
    permit: &FindJobs,
    version: TemplateVersionId,
    job: JobId,
) -> Result<FoundJob> {
    sqlx::query_file_as!(FoundJob, "queries/jobs/find_of_dry_run.sql", version.0, job.0)
        .fetch_optional(conn)
        .of_query("jobs/find_of_dry_run")
        .await?
        .filter(|found| permit.reaches(found.organization_id))
        .ok_or_else(|| Error::not_found(Entity::Job, job))
}
