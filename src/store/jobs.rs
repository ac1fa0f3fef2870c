//! Provisioner jobs (domain 5): the listings here, the steps of a job's life and the reaper in files of their own.

mod lifecycle;
mod reaper;

pub use lifecycle::*;
pub use reaper::*;

use std::time::Duration;

use sea_query::{
    Asterisk, Expr, ExprTrait, Func, FunctionCall, JoinType, PgFunc, PostgresQueryBuilder, Query, SelectStatement,
    UnionType,
};
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
/// one snapshot, no locks; the queue numbers cost the same however many jobs wait.
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
    let sql = LIST.replacen(IDS, &format!("ARRAY({ids})"), 1);
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
    let rows: Vec<(StoredJson, ProvisionerType, i64, i64, Timestamp)> = sqlx::query_as_with(AssertSqlSafe(sql), values)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::from_sqlx("jobs/count_by_tags", e))?;
    let counts = rows.into_iter().map(|(tags, provisioner, jobs, prebuilds, oldest)| TagsCount {
        tags: tags.0.unwrap_or_default().into(),
        provisioner,
        jobs,
        prebuilds,
        oldest: oldest.0,
    });
    Ok(counts.collect())
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
const IDS: &str = "$1::uuid[]";

/// The one dynamic statement: which jobs. What is known of each of them is in `queries/jobs/list.sql`.
///
/// Only filters that are set leave a trace in the text, so that each combination gets a plan of its own. The text leaves
/// the planner no choice that could be wrong: it names the few ranges of one index in which the jobs lie, and takes the
/// newest of each.
fn page_of_ids(organization: OrganizationId, filter: &JobFilter, page: PageRequest) -> SelectStatement {
    let lead = Lead::of(filter);
    let jobs = newest_of(lead, organization, filter, page);
    if !matches!(lead, Lead::Template | Lead::Transition) {
        return ids_of(jobs);
    }
    let all = Query::select()
        .columns(["id", "created_at"])
        .from_subquery(jobs, "j")
        .union(UnionType::Distinct, newest_of(Lead::Unresolved, organization, filter, page))
        .take();
    ids_of(newest(all, limit(page)))
}

/// One more than asked for: is there a next page?
fn limit(page: PageRequest) -> Option<u64> {
    page.limit.map(|limit| u64::from(limit) + 1)
}

/// The first jobs that pass all filters, found through the one that leads.
fn newest_of(lead: Lead, organization: OrganizationId, filter: &JobFilter, page: PageRequest) -> SelectStatement {
    let jobs = newest(passing(lead, organization, filter, page), limit(page));
    let mut ranges = Query::select();
    match (lead, &filter.tags) {
        (Lead::Initiator | Lead::Status, _) => {}
        (Lead::Tags, Some(tags)) => {
            ranges.from_function(unnest(tag_sets(organization, tags)), "tag_set");
        }
        _ => return jobs,
    }
    // Each once, or its jobs would be there twice.
    let asked = |status: &&JobStatus| filter.status.is_empty() || filter.status.contains(status);
    let status: Vec<String> = JobStatus::ALL.iter().filter(asked).map(ToString::to_string).collect();
    ranges
        .from_function(unnest(Expr::val(status).cast_as("provisioner_job_status[]")), "status")
        .join_lateral(JoinType::InnerJoin, jobs, "j", Expr::cust("true"))
        .columns([("j", "id"), ("j", "created_at")]);
    newest(ranges.take(), limit(page))
}

/// Which filter finds the jobs, through an index of its own; the others then look at each of them.
#[derive(Clone, Copy, PartialEq)]
enum Lead {
    Ids,
    Workspace,
    Template,
    /// Jobs that were recorded when their version had no template, or when it could not be seen.
    Unresolved,
    Transition,
    Initiator,
    Tags,
    Status,
    Organization,
}

impl Lead {
    /// The first that is set: they are in the order of how few jobs they leave.
    fn of(filter: &JobFilter) -> Self {
        match filter {
            JobFilter { ids, .. } if !ids.is_empty() => Self::Ids,
            JobFilter { workspace: Some(_), .. } => Self::Workspace,
            JobFilter { template: Some(_), .. } => Self::Template,
            JobFilter { transition: Some(Transition::Delete), .. } => Self::Transition,
            JobFilter { initiator: Some(initiator), .. } if !initiator.0.is_nil() => Self::Initiator,
            JobFilter { tags: Some(_), .. } => Self::Tags,
            JobFilter { status, .. } if !status.is_empty() => Self::Status,
            JobFilter { transition: Some(_), .. } => Self::Transition,
            _ => Self::Organization,
        }
    }
}

