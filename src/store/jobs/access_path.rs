//! The one dynamic statement: which jobs, in which order. What is known of each of them is in `queries/jobs/list.sql`.

use sea_query::{Asterisk, Expr, ExprTrait, JoinType, Query, SelectStatement};
use time::OffsetDateTime;

use super::filter::{any, build_of_job, condition};
use crate::{
    model::{JobFilter, JobStatus, OrganizationId, PageRequest, WorkspaceId},
    store::Timestamp,
};

/// How the jobs are found. The text leaves the planner no other way: each path is one range of one index, and what else
/// the filter asks for is looked at job by job.
enum AccessPath {
    /// By primary key.
    Ids,
    /// From the workspace to its builds to their jobs.
    Workspace(WorkspaceId),
    /// What waits or runs, by status. Few jobs do, but all of them may be older than a long history.
    Unfinished,
    /// The newest jobs of the initiator, one after the other.
    Initiator,
    /// The newest jobs of the organization, one after the other.
    Organization,
}

impl AccessPath {
    /// The first that is possible: they are in the order of how many jobs they read at most.
    fn of(filter: &JobFilter) -> Self {
        let is_unfinished =
            |status: &JobStatus| matches!(status, JobStatus::Pending | JobStatus::Running | JobStatus::Canceling);
        match filter {
            JobFilter { ids, .. } if !ids.is_empty() => Self::Ids,
            JobFilter { workspace: Some(workspace), .. } => Self::Workspace(*workspace),
            JobFilter { status, .. } if !status.is_empty() && status.iter().all(is_unfinished) => Self::Unfinished,
            JobFilter { initiator: Some(initiator), .. } if !initiator.0.is_nil() => Self::Initiator,
            _ => Self::Organization,
        }
    }

    /// The jobs of the path; `None` stands for the table, whose indexes then find them in order.
    fn jobs(&self, organization: OrganizationId, filter: &JobFilter) -> Option<SelectStatement> {
        let mut jobs = Query::select();
        match self {
            Self::Ids => jobs
                .column(Asterisk)
                .from("provisioner_jobs")
                .and_where(Expr::col("id").eq(any(filter.ids.iter().map(|id| id.0)))),
            Self::Workspace(workspace) => jobs
                .column(("j", Asterisk))
                .from_as("workspaces", "w")
                .join_as(JoinType::InnerJoin, "workspace_builds", "b", Expr::cust("b.workspace_id = w.id"))
                .join_as(JoinType::InnerJoin, "provisioner_jobs", "j", Expr::cust("j.id = b.job_id"))
                .and_where(Expr::col(("w", "id")).eq(workspace.0))
                .and_where(Expr::col(("w", "organization_id")).eq(organization.0))
                .and_where(Expr::cust(format!("b.id = {}", build_of_job()))),
            Self::Unfinished => {
                // As a literal, because the planner knows how many jobs have which status, but not what a parameter is.
                let status: Vec<_> = filter.status.iter().map(|status| status.as_str()).collect();
                let is_any = format!("job_status = ANY ('{{{}}}'::provisioner_job_status[])", status.join(","));
                jobs.column(Asterisk).from("provisioner_jobs").and_where(Expr::cust(is_any))
            }
            Self::Initiator | Self::Organization => return None,
        };
        // A fence: these jobs are found before anything is said of their order.
        Some(jobs.offset(0).take())
    }
}

/// The ids of the jobs of the organization that pass the filter: one page and one more, which tells whether there is a
/// next page.
pub(super) fn page_of_ids(organization: OrganizationId, filter: &JobFilter, page: PageRequest) -> SelectStatement {
    let job = |column: &'static str| Expr::col(("j", column));
    let path = AccessPath::of(filter);
    let mut query = Query::select();
    query.exprs([job("id"), job("created_at")]);
    match path.jobs(organization, filter) {
        Some(jobs) => query.from_subquery(jobs, "j"),
        None => query.from_as("provisioner_jobs", "j"),
    };
    query.and_where(job("organization_id").eq(organization.0));
    if let (AccessPath::Initiator, Some(initiator)) = (&path, filter.initiator) {
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
    let condition = condition(filter);
    if !condition.is_empty() {
        // The planner takes a CASE for true in half of the rows. Its guesses of what is inside, a containment say, are so
        // low that it would read and sort everything, and so dear that the server would compile the statement.
        query.and_where(Expr::cust_with_expr("CASE WHEN $1 THEN true ELSE false END", condition));
    }
    let jobs = match page.limit.map(|limit| u64::from(limit) + 1) {
        None => query,
        Some(limit) => {
            // A limit that the planner cannot see counts as a tenth of all rows, and then it would rather sort them.
            let about = Ord::max(limit.next_power_of_two(), 64);
            let newest = format!("j.id, j.created_at FROM $1 AS j ORDER BY j.created_at DESC, j.id DESC LIMIT {about}");
            let newest = Query::select().expr(Expr::cust_with_expr(newest, query)).take();
            Query::select().columns(["id", "created_at"]).from_subquery(newest, "j").limit(limit).take()
        }
    };
    Query::select().column("id").from_subquery(jobs, "page").take()
}

#[cfg(test)]
mod tests {
    use sea_query::PostgresQueryBuilder;
    use uuid::Uuid;

    use super::*;
    use crate::model::UserId;

    fn sql(filter: &JobFilter) -> String {
        page_of_ids(OrganizationId(Uuid::nil()), filter, PageRequest::default()).build(PostgresQueryBuilder).0
    }

    #[test]
    fn page_of_ids_has_no_trace_of_a_filter_that_is_not_set() {
        let expected = r#"SELECT "id" FROM (SELECT "j"."id", "j"."created_at" FROM "provisioner_jobs" AS "j" WHERE "j"."organization_id" = $1) AS "page""#;
        assert_eq!(sql(&JobFilter::default()), expected);
        let nil = JobFilter { initiator: Some(UserId(Uuid::nil())), ..JobFilter::default() };
        assert_eq!(sql(&nil), expected);
    }
}
