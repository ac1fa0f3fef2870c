//! Provisioner jobs (domain 5): the listings here, the steps of a job's life and the reaper in files of their own.

mod lifecycle;
mod reaper;

pub use lifecycle::*;
pub use reaper::*;

use std::time::Duration;

use sea_query::{Alias, Expr, ExprTrait, JoinType, Order, PgFunc, PostgresQueryBuilder, Query, SelectStatement};
use sea_query_sqlx::SqlxBinder;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Result, StoredJson, Timestamp, input};
use crate::{
    authz::ReadJobs,
    model::{
        Cursor, DaemonId, Exclude, FileId, Job, JobDetails, JobFilter, JobId, JobInput, JobStatus, JobType,
        JobWithQueue, OrganizationId, Page, PageRequest, ProvisionerType, StorageMethod, Tags, TagsCount, TemplateId,
        TemplateVersionId, Transition, UserId, WorkspaceBuildId, WorkspaceId,
    },
};

/// How long after its last heartbeat a daemon still counts as online (domain 4.4).
pub const STALE_INTERVAL: Duration = Duration::from_secs(90);

/// The jobs of the organization that pass the filter, newest first, with their details (domain 5.4). One round trip,
/// one snapshot, no locks; the queue numbers cost one pass over the jobs that wait in the whole database.
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
/// let organization = store::organizations::default(conn, &ReadOrganizations::of(actor)).await?;
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
    let sql = LIST.replacen(IDS, &format!("ANY (ARRAY({ids}))"), 1);
    let mut rows: Vec<JobDetails> = sqlx::query_as_with::<_, DetailsRow, _>(AssertSqlSafe(sql), values)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("jobs/list", e))?
        .into_iter()
        .map(JobDetails::from)
        .collect();
    let next = page.limit.filter(|limit| rows.len() > *limit as usize).and_then(|limit| {
        rows.truncate(limit as usize);
        rows.last().map(|last| Cursor { created_at: last.job.created_at, id: last.job.id })
    });
    Ok(Page { rows, next })
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
    let mut rows: Vec<(JobId, Timestamp)> = sqlx::query_as_with(AssertSqlSafe(sql), values)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("jobs/ids", e))?;
    let next = page.limit.filter(|limit| rows.len() > *limit as usize).and_then(|limit| {
        rows.truncate(limit as usize);
        rows.last().map(|(id, created_at)| Cursor { created_at: created_at.0, id: *id })
    });
    Ok(Page { rows: rows.into_iter().map(|(id, _)| id).collect(), next })
}

/// How many of the jobs of the organization that pass the filter have which tags, the most first. One round trip, one
/// snapshot, no locks; costs one pass over these jobs.
#[tracing::instrument(name = "db.jobs.count_by_tags", skip_all)]
pub async fn count_by_tags(conn: &mut PgConnection, permit: &ReadJobs, filter: &JobFilter) -> Result<Vec<TagsCount>> {
    let page = PageRequest::default();
    check(filter, page)?;
    let (ids, values) = page_of_ids(permit.organization(), filter, page).build_sqlx(PostgresQueryBuilder);
    let sql = format!(
        "SELECT j.tags, count(*), count(*) FILTER (WHERE j.initiator_id = '{}'), min(j.created_at) \
         FROM provisioner_jobs AS j WHERE j.id = ANY (ARRAY({ids})) GROUP BY j.tags ORDER BY count(*) DESC, j.tags",
        UserId::PREBUILDS
    );
    let rows: Vec<(StoredJson, i64, i64, Timestamp)> = sqlx::query_as_with(AssertSqlSafe(sql), values)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("jobs/count_by_tags", e))?;
    let count = |(tags, jobs, prebuilds, oldest): (StoredJson, i64, i64, Timestamp)| {
        let tags = tags.0.unwrap_or_default().into();
        TagsCount { tags, jobs, prebuilds, oldest: oldest.0 }
    };
    Ok(rows.into_iter().map(count).collect())
}

/// One job of the organization with its details (domain 10.2). One round trip; costs what [`list`] costs.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or it belongs to another organization.
#[tracing::instrument(name = "db.jobs.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadJobs, id: JobId) -> Result<JobDetails> {
    sqlx::query_file_as!(DetailsRow, "queries/jobs/list.sql", &[id.0])
        .fetch_optional(conn)
        .await
        .map_err(|e| Error::from_sqlx("jobs/get", e))?
        .filter(|row| row.organization_id == permit.organization())
        .map(JobDetails::from)
        .ok_or_else(|| Error::not_found("provisioner job", id))
}