fn ids_of(jobs: SelectStatement) -> SelectStatement {
    Query::select().column("id").from_subquery(jobs, "page").take()
}

/// The first of these jobs, in the order of the listing; without a limit all of them, in any order.
fn newest(jobs: SelectStatement, limit: Option<u64>) -> SelectStatement {
    let Some(limit) = limit else { return jobs };
    // A limit that the planner cannot see counts as a tenth of all rows, and then it would rather sort them.
    let about = Ord::max(limit.next_power_of_two(), 64);
    let ordered = format!("j.id, j.created_at FROM $1 AS j ORDER BY j.created_at DESC, j.id DESC LIMIT {about}");
    let ordered = Query::select().expr(Expr::cust_with_expr(ordered, jobs)).take();
    Query::select().columns(["id", "created_at"]).from_subquery(ordered, "j").limit(limit).take()
}

fn unnest(array: impl Into<Expr>) -> FunctionCall {
    Func::cust("unnest").arg(array)
}

/// The tag sets that jobs of the organization have and that match: from one to the next of an index, not over all jobs.
fn tag_sets(organization: OrganizationId, tags: &Tags) -> Expr {
    let matching = "ARRAY(
        WITH RECURSIVE tag_set AS (
            (
                SELECT jsonb_hash_extended(j.tags, 0) AS hash, j.tags FROM provisioner_jobs AS j
                WHERE j.organization_id = $1 ORDER BY jsonb_hash_extended(j.tags, 0) LIMIT 1
            )
            UNION ALL
            SELECT next.hash, next.tags FROM tag_set CROSS JOIN LATERAL (
                SELECT jsonb_hash_extended(j.tags, 0) AS hash, j.tags FROM provisioner_jobs AS j
                WHERE j.organization_id = $1 AND jsonb_hash_extended(j.tags, 0) > tag_set.hash
                ORDER BY jsonb_hash_extended(j.tags, 0) LIMIT 1
            ) AS next
        )
        SELECT tag_set.tags FROM tag_set WHERE provisioner_tagset_contains(tag_set.tags, $2)
    )";
    Expr::cust_with_exprs(matching, [Expr::val(organization.0), jsonb(tags)])
}

fn jsonb(tags: &Tags) -> Expr {
    Expr::val(Value::from_iter(tags.0.clone())).cast_as("jsonb")
}

