//! What the layer is compared with: the same answers from plain SQL, written down as the rules read, without a thought
//! for speed. It runs on the base schema, which has none of the later indexes.

use coderdb::{
    demo,
    model::{
        DaemonId, Job, JobDetails, JobFilter, JobId, JobInput, JobWithQueue, OrganizationId, Quota, Tags, Transition,
        UserId,
    },
    sqlx::{self, PgConnection, Row as _, postgres::PgRow},
    store::jobs::STALE_INTERVAL,
};
use serde_json::Value;
use uuid::Uuid;

fn job(row: &PgRow) -> Job {
    Job {
        id: row.get("id"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
        started_at: row.get("started_at"),
        canceled_at: row.get("canceled_at"),
        completed_at: row.get("completed_at"),
        error: row.get("error"),
        error_code: row.get::<Option<String>, _>("error_code").map(Into::into),
        organization_id: row.get("organization_id"),
        initiator_id: row.get("initiator_id"),
        provisioner: row.get("provisioner"),
        storage_method: row.get("storage_method"),
        job_type: row.get("type"),
        input: JobInput::of(row.get::<Value, _>("input").to_string().as_bytes()),
        worker_id: row.get("worker_id"),
        file_id: row.get("file_id"),
        tags: row.get::<Value, _>("tags").into(),
        trace_metadata: row.get("trace_metadata"),
        status: row.get("job_status"),
        logs_length: row.get("logs_length"),
        logs_overflowed: row.get("logs_overflowed"),
    }
}

pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &JobFilter,
    limit: i64,
) -> Vec<JobDetails> {
    let ids: Vec<_> = filter.ids.iter().map(|id| id.0).collect();
    let status: Vec<_> = filter.status.iter().map(ToString::to_string).collect();
    let rows = sqlx::query(include_str!("plain/list.sql"))
        .bind(organization)
        .bind(ids)
        .bind(status)
        .bind(filter.tags.clone().map_or(Value::Null, |tags| Value::from_iter(tags.0)))
        .bind(filter.initiator.map_or(Uuid::nil(), |id| id.0))
        .bind(limit)
        .bind(filter.template)
        .bind(filter.workspace)
        .bind(filter.transition.map(Transition::as_str))
        .fetch_all(conn)
        .await
        .expect("the jobs");
    let details = |row: PgRow| JobDetails {
        job: job(&row),
        queue_position: row.get("queue_position"),
        queue_size: row.get("queue_size"),
        available_workers: row.get::<Option<Vec<DaemonId>>, _>("available_workers").unwrap_or_default(),
        worker_name: row.get("worker_name"),
        workspace_build_transition: row.get("transition"),
        workspace_id: row.get("workspace_id"),
        workspace_name: row.get("workspace_name"),
        template_version_name: row.get("template_version_name"),
        template_id: row.get("template_id"),
        template_name: row.get("template_name"),
        template_display_name: row.get("template_display_name"),
        template_icon: row.get("template_icon"),
    };
    rows.into_iter().map(details).collect()
}

pub async fn by_ids(conn: &mut PgConnection, ids: &[JobId]) -> Vec<JobWithQueue> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query(include_str!("plain/by_ids.sql"))
        .bind(ids)
        .bind(demo::ANCHOR - STALE_INTERVAL)
        .fetch_all(conn)
        .await
        .expect("the jobs");
    let with_queue = |row: PgRow| JobWithQueue {
        job: job(&row),
        queue_position: row.get("queue_position"),
        queue_size: row.get("queue_size"),
    };
    rows.into_iter().map(with_queue).collect()
}

pub async fn quota(conn: &mut PgConnection, user: UserId, organization: OrganizationId) -> Quota {
    let mut sum = async |sql: &'static str| {
        sqlx::query_scalar(sql).bind(user).bind(organization).fetch_one(&mut *conn).await.expect("the sum")
    };
    Quota {
        credits_consumed: sum(include_str!("plain/consumed.sql")).await,
        budget: sum(include_str!("plain/allowance.sql")).await,
    }
}

pub async fn acquire(
    conn: &mut PgConnection,
    organization: OrganizationId,
    daemon: DaemonId,
    tags: &Tags,
) -> Option<Job> {
    let row = sqlx::query(include_str!("plain/acquire.sql"))
        .bind(demo::ANCHOR)
        .bind(daemon)
        .bind(organization)
        .bind(["terraform"])
        .bind(Value::from_iter(tags.0.clone()))
        .fetch_optional(conn)
        .await
        .expect("a job, or none");
    row.as_ref().map(job)
}