/// These jobs of the organization with their place in the queue, oldest first; ids without one are left out
/// (domain 5.3).
///
/// A daemon counts when it was seen within `stale_interval` before `now`, usually [`STALE_INTERVAL`]. One round trip,
/// one snapshot, no locks; costs one pass over the jobs that wait per tag set that an online daemon has.
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
    .await
    .map_err(|e| Error::from_sqlx("jobs/by_ids_with_queue_position", e))?;
    Ok(rows.into_iter().map(JobWithQueue::from).collect())
}

/// That neither the filter nor the page has anything that the database cannot hold.
fn check(filter: &JobFilter, page: PageRequest) -> Result<()> {
    filter.tags.as_ref().map_or(Ok(()), |tags| input::tags("tags", tags))?;
    filter.exclude.tags.iter().try_for_each(|tag| input::tags("exclude.tags", &Tags::from_iter([tag.clone()])))?;
    for (field, codes) in [("error_codes", &filter.error_codes), ("exclude.error_codes", &filter.exclude.error_codes)] {
        codes.iter().try_for_each(|code| input::text(field, code.as_str()))?;
    }
    filter.created_after.map(|at| input::time("created_after", at)).transpose()?;
    filter.created_before.map(|at| input::time("created_before", at)).transpose()?;
    // A cursor may stand at a row whose time is beyond these years.
    let cursor = page.after.filter(|cursor| !Timestamp::stands_for_others(cursor.created_at));
    cursor.map(|cursor| input::time("after", cursor.created_at)).transpose()?;
    Ok(())
}

const LIST: &str = include_str!("../../queries/jobs/list.sql");

/// Where the static statement takes its ids, and the dynamic one takes its place.
const IDS: &str = "ANY ($1)";

/// The one dynamic statement: which jobs. What is known of each of them is in `queries/jobs/list.sql`.
///
/// Only filters that are set leave a trace in the text, so that each combination gets a plan of its own.
fn page_of_ids(organization: OrganizationId, filter: &JobFilter, page: PageRequest) -> SelectStatement {
    let job = |column: &'static str| Expr::col((Alias::new("j"), Alias::new(column)));
    let mut query = Query::select();
    query
        .column((Alias::new("j"), Alias::new("id")))
        .from_as(Alias::new("provisioner_jobs"), Alias::new("j"))
        .and_where(job("organization_id").eq(organization.0))
        .order_by((Alias::new("j"), Alias::new("created_at")), Order::Desc)
        .order_by((Alias::new("j"), Alias::new("id")), Order::Desc);

    if !filter.status.is_empty() {
        let status: Vec<String> = filter.status.iter().map(ToString::to_string).collect();
        let any = Expr::val(status).cast_as("provisioner_job_status[]");
        query.and_where(job("job_status").eq(PgFunc::any(any)));
    }
    if !filter.ids.is_empty() {
        let ids: Vec<_> = filter.ids.iter().map(|id| id.0).collect();
        query.and_where(job("id").eq(PgFunc::any(Expr::val(ids))));
    }
    if let Some(tags) = &filter.tags {
        let tags = Expr::val(Value::from_iter(tags.0.clone())).cast_as("jsonb");
        query.and_where(Expr::cust_with_exprs("provisioner_tagset_contains($1, $2)", [job("tags"), tags]));
    }
    if let Some(initiator) = filter.initiator.filter(|id| !id.0.is_nil()) {
        query.and_where(job("initiator_id").eq(initiator.0));
    }
    if let Some(after) = filter.created_after {
        query.and_where(job("created_at").gt(after));
    }
    if let Some(before) = filter.created_before {
        query.and_where(job("created_at").lt(before));
    }
    if let Some(cursor) = page.after {
        let created_at = if Timestamp::stands_for_others(cursor.created_at) {
            let end = if cursor.created_at > OffsetDateTime::UNIX_EPOCH { "infinity" } else { "-infinity" };
            let stored = "coalesce((SELECT c.created_at FROM provisioner_jobs AS c WHERE c.id = $1), $2::timestamptz)";
            Expr::cust_with_values(stored, [cursor.id.0.into(), sea_query::Value::from(end)])
        } else {
            Expr::val(cursor.created_at)
        };
        query.and_where(
            Expr::tuple([job("created_at"), job("id")]).lt(Expr::tuple([created_at, Expr::val(cursor.id.0)])),
        );
    }
    if !filter.types.is_empty() {
        query.and_where(job("type").eq(PgFunc::any(texts(&filter.types, "provisioner_job_type[]"))));
    }
    if !filter.error_codes.is_empty() {
        query.and_where(job("error_code").eq(PgFunc::any(texts(&filter.error_codes, "text[]"))));
    }
    subject(&mut query, filter);
    exclude(&mut query, &filter.exclude);
    if let Some(limit) = page.limit {
        // One row more than asked for, instead of a second statement that counts.
        query.limit(u64::from(limit) + 1);
    }
    query
}

