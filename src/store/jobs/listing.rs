//! Listing jobs (domain: listings; positions): by filter, by ids, and how many there are.

use std::time::Duration;

use sea_query::PostgresQueryBuilder;
use sea_query_sqlx::SqlxBinder;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;

use super::{
    access_path::page_of_ids,
    filter,
    row::{DetailsRow, WithQueueRow},
};
use crate::{
    authz::ReadJobs,
    model::{
        Cursor, Entity, JobDetails, JobFilter, JobId, JobWithQueue, Label, Page, PageRequest, ProvisionerType,
        TagsCount, UserId,
    },
    store::{Error, Result, StoredJson, Text, Timestamp, input, query::Query as _},
};

/// The jobs of the organization that pass the filter, newest first, with their details (domain: listings). One round
/// trip, one snapshot, no locks; the queue numbers cost the same however many jobs wait.
///
/// The queue numbers are computed before the filter: a filtered listing shows real positions. Jobs of one moment come
/// in descending order of their ids.
///
/// ```no_run
/// use coderdb::{
///     authz::{Actor, ReadJobs, ReadOrganizations},
///     model::{JobFilter, JobStatus, PageRequest, UserId},
///     store,
/// };
///
/// # async fn doc(conn: &mut coderdb::sqlx::PgConnection, actor: &Actor) -> Result<(), coderdb::store::Error> {
/// let organization = store::organizations::default(conn, &ReadOrganizations::check(actor)).await?;
/// let permit = ReadJobs::check(actor, organization.id)?;
/// let stuck = JobFilter { status: vec![JobStatus::Pending], initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
/// let page = store::jobs::list(conn, &permit, &stuck, PageRequest::first(50)).await?;
/// for details in &page.rows {
///     println!("{} waits at {}/{}", details.job.id, details.queue_position, details.queue_size);
/// }
/// # Ok(()) }
/// ```
#[tracing::instrument(name = "db.jobs.list", skip_all)]
pub async fn list(
    conn: &mut PgConnection,
    permit: &ReadJobs,
    filter: &JobFilter,
    page: PageRequest,
) -> Result<Page<JobDetails>> {
    check(filter, page)?;
    let (ids, values) = page_of_ids(permit.organization(), filter, page).build_sqlx(PostgresQueryBuilder);
    let sql = LIST.replacen(IDS, &format!("ARRAY({ids})"), 1);
    let rows: Vec<JobDetails> = sqlx::query_as_with::<_, DetailsRow, _>(AssertSqlSafe(sql), values)
        .fetch_all(conn)
        .of_query("jobs/list")
        .await?
        .into_iter()
        .map(JobDetails::from)
        .collect();
    Ok(Page::of(rows, page.limit, |last| Cursor { created_at: last.job.created_at, id: last.job.id }))
}

/// The ids of the jobs of the organization that pass the filter, in the order of [`list`], for those who do something
/// to many of them. One round trip, no locks; unlike [`list`], it costs nothing but the rows that it returns.
#[tracing::instrument(name = "db.jobs.ids", skip_all)]
pub async fn ids(
    conn: &mut PgConnection,
    permit: &ReadJobs,
    filter: &JobFilter,
    page: PageRequest,
) -> Result<Page<JobId>> {
    check(filter, page)?;
    let (ids, values) = page_of_ids(permit.organization(), filter, page).build_sqlx(PostgresQueryBuilder);
    let sql = format!(
        "SELECT j.id, j.created_at FROM provisioner_jobs AS j WHERE j.id = ANY (ARRAY({ids})) \
         ORDER BY j.created_at DESC, j.id DESC"
    );
    let rows: Vec<(JobId, Timestamp)> =
        sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(conn).of_query("jobs/ids").await?;
    let page = Page::of(rows, page.limit, |(id, created_at)| Cursor { created_at: created_at.0, id: *id });
    Ok(Page { rows: page.rows.into_iter().map(|(id, _)| id).collect(), next: page.next })
}