/// The jobs that pass all filters, out of one range of the index that leads.
fn passing(lead: Lead, organization: OrganizationId, filter: &JobFilter, page: PageRequest) -> SelectStatement {
    let job = |column: &'static str| Expr::col(("j", column));
    let subjects = subjects(lead, organization, filter);
    // Where a job stands in the listing, by the columns of the index that is read.
    let stands = if subjects.is_some() { "s" } else { "j" };
    let place = |column: &'static str| Expr::col((stands, column));
    let mut query = Query::select();
    query.exprs([place("id"), place("created_at")]).and_where(job("organization_id").eq(organization.0));
    // The offset is a fence: these few jobs are there before anything is said of their order.
    match (lead, filter.workspace) {
        (Lead::Ids, _) => {
            let ids: Vec<_> = filter.ids.iter().map(|id| id.0).collect();
            let by_id = Expr::col("id").eq(PgFunc::any(Expr::val(ids)));
            let jobs = Query::select().column(Asterisk).from("provisioner_jobs").and_where(by_id).offset(0).take();
            query.from_subquery(jobs, "j");
        }
        (Lead::Workspace, Some(workspace)) => {
            let jobs = Query::select()
                .column(("j", Asterisk))
                .from_as("workspaces", "w")
                .join_as(JoinType::InnerJoin, "workspace_builds", "b", Expr::cust("b.workspace_id = w.id"))
                .join_as(JoinType::InnerJoin, "provisioner_jobs", "j", Expr::cust(format!("{BUILD} = b.id")))
                .and_where(Expr::col(("w", "id")).eq(workspace.0))
                .and_where(Expr::col(("w", "organization_id")).eq(organization.0))
                .offset(0)
                .take();
            query.from_subquery(jobs, "j");
        }
        _ => match subjects {
            None => {
                query.from_as("provisioner_jobs", "j");
            }
            Some(subjects) => {
                let same = Expr::cust("id = s.id AND created_at = s.created_at");
                let job = Query::select().column(Asterisk).from("provisioner_jobs").and_where(same).offset(0).take();
                let query = query.from_subquery(subjects, "s");
                query.join_lateral(JoinType::InnerJoin, job, "j", Expr::cust("true"));
            }
        },
    }
    if matches!(lead, Lead::Initiator | Lead::Tags | Lead::Status) {
        query.and_where(job("job_status").eq(Expr::col(("status", "status"))));
    } else if !filter.status.is_empty() {
        let status: Vec<String> = filter.status.iter().map(ToString::to_string).collect();
        query.and_where(job("job_status").eq(PgFunc::any(Expr::val(status).cast_as("provisioner_job_status[]"))));
    }
    if let Some(tags) = &filter.tags {
        if lead == Lead::Tags {
            // An equality, because what is contained is guessed to be rare, and would be sorted.
            let same = "jsonb_hash_extended(j.tags, 0) = jsonb_hash_extended(tag_set.tag_set, 0)";
            query.and_where(Expr::cust(same)).and_where(Expr::cust("j.tags = tag_set.tag_set"));
        } else {
            // Known before the first job is read.
            query.and_where(Expr::cust_with_expr("cardinality($1) > 0", tag_sets(organization, tags)));
            query.and_where(Expr::cust_with_exprs("provisioner_tagset_contains($1, $2)", [job("tags"), jsonb(tags)]));
        }
    }
    if let Some(initiator) = filter.initiator.filter(|id| !id.0.is_nil()) {
        query.and_where(job("initiator_id").eq(initiator.0));
    }
    if let Some(after) = filter.created_after {
        query.and_where(place("created_at").gt(after));
    }
    if let Some(before) = filter.created_before {
        query.and_where(place("created_at").lt(before));
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
            Expr::tuple([place("created_at"), place("id")]).lt(Expr::tuple([created_at, Expr::val(cursor.id.0)])),
        );
    }
    if !filter.types.is_empty() {
        query.and_where(job("type").eq(PgFunc::any(texts(&filter.types, "provisioner_job_type[]"))));
    }
    if !filter.error_codes.is_empty() {
        query.and_where(job("error_code").eq(PgFunc::any(texts(&filter.error_codes, "text[]"))));
    }
    subject(&mut query, lead, filter);
    exclude(&mut query, &filter.exclude);
    query
}

/// What is recorded of the jobs of a template or with a transition, each once.
fn subjects(lead: Lead, organization: OrganizationId, filter: &JobFilter) -> Option<SelectStatement> {
    let recorded = |column: &'static str| Expr::col(("s", column));
    let mut subjects = Query::select();
    subjects.expr_as(recorded("job_id"), "id").column(("s", "created_at")).from_as("provisioner_job_subjects", "s");
    let same = match (lead, filter.template, filter.transition) {
        (Lead::Unresolved, ..) => {
            return Some(subjects.distinct().and_where(recorded("template_id").is_null()).offset(0).take());
        }
        (Lead::Template, Some(template), _) => {
            subjects.and_where(recorded("template_id").eq(template.0));
            "d.template_id = s.template_id"
        }
        (Lead::Transition, _, Some(transition)) => {
            let transition = Expr::val(transition.as_str()).cast_as("workspace_transition");
            subjects
                .and_where(recorded("organization_id").eq(organization.0))
                .and_where(recorded("transition").eq(transition));
            "d.organization_id = s.organization_id AND d.transition = s.transition"
        }
        _ => return None,
    };
    // Without a join or a sort, in which the planner would read all of them.
    let first = format!(
        "NOT EXISTS (SELECT FROM provisioner_job_subjects AS d \
         WHERE {same} AND d.created_at = s.created_at AND d.job_id = s.job_id AND d.ctid < s.ctid OFFSET 0)"
    );
    Some(subjects.and_where(Expr::cust(first)).take())
}

/// What index `provisioner_jobs_workspace_build_idx` is over.
const BUILD: &str = "provisioner_job_input_uuid(j.input, 'workspace_build_id')";