/// The filters on what a job is about, over the same joins as in `queries/jobs/list.sql`.
fn subject(query: &mut SelectStatement, filter: &JobFilter) {
    let column = |table: &'static str, column: &'static str| Expr::col((Alias::new(table), Alias::new(column)));
    let mut join = |kind: JoinType, table: &'static str, alias: &'static str, on: &'static str| {
        query.join_as(kind, Alias::new(table), Alias::new(alias), Expr::cust(on));
    };
    let Exclude { transitions, workspaces, templates, .. } = &filter.exclude;
    let by_transition = filter.transition.is_some() || !transitions.is_empty();
    let by_workspace = filter.workspace.is_some() || !workspaces.is_empty();
    let by_template = filter.template.is_some() || !templates.is_empty();
    // What is excluded by a name must not be excluded for having none.
    let kind = |wanted: bool| if wanted { JoinType::InnerJoin } else { JoinType::LeftJoin };
    if by_transition || by_workspace || by_template {
        let build = "b.id = provisioner_job_input_uuid(j.input, 'workspace_build_id')";
        join(JoinType::LeftJoin, "workspace_builds", "b", build);
    }
    if by_workspace {
        let workspace = "w.id = b.workspace_id AND w.organization_id = j.organization_id";
        join(kind(filter.workspace.is_some()), "workspaces", "w", workspace);
    }
    if by_template {
        let version = "v.id = CASE WHEN jsonb_exists(j.input, 'template_version_id') \
             THEN provisioner_job_input_uuid(j.input, 'template_version_id') ELSE b.template_version_id END \
             AND v.organization_id = j.organization_id";
        join(kind(filter.template.is_some()), "template_versions", "v", version);
        let template = "t.id = v.template_id AND t.organization_id = j.organization_id";
        join(kind(filter.template.is_some()), "templates", "t", template);
    }
    if let Some(transition) = filter.transition {
        query.and_where(column("b", "transition").eq(Expr::val(transition.as_str()).cast_as("workspace_transition")));
    }
    if let Some(workspace) = filter.workspace {
        query.and_where(column("w", "id").eq(workspace.0));
    }
    if let Some(template) = filter.template {
        query.and_where(column("t", "id").eq(template.0));
    }
}

/// What must not apply, each in a condition of its own. A null is not excluded: there is nothing that could apply.
fn exclude(query: &mut SelectStatement, exclude: &Exclude) {
    let ids = |ids: Vec<Uuid>| Expr::val(ids);
    let mut none_of = |is_empty: bool, table: &'static str, column: &'static str, any: Expr| {
        if !is_empty {
            let column = Expr::col((Alias::new(table), Alias::new(column)));
            query.and_where(Expr::cust_with_exprs("($1 = ANY ($2)) IS NOT TRUE", [column, any]));
        }
    };
    let Exclude { status, types, error_codes, transitions, .. } = exclude;
    none_of(status.is_empty(), "j", "job_status", texts(status, "provisioner_job_status[]"));
    none_of(types.is_empty(), "j", "type", texts(types, "provisioner_job_type[]"));
    none_of(error_codes.is_empty(), "j", "error_code", texts(error_codes, "text[]"));
    none_of(transitions.is_empty(), "b", "transition", texts(transitions, "workspace_transition[]"));
    none_of(exclude.ids.is_empty(), "j", "id", ids(exclude.ids.iter().map(|id| id.0).collect()));
    none_of(
        exclude.initiators.is_empty(),
        "j",
        "initiator_id",
        ids(exclude.initiators.iter().map(|id| id.0).collect()),
    );
    none_of(exclude.workspaces.is_empty(), "w", "id", ids(exclude.workspaces.iter().map(|id| id.0).collect()));
    none_of(exclude.templates.is_empty(), "t", "id", ids(exclude.templates.iter().map(|id| id.0).collect()));
    for (key, value) in &exclude.tags {
        let tag = Value::from_iter([(key.clone(), value.clone())]);
        let (tags, tag) = (Expr::col((Alias::new("j"), Alias::new("tags"))), Expr::val(tag).cast_as("jsonb"));
        query.and_where(Expr::cust_with_exprs("NOT provisioner_tagset_contains($1, $2)", [tags, tag]));
    }
}

fn texts(values: &[impl ToString], array: &'static str) -> Expr {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    Expr::val(texts).cast_as(array)
}