/// How many of the jobs of the organization that pass the filter have which tags and provisioner, the most first. One round trip, one
/// snapshot, no locks; costs one pass over these jobs.
#[tracing::instrument(name = "db.jobs.count_by_tags", skip_all)]
pub async fn count_by_tags(conn: &mut PgConnection, permit: &ReadJobs, filter: &JobFilter) -> Result<Vec<TagsCount>> {
    let page = PageRequest::default();
    check(filter, page)?;
    let (ids, values) = page_of_ids(permit.organization(), filter, page).build_sqlx(PostgresQueryBuilder);
    let sql = format!(
        "SELECT j.tags, j.provisioner, count(*), count(*) FILTER (WHERE j.initiator_id = '{}'), min(j.created_at) \
         FROM provisioner_jobs AS j WHERE j.id = ANY (ARRAY({ids})) \
         GROUP BY j.tags, j.provisioner ORDER BY count(*) DESC, j.tags, j.provisioner",
        UserId::PREBUILDS
    );
    let rows: Vec<(StoredJson, Label<ProvisionerType>, i64, i64, Timestamp)> =
        sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(conn).of_query("jobs/count_by_tags").await?;
    let counts = rows.into_iter().map(|(tags, provisioner, jobs, prebuilds, oldest)| TagsCount {
        tags: tags.0.unwrap_or_default().into(),
        provisioner,
        jobs,
        prebuilds,
        oldest: oldest.0,
    });
    Ok(counts.collect())
}

/// One job of the organization with its details (domain: listings). One round trip; costs what [`list`] costs.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadJobs, id: JobId) -> Result<JobDetails> {
    sqlx::query_file_as!(DetailsRow, "queries/jobs/list.sql", &[id.0])
        .fetch_optional(conn)
        .of_query("jobs/get")
        .await?
        .filter(|row| row.organization_id == permit.organization())
        .map(JobDetails::from)
        .ok_or_else(|| Error::not_found(Entity::Job, id))
}

/// These jobs of the organization with their position in the queue, oldest first; ids without one are left out
/// (domain: positions).
///
/// A daemon counts when it was seen within `stale_interval` before `now`, usually
/// [`STALE_INTERVAL`](super::STALE_INTERVAL). One round trip,
/// one snapshot, no locks; costs a few look-ups per job, per tag set that an online daemon has and per tag set that it
/// covers, however many jobs wait.
#[tracing::instrument(name = "db.jobs.by_ids_with_queue_position", skip_all)]
pub async fn by_ids_with_queue_position(
    conn: &mut PgConnection,
    permit: &ReadJobs,
    ids: &[JobId],
    now: OffsetDateTime,
    stale_interval: Duration,
) -> Result<Vec<JobWithQueue>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_file_as!(
        WithQueueRow,
        "queries/jobs/by_ids_with_queue_position.sql",
        &ids,
        input::before(now, stale_interval)?,
        permit.organization().0
    )
    .fetch_all(conn)
    .of_query("jobs/by_ids_with_queue_position")
    .await?;
    Ok(rows.into_iter().map(JobWithQueue::from).collect())
}

/// That neither the filter nor the page has anything that the database cannot hold.
fn check(filter: &JobFilter, page: PageRequest) -> Result<()> {
    filter::check(filter)?;
    // A cursor stands at a row, whose time may be beyond what may be written.
    let cursor = page.after.filter(|cursor| !Timestamp::may_be_read(cursor.created_at));
    cursor.map(|cursor| input::time("after", cursor.created_at)).transpose()?;
    Ok(())
}

const LIST: &str = include_str!("../../../queries/jobs/list.sql");

/// Where the static statement takes its ids, and the dynamic one takes its place.
const IDS: &str = "$1::uuid[]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_one_place_for_the_page_of_ids() {
        assert_eq!(LIST.matches(IDS).count(), 1);
    }
}
