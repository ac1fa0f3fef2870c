//! How jobs stand, for those who wait for them over one listening connection.

use sqlx::PgConnection;

use super::{Error, Result, Text, input, query::Query as _};
use crate::{
    authz::WatchJobs,
    model::{JobErrorCode, JobId, JobState, JobStatus, OrganizationId},
};

struct StateRow {
    id: JobId,
    organization_id: OrganizationId,
    job_status: JobStatus,
    error: Option<Text>,
    error_code: Option<Text>,
    last_log_id: Option<i64>,
}

/// How these jobs stand, in any order, in all organizations; ids that are not there are left out. One round trip, no
/// locks.
#[tracing::instrument(name = "db.changes.of_jobs", skip_all)]
pub async fn of_jobs(conn: &mut PgConnection, _permit: &WatchJobs, ids: &[JobId]) -> Result<Vec<JobState>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(StateRow, "queries/changes/of_jobs.sql", &ids)
        .fetch_all(conn)
        .of_query("changes/of_jobs")
        .await?;
    let state = |row: StateRow| JobState {
        id: row.id,
        organization_id: row.organization_id,
        status: row.job_status,
        error: row.error.map(|text| text.0).filter(|error| !error.is_empty()),
        error_code: row.error_code.map(|text| text.0).filter(|code| !code.is_empty()).map(JobErrorCode::from),
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
    pub jobs: Option<Vec<(JobId, JobStatus)>>,
}

/// The jobs of the organization that wait, run or are being canceled, unless they are those with the given digest. One
/// round trip, no locks.
///
/// # Errors
/// [`Error::Invalid`] for a digest with NUL characters.
#[tracing::instrument(name = "db.changes.active", skip_all)]
pub async fn active(
    conn: &mut PgConnection,
    _permit: &WatchJobs,
    organization: OrganizationId,
    digest: Option<&str>,
) -> Result<Active> {
    digest.map_or(Ok(()), |digest| input::text("digest", digest))?;
    let rows = sqlx::query_file!("queries/changes/active.sql", organization.0, digest)
        .fetch_all(conn)
        .of_query("changes/active")
        .await?;
    let now = rows.first().map(|row| row.digest.clone()).unwrap_or_default();
    let is_new = digest != Some(&now);

    Ok(Active {
        jobs: is_new.then(|| rows.into_iter().filter_map(|row| Some((row.id?, row.job_status?))).collect()),
        digest: now,
    })
}

/// The channel on which processes tell each other of changes.
pub const CHANNEL: &str = "coderdb_changes";

/// How long a text may be that is announced, in bytes: what the server takes.
pub const MAX_TEXT: usize = 7_999;

/// Tells every process that listens on [`CHANNEL`] each of the texts, when the transaction is committed. One round trip.
///
/// # Errors
/// [`Error::Invalid`] for texts of more than [`MAX_TEXT`] bytes, and for NUL characters.
#[tracing::instrument(name = "db.changes.announce", skip_all)]
pub async fn announce(conn: &mut PgConnection, _permit: &WatchJobs, texts: &[String]) -> Result<()> {
    for text in texts {
        input::text("texts", text)?;
        if text.len() > MAX_TEXT {
            return Err(Error::Invalid { field: "texts", expected: "7,999 bytes at most" });
        }
    }
    sqlx::query_file!("queries/changes/announce.sql", CHANNEL, texts)
        .execute(conn)
        .of_query("changes/announce")
        .await
        .map(|_| ())
}