/// A struct for the columns of a job and more columns, because the query macros know no nesting.
macro_rules! job_row {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(sqlx::FromRow)]
        struct $name {
            id: JobId,
            created_at: Timestamp,
            updated_at: Timestamp,
            started_at: Option<Timestamp>,
            canceled_at: Option<Timestamp>,
            completed_at: Option<Timestamp>,
            error: Option<String>,
            organization_id: OrganizationId,
            initiator_id: UserId,
            provisioner: ProvisionerType,
            storage_method: StorageMethod,
            job_type: JobType,
            input: StoredJson,
            input_template_version_id: Option<Uuid>,
            input_workspace_build_id: Option<Uuid>,
            worker_id: Option<DaemonId>,
            file_id: FileId,
            tags: StoredJson,
            error_code: Option<String>,
            trace_metadata: Option<StoredJson>,
            job_status: JobStatus,
            logs_length: i32,
            logs_overflowed: bool,
            $($(#[$meta])* $field: $type,)*
        }

        impl $name {
            fn job(&mut self) -> Job {
                Job {
                    id: self.id,
                    created_at: self.created_at.0,
                    updated_at: self.updated_at.0,
                    started_at: self.started_at.map(|at| at.0),
                    canceled_at: self.canceled_at.map(|at| at.0),
                    completed_at: self.completed_at.map(|at| at.0),
                    error: self.error.take(),
                    error_code: self.error_code.take().filter(|code| !code.is_empty()).map(Into::into),
                    organization_id: self.organization_id,
                    initiator_id: self.initiator_id,
                    provisioner: self.provisioner,
                    storage_method: self.storage_method,
                    job_type: self.job_type,
                    input: JobInput::new(
                        self.input.0.as_ref(),
                        self.input_template_version_id.map(TemplateVersionId),
                        self.input_workspace_build_id.map(WorkspaceBuildId),
                    ),
                    worker_id: self.worker_id,
                    file_id: self.file_id,
                    tags: self.tags.0.take().unwrap_or_default().into(),
                    trace_metadata: self.trace_metadata.take().and_then(|stored| stored.0),
                    status: self.job_status,
                    logs_length: self.logs_length,
                    logs_overflowed: self.logs_overflowed,
                }
            }
        }
    };
}

use job_row;

job_row!(WithQueueRow { queue_position: i64, queue_size: i64 });

// The `!` and `?` are part of the column names: the macro reads them, and a statement built at run time keeps them.
job_row!(DetailsRow {
    #[sqlx(rename = "queue_position!")]
    queue_position: i64,
    #[sqlx(rename = "queue_size!")]
    queue_size: i64,
    #[sqlx(rename = "available_workers!")]
    available_workers: Vec<Uuid>,
    #[sqlx(rename = "template_version_name!")]
    template_version_name: String,
    #[sqlx(rename = "template_id?")]
    template_id: Option<TemplateId>,
    #[sqlx(rename = "template_name!")]
    template_name: String,
    #[sqlx(rename = "template_display_name!")]
    template_display_name: String,
    #[sqlx(rename = "template_icon!")]
    template_icon: String,
    #[sqlx(rename = "workspace_id?")]
    workspace_id: Option<WorkspaceId>,
    #[sqlx(rename = "workspace_name!")]
    workspace_name: String,
    #[sqlx(rename = "worker_name!")]
    worker_name: String,
    #[sqlx(rename = "workspace_build_transition?")]
    workspace_build_transition: Option<Transition>,
});

impl From<WithQueueRow> for JobWithQueue {
    fn from(mut row: WithQueueRow) -> Self {
        Self { job: row.job(), queue_position: row.queue_position, queue_size: row.queue_size }
    }
}

impl From<DetailsRow> for JobDetails {
    fn from(mut row: DetailsRow) -> Self {
        Self {
            job: row.job(),
            queue_position: row.queue_position,
            queue_size: row.queue_size,
            available_workers: row.available_workers.into_iter().map(DaemonId).collect(),
            worker_name: row.worker_name,
            workspace_build_transition: row.workspace_build_transition,
            workspace_id: row.workspace_id,
            workspace_name: row.workspace_name,
            template_version_name: row.template_version_name,
            template_id: row.template_id,
            template_name: row.template_name,
            template_display_name: row.template_display_name,
            template_icon: row.template_icon,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(filter: &JobFilter, page: PageRequest) -> String {
        page_of_ids(OrganizationId(Uuid::nil()), filter, page).build(PostgresQueryBuilder).0
    }

    #[test]
    fn the_page_of_ids_has_one_place_in_the_statement() {
        assert_eq!(LIST.matches(IDS).count(), 1);
    }

    #[test]
    fn a_filter_that_is_not_set_leaves_no_trace() {
        let expected = r#"SELECT "j"."id" FROM "provisioner_jobs" AS "j" WHERE "j"."organization_id" = $1 ORDER BY "j"."created_at" DESC, "j"."id" DESC"#;
        assert_eq!(sql(&JobFilter::default(), PageRequest::default()), expected);
        let nil = JobFilter { initiator: Some(UserId(Uuid::nil())), ..JobFilter::default() };
        assert_eq!(sql(&nil, PageRequest::default()), expected);
    }
}
