//! Uploaded files: the sources of templates (domain: files).

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Result, Text, Timestamp, input, query::Query as _};
use crate::{
    authz::{ReadFiles, RunJobs, UploadFiles},
    model::{Entity, File, FileId, FileOutcome, JobId, NewFile, UserId},
};

/// How large a file may be, in bytes: 100 MiB. This project's limit; the server's is ten times as high.
pub const MAX_SIZE: usize = 100 << 20;

struct FileRow {
    id: FileId,
    hash: Text,
    created_at: Timestamp,
    created_by: UserId,
    mimetype: Text,
    data: Vec<u8>,
}

impl From<FileRow> for File {
    fn from(row: FileRow) -> Self {
        let FileRow { id, hash, created_at, created_by, mimetype, data } = row;
        Self { id, hash: hash.0, created_at: created_at.0, created_by, mimetype: mimetype.0, data }
    }
}

/// Stores a file, once per user and content; the server takes its SHA-256. One round trip; waits for an upload of the
/// same content by the same user in this moment.
///
/// # Errors
/// [`Error::Invalid`] for more than [`MAX_SIZE`] bytes, or a type that is not 1 to 64 characters;
/// [`Error::Conflict`] with `files_pkey` when another file has the id.
#[tracing::instrument(name = "db.files.insert", skip_all)]
pub async fn insert(
    conn: &mut PgConnection,
    permit: &UploadFiles,
    file: &NewFile,
    now: OffsetDateTime,
) -> Result<FileOutcome> {
    let now = input::time("now", now)?;
    input::name("mimetype", &file.mimetype)?;
    if file.data.len() > MAX_SIZE {
        return Err(Error::Invalid { field: "data", expected: "100 MiB at most" });
    }
    let id = sqlx::query_file_scalar!(
        "queries/files/insert.sql",
        file.id.0,
        file.mimetype,
        file.data,
        now as _,
        permit.owner().0,
    )
    .fetch_one(conn)
    .in_span("files/insert")
    .await
    .map_err(|e| Error::conflict("files/insert", &["files_pkey"], e))?;
    Ok(if id == file.id { FileOutcome::Stored } else { FileOutcome::Known(id) })
}

/// One file with its content. One round trip, no locks.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach it.
#[tracing::instrument(name = "db.files.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadFiles, id: FileId) -> Result<File> {
    sqlx::query_file_as!(FileRow, "queries/files/get.sql", id.0, permit.owner().map(|owner| owner.0))
        .fetch_optional(conn)
        .of_query("files/get")
        .await?
        .map(File::from)
        .ok_or_else(|| Error::not_found(Entity::File, id))
}

/// The source of a job that the daemon carries out, with its content. One round trip, no locks.
///
/// # Errors
/// [`Error::NotFound`] when there is no such job, it is not (or no longer) the daemon's, it belongs to another
/// organization, or its source is gone.
#[tracing::instrument(name = "db.files.of_job", skip_all)]
pub async fn of_job(conn: &mut PgConnection, permit: &RunJobs, job: JobId) -> Result<File> {
    sqlx::query_file_as!(FileRow, "queries/files/of_job.sql", job.0, permit.organization().0, permit.daemon().0)
        .fetch_optional(conn)
        .of_query("files/of_job")
        .await?
        .map(File::from)
        .ok_or_else(|| Error::not_found(Entity::Job, job))
}
