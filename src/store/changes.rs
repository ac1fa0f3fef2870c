//! How jobs stand, for those who wait for them (see [`crate::watch`]).

use sqlx::PgConnection;

use super::{Error, Result};
use crate::{
    authz::WatchJobs,
    model::{JobErrorCode, JobId, JobState, JobStatus, OrganizationId},
};

struct StateRow {
    id: JobId,
    organization_id: OrganizationId,
    job_status: JobStatus,
    error: Option<String>,
    error_code: Option<String>,
    last_log_id: Option<i64>,
}

/// How these jobs stand, in any order, in all organizations; ids that are not there are left out. One round trip, no
/// locks.
#[tracing::instrument(name = "db.changes.of_jobs", skip_all)]
pub async fn of_jobs(conn: &mut PgConnection, _permit: &WatchJobs, ids: &[JobId]) -> Result<Vec<JobState>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(StateRow, "queries/changes/of_jobs.sql", &ids)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("changes/of_jobs", e))?;
    let state = |row: StateRow| JobState {
        id: row.id,
        organization_id: row.organization_id,
        status: row.job_status,
        error: row.error.filter(|error| !error.is_empty()),
        error_code: row.error_code.filter(|code| !code.is_empty()).map(JobErrorCode::from),
        last_log_id: row.last_log_id,
    };
    Ok(rows.into_iter().map(state).collect())
}

/// The jobs that wait, run or are being canceled, in the order of nothing, and a digest of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// The same for the same jobs with the same statuses.
    pub digest: String,
    /// The jobs; `None` when their digest is the one that the caller has.
    pub jobs: Option<Vec<(JobId, OrganizationId, JobStatus)>>,
}

/// The jobs of the organizations that wait, run or are being canceled, unless they are those with the given digest. One
/// round trip, no locks.
#[tracing::instrument(name = "db.changes.active", skip_all)]
pub async fn active(
    conn: &mut PgConnection,
    _permit: &WatchJobs,
    organizations: &[OrganizationId],
    digest: Option<&str>,
) -> Result<Active> {
    let organizations: Vec<_> = organizations.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file!("queries/changes/active.sql", &organizations, digest)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("changes/active", e))?;
    let now = rows.first().map(|row| row.digest.clone()).unwrap_or_default();
    let is_new = digest != Some(&now);

    Ok(Active {
        jobs: is_new.then(|| {
            rows.into_iter().filter_map(|row| Some((row.id?, row.organization_id?, row.job_status?))).collect()
        }),
        digest: now,
    })
}

/// Tells every process that listens on the channel of each of the texts, each up to 7,999 bytes. One round trip.
#[tracing::instrument(name = "db.changes.announce", skip_all)]
pub async fn announce(conn: &mut PgConnection, _permit: &WatchJobs, channel: &str, texts: &[String]) -> Result<()> {
    sqlx::query_file!("queries/changes/announce.sql", channel, texts)
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(|e| Error::from_sqlx("changes/announce", e))
}
