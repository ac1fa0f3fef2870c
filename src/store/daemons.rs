//! Provisioner daemons (domain: daemons).

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Result, StoredJson, Text, Timestamp, input, query::Query as _};
use crate::{
    authz::{ActAsDaemon, MaintainDaemons, ReadDaemons},
    model::{
        Daemon, DaemonDetails, DaemonFilter, DaemonId, DaemonJob, DaemonStatus, EligibleDaemon, Entity,
        HeartbeatOutcome, JobId, JobStatus, Label, NewDaemon, OrganizationId, ProvisionerKeyId, ProvisionerType, Tags,
    },
};

/// How long a daemon that gives no sign of life is kept (domain: daemons).
pub const KEEP: Duration = Duration::from_hours(7 * 24);

/// Adds the daemon of the permit to its organization, or overwrites the one with the same name and the same owner in
/// its tags (domain: daemons). Returns the daemon as it is stored: that one keeps its id, replica and creation time.
///
/// One round trip, and one more when the id is taken; locks the row.
///
/// # Errors
/// [`Error::NotFound`] when there is no such organization or key. [`Error::Conflict`] on `provisioner_daemons_pkey` when
/// the id is that of a daemon with another name, owner or organization. [`Error::Invalid`] when the name is empty or
/// longer than 64 characters, a text has NUL characters, or the owner is too long.
#[tracing::instrument(name = "db.daemons.upsert", skip_all)]
pub async fn upsert(conn: &mut PgConnection, permit: &ActAsDaemon, new: &NewDaemon) -> Result<Daemon> {
    input::name("name", &new.name)?;
    input::tags("tags", &new.tags)?;
    input::text("version", &new.version)?;
    input::text("api_version", &new.api_version)?;
    let created_at = input::time("created_at", new.created_at)?;
    let last_seen_at = new.last_seen_at.map(|at| input::time("last_seen_at", at)).transpose()?;
    let mut stored = upsert_once(conn, permit, new, created_at, last_seen_at).await;
    // A conflict on the name: another session has just created the daemon, and the next round finds it.
    let taken = |stored: &sqlx::Result<_>| stored.as_ref().err().and_then(input::constraint) == Some(PRIMARY_KEY);
    if taken(&stored) && !conn.is_in_transaction() {
        stored = upsert_once(conn, permit, new, created_at, last_seen_at).await;
    }
    stored.map(Daemon::from).map_err(|e| match input::constraint(&e) {
        Some(PRIMARY_KEY) => Error::Conflict { constraint: PRIMARY_KEY },
        Some("provisioner_daemons_organization_id_fkey") => {
            Error::not_found(Entity::Organization, permit.organization())
        }
        Some("provisioner_daemons_key_id_fkey") => Error::not_found(Entity::ProvisionerKey, new.key_id),
        _ => input::too_large("daemons/upsert", "tags", e),
    })
}

const PRIMARY_KEY: &str = "provisioner_daemons_pkey";

async fn upsert_once(
    conn: &mut PgConnection,
    permit: &ActAsDaemon,
    new: &NewDaemon,
    created_at: Timestamp,
    last_seen_at: Option<Timestamp>,
) -> sqlx::Result<DaemonRow> {
    let provisioners: Vec<_> = new.provisioners.iter().map(ToString::to_string).collect();
    sqlx::query_file_as!(
        DaemonRow,
        "queries/daemons/upsert.sql",
        permit.daemon().0,
        created_at,
        new.name,
        &provisioners,
        new.replica_id,
        json(&new.tags),
        last_seen_at as _,
        new.version,
        permit.organization().0,
        new.key_id.0,
        new.api_version
    )
    .fetch_one(conn)
    .await
}

/// Records that the daemon was alive at this time, unless it was seen later already (domain: daemons). One round trip;
/// locks the row.
///
/// # Errors
/// [`Error::NotFound`] when the daemon is not there, or in another organization: it must connect again.
#[tracing::instrument(name = "db.daemons.heartbeat", skip_all)]
pub async fn heartbeat(conn: &mut PgConnection, permit: &ActAsDaemon, now: OffsetDateTime) -> Result<HeartbeatOutcome> {
    let now = input::time("now", now)?;
    let (daemon, organization) = (permit.daemon(), permit.organization());
    let moved = sqlx::query_file_scalar!("queries/daemons/heartbeat.sql", daemon.0, organization.0, now)
        .fetch_optional(conn)
        .of_query("daemons/heartbeat")
        .await?;
    match moved {
        Some(true) => Ok(HeartbeatOutcome::Recorded),
        Some(false) => Ok(HeartbeatOutcome::Ignored),
        None => Err(Error::not_found(Entity::Daemon, daemon)),
    }
}

