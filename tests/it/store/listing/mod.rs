//! The listings and the quota: random databases against the model, and the cases that the domain names.

mod names;
mod odd_rows;
mod pages;
mod queue;
mod quota;
mod random;

use coderdb::{
    model::{JobDetails, JobFilter, JobId, PageRequest},
    store,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::support::{
    self,
    listing::by_ids,
    random_database::{self as rows, NOW, at, with},
};

const ORGANIZATION: Uuid = Uuid::from_u128(0xa);
const ELSEWHERE: Uuid = Uuid::from_u128(0xb);
const USER: Uuid = Uuid::from_u128(0xc);
const TEMPLATE: Uuid = Uuid::from_u128(0xd);
const VERSION: Uuid = Uuid::from_u128(0xe);
const WORKSPACE: Uuid = Uuid::from_u128(0xf);
const fn n(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn minutes_ago(minutes: i64) -> String {
    at(NOW - time::Duration::minutes(minutes))
}

/// Two organizations; in the first one a user with a workspace made from a template.
struct World {
    conn: PgConnection,
    database: support::Database,
}

impl World {
    async fn new() -> Self {
        let database = support::database().await;
        let mut conn = database.connect().await;
        let organizations = [rows::organization(ORGANIZATION, "here"), rows::organization(ELSEWHERE, "elsewhere")];
        rows::insert(&mut conn, "organizations", &organizations).await;
        rows::insert(&mut conn, "provisioner_keys", &[rows::key(ORGANIZATION), rows::key(ELSEWHERE)]).await;
        rows::insert(&mut conn, "users", &[rows::user(USER, "somebody")]).await;
        let template = rows::template(TEMPLATE, ORGANIZATION, USER, "template");
        let template = with(template, json!({"display_name": "A Template", "icon": "/icon/k8s.svg"}));
        rows::insert(&mut conn, "templates", &[template]).await;
        let version = rows::version(VERSION, ORGANIZATION, USER, Some(TEMPLATE), "v1");
        rows::insert(&mut conn, "template_versions", &[version]).await;
        let workspace = rows::workspace(WORKSPACE, ORGANIZATION, USER, TEMPLATE, "workspace");
        rows::insert(&mut conn, "workspaces", &[workspace]).await;
        Self { conn, database }
    }

    async fn insert(&mut self, table: &str, row: Value) {
        rows::insert(&mut self.conn, table, &[row]).await;
    }

    /// A job of the organization; by default it waits, and is the user's.
    async fn job(&mut self, id: u128, changes: Value) {
        self.insert("provisioner_jobs", with(rows::job(n(id), ORGANIZATION, USER), changes)).await;
    }

    /// A build of a workspace with a finished job; both have the same id.
    async fn build(&mut self, id: u128, workspace: Uuid, number: i32, changes: Value) {
        let done = json!({
            "started_at": at(NOW), "completed_at": at(NOW), "created_at": minutes_ago(1000),
            "input": {"workspace_build_id": n(id)},
        });
        self.job(id, done).await;
        let build = with(rows::build(n(id), workspace, VERSION, n(id), number), changes);
        self.insert("workspace_builds", build).await;
    }

    async fn daemon(&mut self, id: u128, organization: Uuid, tags: Value, changes: Value) {
        let daemon = rows::daemon(n(id), organization, &format!("daemon-{id}"), &tags);
        self.insert("provisioner_daemons", with(daemon, changes)).await;
    }

    async fn list(&mut self, filter: &JobFilter) -> Vec<JobDetails> {
        let page =
            store::jobs::list(&mut self.conn, &support::read_jobs(ORGANIZATION), filter, PageRequest::default()).await;
        page.unwrap().rows
    }

    /// The ids of the jobs that pass a filter.
    async fn ids(&mut self, filter: &JobFilter) -> Vec<u128> {
        self.list(filter).await.iter().map(|row| row.job.id.0.as_u128()).collect()
    }

    async fn get(&mut self, id: u128) -> JobDetails {
        store::jobs::get(&mut self.conn, &support::read_jobs(ORGANIZATION), n(id).into()).await.unwrap()
    }

    /// Id, position and size of each job.
    async fn queued(&mut self, ids: &[u128]) -> Vec<(u128, i64, i64)> {
        let ids: Vec<JobId> = ids.iter().map(|id| n(*id).into()).collect();
        by_ids(&mut self.conn, &ids, store::jobs::STALE_INTERVAL)
            .await
            .iter()
            .map(|row| (row.job.id.0.as_u128(), row.queue_position, row.queue_size))
            .collect()
    }

    async fn quota(&mut self, user: Uuid, organization: Uuid) -> (i64, i64) {
        let quota = store::quota::usage(&mut self.conn, &support::read_quota(user, organization)).await.unwrap();
        (quota.credits_consumed, quota.budget)
    }
}

fn untagged() -> Value {
    json!({"scope": "organization", "owner": ""})
}