/// The filters on what a job is about, by the same rules as in `queries/jobs/list.sql`. Each is asked of one job after
/// the other: a join could be turned around, and read all builds.
fn subject(query: &mut SelectStatement, lead: Lead, filter: &JobFilter) {
    if let Some(workspace) = filter.workspace.filter(|_| lead != Lead::Workspace) {
        query.and_where(Expr::cust_with_expr(format!("{} = $1", workspace_of_job()), workspace.0));
    }
    if let Some(transition) = filter.transition {
        let transition = Expr::val(transition.as_str()).cast_as("workspace_transition");
        query.and_where(Expr::cust_with_expr(format!("{} = $1", transition_of_job()), transition));
    }
    if let Some(template) = filter.template {
        query.and_where(Expr::cust_with_expr(format!("{} = $1", template_of_job()), template.0));
    }
}

fn workspace_of_job() -> String {
    format!(
        "(SELECT w.id FROM workspace_builds AS b INNER JOIN workspaces AS w ON w.id = b.workspace_id \
         WHERE b.id = {BUILD} AND w.organization_id = j.organization_id)"
    )
}

fn transition_of_job() -> String {
    format!("(SELECT b.transition FROM workspace_builds AS b WHERE b.id = {BUILD})")
}

fn template_of_job() -> String {
    format!(
        "(SELECT t.id FROM template_versions AS v INNER JOIN templates AS t ON t.id = v.template_id \
         WHERE v.id = CASE WHEN jsonb_exists(j.input, 'template_version_id') \
         THEN provisioner_job_input_uuid(j.input, 'template_version_id') \
         ELSE (SELECT b.template_version_id FROM workspace_builds AS b WHERE b.id = {BUILD}) END \
         AND v.organization_id = j.organization_id AND t.organization_id = j.organization_id)"
    )
}

/// What must not apply. A null is not excluded: there is nothing that could apply.
fn exclude(query: &mut SelectStatement, exclude: &Exclude) {
    let Exclude { status, types, error_codes, transitions, templates, .. } = exclude;
    let mut none_of = |is_empty: bool, of_job: &str, any: Expr| {
        if !is_empty {
            query.and_where(Expr::cust_with_expr(format!("({of_job} = ANY ($1)) IS NOT TRUE"), any));
        }
    };
    let uuids = |ids: Vec<Uuid>| Expr::val(ids);
    none_of(status.is_empty(), "j.job_status", texts(status, "provisioner_job_status[]"));
    none_of(types.is_empty(), "j.type", texts(types, "provisioner_job_type[]"));
    none_of(error_codes.is_empty(), "j.error_code", texts(error_codes, "text[]"));
    none_of(exclude.ids.is_empty(), "j.id", uuids(exclude.ids.iter().map(|id| id.0).collect()));
    let initiators = exclude.initiators.iter().map(|id| id.0).collect();
    none_of(exclude.initiators.is_empty(), "j.initiator_id", uuids(initiators));
    none_of(transitions.is_empty(), &transition_of_job(), texts(transitions, "workspace_transition[]"));
    let workspaces = exclude.workspaces.iter().map(|id| id.0).collect();
    none_of(exclude.workspaces.is_empty(), &workspace_of_job(), uuids(workspaces));
    let templates = templates.iter().map(|template| template.0).collect();
    none_of(exclude.templates.is_empty(), &template_of_job(), uuids(templates));
    if !exclude.tags.is_empty() {
        // One condition, however many there are. No tag alone is the untagged set, so containment is the whole rule.
        let tag = |(key, value): &(String, String)| Value::from_iter([(key.clone(), value.clone())]);
        let tags: Vec<Value> = exclude.tags.iter().map(tag).collect();
        query.and_where(Expr::cust_with_expr("(j.tags @> ANY ($1)) IS NOT TRUE", texts(&tags, "jsonb[]")));
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
        let expected = r#"SELECT "id" FROM (SELECT "j"."id", "j"."created_at" FROM "provisioner_jobs" AS "j" WHERE "j"."organization_id" = $1) AS "page""#;
        assert_eq!(sql(&JobFilter::default(), PageRequest::default()), expected);
        let nil = JobFilter { initiator: Some(UserId(Uuid::nil())), ..JobFilter::default() };
        assert_eq!(sql(&nil, PageRequest::default()), expected);
    }
}
