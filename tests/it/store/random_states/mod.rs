//! What is decided of a few rows, in many random states of them, is what the model says.

mod agents;
mod logs;
mod queue;
mod quota;
mod tags;

use std::collections::BTreeMap;

use coderdb::model::Tags;
use fastrand::Rng;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{
    model::{JobRow, Model, PREBUILDS},
    random_database::{self as rows, often, one},
    rows::{NOW, id},
};

async fn run(conn: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(conn).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

fn sometimes(rng: &mut Rng, at: OffsetDateTime) -> Option<OffsetDateTime> {
    rng.bool().then_some(at)
}

/// The columns that decide on a status: all sixteen combinations (domain: job status), the empty error twice.
fn lived(rng: &mut Rng, waits: f64) -> [Option<OffsetDateTime>; 3] {
    if often(rng, waits) { [None; 3] } else { [0; 3].map(|_| sometimes(rng, NOW)) }
}

fn error(rng: &mut Rng) -> Option<String> {
    one(rng, &[None, None, None, Some(""), Some(" "), Some("failed"), Some("insufficient quota")]).map(str::to_owned)
}

fn job(rng: &mut Rng) -> JobRow {
    let waits = often(rng, 0.7);
    let [started_at, canceled_at, completed_at] = if waits { [None; 3] } else { lived(rng, 0.0) };
    JobRow {
        id: rows::uuid(rng),
        created_at: rows::time(rng),
        updated_at: NOW,
        started_at,
        canceled_at,
        completed_at,
        error: if waits && often(rng, 0.9) { None } else { error(rng) },
        organization_id: id(if often(rng, 0.75) { 1 } else { 2 }),
        initiator_id: if often(rng, 0.4) { PREBUILDS } else { id(1) },
        provisioner: one(rng, &["echo", "terraform"]).to_owned(),
        storage_method: "file".to_owned(),
        job_type: "workspace_build".to_owned(),
        input: json!({}),
        worker_id: None,
        file_id: Uuid::nil(),
        tags: rows::tags(rng),
        error_code: None,
        trace_metadata: None,
        logs_length: 0,
        logs_overflowed: false,
    }
}

fn stored(tags: &Tags) -> Value {
    tags.0.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

const BIG: i32 = i32::MAX;

/// The builds of a workspace by number: ids, costs, and whether the job has succeeded.
type Builds = BTreeMap<i32, (Uuid, i32, bool)>;

/// Whether a commit of a later build is compared with this one.
fn counts(build: Option<&(Uuid, i32, bool)>) -> bool {
    build.is_some_and(|(_, cost, succeeded)| *cost > 0 || *succeeded)
}

fn before(builds: &Builds, number: i32) -> Option<&(Uuid, i32, bool)> {
    builds.range(..number).rev().map(|(_, build)| build).find(|build| counts(Some(build)))
}

/// A text of about so many bytes, of characters of one to four.
fn text(rng: &mut Rng, bytes: usize) -> String {
    let character = one(rng, &["x", "x", "\u{e9}", "\u{20ac}", "\u{1f600}"]);
    let mut text = character.repeat(bytes / character.len());
    if rng.bool() {
        text.push_str(&"y".repeat(bytes - text.len()));
    }
    text
}

async fn store_queue(conn: &mut PgConnection, model: &Model) {
    macro_rules! column {
        ($rows:ident, $value:expr) => {
            model.$rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "WITH gone AS (DELETE FROM provisioner_jobs),
         jobs AS (
            INSERT INTO provisioner_jobs (
                id, created_at, updated_at, started_at, canceled_at, completed_at, error, organization_id, initiator_id,
                provisioner, storage_method, type, input, file_id, tags
            )
            SELECT
                j.id, j.created_at, j.created_at, j.started_at, j.canceled_at, j.completed_at, j.error, j.organization,
                j.initiator, j.provisioner::provisioner_type, 'file', 'workspace_build', '{}', j.id, j.tags
            FROM unnest(
                $1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                $7::uuid[], $8::uuid[], $9::text[], $10::jsonb[]
            ) AS j (
                id, created_at, started_at, canceled_at, completed_at, error, organization, initiator, provisioner, tags
            )
         )
         INSERT INTO provisioner_daemons (
            id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id
         )
         SELECT
            d.id, d.created_at, d.name, string_to_array(d.provisioners, ',')::provisioner_type[], d.tags, d.last_seen_at,
            d.organization, d.organization
         FROM unnest(
            $11::uuid[], $12::timestamptz[], $13::text[], $14::text[], $15::jsonb[], $16::timestamptz[], $17::uuid[]
         ) AS d (id, created_at, name, provisioners, tags, last_seen_at, organization)",
    )
    .bind(column!(provisioner_jobs, |job| job.id))
    .bind(column!(provisioner_jobs, |job| job.created_at))
    .bind(column!(provisioner_jobs, |job| job.started_at))
    .bind(column!(provisioner_jobs, |job| job.canceled_at))
    .bind(column!(provisioner_jobs, |job| job.completed_at))
    .bind(column!(provisioner_jobs, |job| job.error.clone()))
    .bind(column!(provisioner_jobs, |job| job.organization_id))
    .bind(column!(provisioner_jobs, |job| job.initiator_id))
    .bind(column!(provisioner_jobs, |job| job.provisioner.clone()))
    .bind(column!(provisioner_jobs, |job| job.tags.clone()))
    .bind(column!(provisioner_daemons, |daemon| daemon.id))
    .bind(column!(provisioner_daemons, |daemon| daemon.created_at))
    .bind(column!(provisioner_daemons, |daemon| daemon.name.clone()))
    .bind(column!(provisioner_daemons, |daemon| daemon.provisioners.join(",")))
    .bind(column!(provisioner_daemons, |daemon| daemon.tags.clone()))
    .bind(column!(provisioner_daemons, |daemon| daemon.last_seen_at))
    .bind(column!(provisioner_daemons, |daemon| daemon.organization_id))
    .execute(conn)
    .await
    .expect("the queue");
}
