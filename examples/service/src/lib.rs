//! A service that uses the library alone, with migrations of its own beside those of the library.

use std::error::Error;

use coderdb::{
    authz::{Actor, ReadJobs, ReadOrganizations, ReadQuota},
    migrate::{self, MigrateOptions, Migrations},
    model::{JobDetails, JobFilter, JobStatus, PageRequest, Quota},
    sqlx::PgConnection,
    store,
};

mod own {
    refinery::embed_migrations!();
}

/// The library's migrations, then those of the service, whose tables refer to the library's.
///
/// # Errors
/// None: a test has made them.
pub fn migrations() -> Result<[Migrations; 2], migrate::Error> {
    Ok([Migrations::embedded(), Migrations::of_service(&own::migrations::runner(), "billing")?])
}

/// Brings the database up to date, if it is not.
///
/// # Errors
/// See [`migrate::Error`].
pub async fn migrate(conn: &mut PgConnection) -> Result<(), migrate::Error> {
    for migrations in migrations()? {
        migrate::up(conn, &MigrateOptions { migrations, ..MigrateOptions::default() }, |_| {}).await?;
    }
    Ok(())
}

/// The jobs that wait in the default organization, and what the first of those who wait consumes and may consume.
///
/// # Errors
/// Those of the library.
pub async fn waiting(
    conn: &mut PgConnection,
    actor: &Actor,
) -> Result<(Vec<JobDetails>, Option<Quota>), Box<dyn Error>> {
    let organization = store::organizations::default(conn, &ReadOrganizations::check(actor)).await?;
    let pending = JobFilter { status: vec![JobStatus::Pending], ..JobFilter::default() };
    let may_read = ReadJobs::check(actor, organization.id)?;
    let page = store::jobs::list(conn, &may_read, &pending, PageRequest::first(50)).await?;
    let Some(first) = page.rows.last() else { return Ok((page.rows, None)) };
    let may_read = ReadQuota::check(actor, first.job.initiator_id, organization.id)?;
    let quota = store::quota::usage(conn, &may_read).await?;
    Ok((page.rows, Some(quota)))
}
