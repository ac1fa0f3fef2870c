//! Licenses (domain: licenses). No error and no span shows the text of one.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Result, Timestamp, input, query::Query as _};
use crate::{
    authz::{ReadLicenses, WriteLicenses},
    model::{DeleteLicenseOutcome, Entity, License, LicenseId, NewLicense},
};

/// The channel on which the processes of a deployment, those of Coder's server included, tell each other that the
/// licenses have changed: `add`, `delete` or `refresh`.
pub const CHANNEL: &str = "licenses";

/// Adds a license, returns it with its id, and says `add` on [`CHANNEL`] (domain: licenses). One round trip.
///
/// # Errors
/// [`Error::Conflict`] on `licenses_jwt_key` when the text is stored already; the caller's transaction goes on.
/// [`Error::Invalid`] when the text is empty, has NUL characters or is too long to be unique.
#[tracing::instrument(name = "db.licenses.insert", skip_all)]
pub async fn insert(conn: &mut PgConnection, _permit: &WriteLicenses, new: &NewLicense) -> Result<License> {
    let jwt = new.jwt.expose();
    input::text("jwt", jwt)?;
    if jwt.is_empty() {
        return Err(Error::Invalid { field: "jwt", expected: "a signed text" });
    }
    let uploaded_at = input::time("uploaded_at", new.uploaded_at)?;
    let expires_at = input::time("expires_at", new.expires_at)?;
    let row = sqlx::query_file!("queries/licenses/insert.sql", uploaded_at, jwt, expires_at, new.uuid, CHANNEL)
        .fetch_optional(conn)
        .await
        .map_err(|e| input::too_large("licenses/insert", "jwt", e))?
        .ok_or(Error::Conflict { constraint: "licenses_jwt_key" })?;
    Ok(License {
        id: row.id,
        uploaded_at: row.uploaded_at.0,
        jwt: row.jwt.0.into(),
        expires_at: row.exp.0,
        uuid: row.uuid,
    })
}

/// All licenses, expired ones too, in the order in which they were added (domain: licenses). One round trip.
#[tracing::instrument(name = "db.licenses.list", skip_all)]
pub async fn list(conn: &mut PgConnection, _permit: &ReadLicenses) -> Result<Vec<License>> {
    let rows =
        sqlx::query_file_as!(LicenseRow, "queries/licenses/list.sql").fetch_all(conn).of_query("licenses/list").await?;
    Ok(rows.into_iter().map(License::from).collect())
}

/// The license with this id (domain: licenses). One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
#[tracing::instrument(name = "db.licenses.get", skip_all)]
pub async fn get(conn: &mut PgConnection, _permit: &ReadLicenses, id: LicenseId) -> Result<License> {
    sqlx::query_file_as!(LicenseRow, "queries/licenses/get.sql", id.0)
        .fetch_optional(conn)
        .of_query("licenses/get")
        .await?
        .map(License::from)
        .ok_or_else(|| Error::not_found(Entity::License, id))
}

/// The licenses that expire later than `now`, in the order in which they were added (domain: licenses). One round trip.
#[tracing::instrument(name = "db.licenses.unexpired", skip_all)]
pub async fn unexpired(conn: &mut PgConnection, _permit: &ReadLicenses, now: OffsetDateTime) -> Result<Vec<License>> {
    let now = input::time("now", now)?;
    let rows = sqlx::query_file_as!(LicenseRow, "queries/licenses/unexpired.sql", now)
        .fetch_all(conn)
        .of_query("licenses/unexpired")
        .await?;
    Ok(rows.into_iter().map(License::from).collect())
}

/// Deletes the license with this id, says `delete` on [`CHANNEL`], and returns whether there was one (domain:
/// licenses). One round trip; locks its row.
#[tracing::instrument(name = "db.licenses.delete", skip_all)]
pub async fn delete(conn: &mut PgConnection, _permit: &WriteLicenses, id: LicenseId) -> Result<DeleteLicenseOutcome> {
    let done = sqlx::query_file!("queries/licenses/delete.sql", id.0, CHANNEL)
        .execute(conn)
        .of_query("licenses/delete")
        .await?;
    Ok(match done.rows_affected() {
        0 => DeleteLicenseOutcome::Unknown,
        _ => DeleteLicenseOutcome::Deleted,
    })
}

/// Sends `refresh` on [`CHANNEL`]: Coder's server computes again what the licenses allow (domain: licenses). One round
/// trip, no locks.
#[tracing::instrument(name = "db.licenses.refresh", skip_all)]
pub async fn refresh(conn: &mut PgConnection, _permit: &WriteLicenses) -> Result<()> {
    sqlx::query_file!("queries/licenses/refresh.sql", CHANNEL)
        .execute(conn)
        .of_query("licenses/refresh")
        .await
        .map(|_| ())
}

struct LicenseRow {
    id: LicenseId,
    uploaded_at: Timestamp,
    jwt: String,
    exp: Timestamp,
    uuid: Uuid,
}

impl From<LicenseRow> for License {
    fn from(row: LicenseRow) -> Self {
        Self { id: row.id, uploaded_at: row.uploaded_at.0, jwt: row.jwt.into(), expires_at: row.exp.0, uuid: row.uuid }
    }
}