/// The daemons of the organization that pass the filter, newest first, with their status and jobs (domain: daemons).
/// Daemons of one moment come in descending order of their ids. One round trip, one snapshot, no locks.
///
/// A daemon is online when it was seen within `stale_interval` before `now`, usually
/// [`STALE_INTERVAL`](super::jobs::STALE_INTERVAL).
#[tracing::instrument(name = "db.daemons.list", skip_all)]
pub async fn list(
    conn: &mut PgConnection,
    permit: &ReadDaemons,
    filter: &DaemonFilter,
    now: OffsetDateTime,
    stale_interval: Duration,
) -> Result<Vec<DaemonDetails>> {
    filter.tags.as_ref().map_or(Ok(()), |tags| input::tags("tags", tags))?;
    filter.has_tags.iter().try_for_each(|tag| input::tags("has_tags", &Tags::from_iter([tag.clone()])))?;
    let ids: Vec<_> = filter.ids.iter().map(|id| id.0).collect();
    let pairs: Vec<String> =
        filter.has_tags.iter().map(|(key, value)| json(&Tags::from_iter([(key.as_str(), value.as_str())]))).collect();
    let rows = sqlx::query_file_as!(
        DetailsRow,
        "queries/daemons/list.sql",
        permit.organization().0,
        &ids,
        filter.tags.as_ref().map(json),
        input::before(now, stale_interval)?,
        filter.limit.map(i64::from),
        &pairs,
    )
    .fetch_all(conn)
    .of_query("daemons/list")
    .await?;
    Ok(rows.into_iter().map(DaemonDetails::from).collect())
}

/// The daemons of the organization that may take these jobs of it, online or not: by the id of the job, the oldest
/// daemon first; jobs without one are left out (domain: daemons). One round trip, one snapshot, no locks.
#[tracing::instrument(name = "db.daemons.eligible", skip_all)]
pub async fn eligible(conn: &mut PgConnection, permit: &ReadDaemons, jobs: &[JobId]) -> Result<Vec<EligibleDaemon>> {
    let jobs: Vec<_> = jobs.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(EligibleRow, "queries/daemons/eligible.sql", &jobs, permit.organization().0)
        .fetch_all(conn)
        .of_query("daemons/eligible")
        .await?;
    Ok(rows.into_iter().map(EligibleDaemon::from).collect())
}

/// Deletes the daemons of all organizations that were not seen for [`KEEP`] before `now`, or were never seen and are
/// older than that; returns how many (domain: daemons). Jobs keep naming them. One round trip; locks their rows.
#[tracing::instrument(name = "db.daemons.delete_old", skip_all)]
pub async fn delete_old(conn: &mut PgConnection, _permit: &MaintainDaemons, now: OffsetDateTime) -> Result<u64> {
    let done = sqlx::query_file!("queries/daemons/delete_old.sql", input::before(now, KEEP)?)
        .execute(conn)
        .of_query("daemons/delete_old")
        .await?;
    Ok(done.rows_affected())
}

/// The tags as the text of a JSON object.
fn json(tags: &Tags) -> String {
    serde_json::Value::from_iter(tags.0.clone()).to_string()
}

/// A struct for the columns of a daemon and more columns, because the query macros know no nesting.
macro_rules! daemon_row {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        struct $name {
            id: DaemonId,
            created_at: Timestamp,
            name: Text,
            provisioners: Vec<Label<ProvisionerType>>,
            replica_id: Option<Uuid>,
            tags: StoredJson,
            last_seen_at: Option<Timestamp>,
            version: Text,
            api_version: Text,
            organization_id: OrganizationId,
            key_id: ProvisionerKeyId,
            $($field: $type,)*
        }

        impl $name {
            fn daemon(&mut self) -> Daemon {
                Daemon {
                    id: self.id,
                    created_at: self.created_at.0,
                    name: std::mem::take(&mut self.name.0),
                    provisioners: std::mem::take(&mut self.provisioners),
                    replica_id: self.replica_id,
                    tags: self.tags.0.take().unwrap_or_default().into(),
                    last_seen_at: self.last_seen_at.map(|at| at.0),
                    version: std::mem::take(&mut self.version.0),
                    api_version: std::mem::take(&mut self.api_version.0),
                    organization_id: self.organization_id,
                    key_id: self.key_id,
                }
            }
        }
    };
}

daemon_row!(DaemonRow {});
daemon_row!(EligibleRow { job_id: JobId });
daemon_row!(DetailsRow {
    status: DaemonStatus,
    key_name: Text,
    current_job_id: Option<JobId>,
    current_job_status: Option<JobStatus>,
    current_job_template_name: Text,
    current_job_template_display_name: Text,
    current_job_template_icon: Text,
    previous_job_id: Option<JobId>,
    previous_job_status: Option<JobStatus>,
    previous_job_template_name: Text,
    previous_job_template_display_name: Text,
    previous_job_template_icon: Text,
});

impl From<DaemonRow> for Daemon {
    fn from(mut row: DaemonRow) -> Self {
        row.daemon()
    }
}

impl From<EligibleRow> for EligibleDaemon {
    fn from(mut row: EligibleRow) -> Self {
        Self { job_id: row.job_id, daemon: row.daemon() }
    }
}

impl From<DetailsRow> for DaemonDetails {
    fn from(mut row: DetailsRow) -> Self {
        let daemon = row.daemon();
        let current_job = row.current_job_id.zip(row.current_job_status).map(|(id, status)| DaemonJob {
            id,
            status,
            template_name: row.current_job_template_name.0,
            template_display_name: row.current_job_template_display_name.0,
            template_icon: row.current_job_template_icon.0,
        });
        let previous_job = row.previous_job_id.zip(row.previous_job_status).map(|(id, status)| DaemonJob {
            id,
            status,
            template_name: row.previous_job_template_name.0,
            template_display_name: row.previous_job_template_display_name.0,
            template_icon: row.previous_job_template_icon.0,
        });
        Self { daemon, status: row.status, key_name: row.key_name.0, current_job, previous_job }
    }
}
