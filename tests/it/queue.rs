//! The counted queue: what triggers record, what is folded, and what is read from it, beside a plain count of the jobs.

use coderdb::{
    model::{Capabilities, JobFilter, JobId, OrganizationId, PageRequest, ProvisionerType, Tags},
    store,
};
use fastrand::Rng;
use sqlx::{AssertSqlSafe, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    jobs::{self, Rows},
    support,
};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);
const DIFFERENCES: &str = "SELECT count(*) FROM provisioner_job_queue_differences()";
const FOLDS: &str = "SELECT max(id) FROM provisioner_job_queue_folds";
const UNFOLDED: &str = "SELECT count(*) FROM provisioner_job_queue_unfolded";

/// Jobs with few times and tag sets, and ids of which many begin alike: half of them tie up to the end of the id.
const ADD_MANY: &str = "
CREATE FUNCTION add_many(first integer, last integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id, tags
    )
    SELECT
        CASE WHEN n % 2 = 0 THEN u(n) ELSE md5(n::text)::uuid END,
        CASE n % 101 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN '4000-01-01' ELSE at_second(n * 7 % 97) END,
        at_second(0), u(1), CASE WHEN n % 5 < 3 THEN prebuilds() ELSE u(1) END, 'echo', 'file', 'workspace_build', '{}', u(0),
        CASE n % 3 WHEN 0 THEN '{\"n\": \"0\"}' ELSE '{\"n\": \"1\"}' END::jsonb
    FROM generate_series(first, last) AS n
$$";

/// One step of a foreign writer, in whatever isolation, which may fail only as it would without a counted queue.
async fn step(conn: &mut PgConnection, rng: &mut Rng) {
    let isolation = rng.choice(["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]);
    let some = format!("(SELECT id FROM provisioner_jobs WHERE id > md5('{}')::uuid ORDER BY id LIMIT 3)", rng.u32(..));
    let mut change = || match rng.u8(..9) {
        0..=2 => format!("SELECT add_many({0}, {0} + 20)", rng.u32(1..=u32::from(u16::MAX)) * 1000),
        3 => format!("UPDATE provisioner_jobs SET started_at = at_second(1) WHERE id IN {some}"),
        4 => format!("UPDATE provisioner_jobs SET started_at = NULL, completed_at = NULL WHERE id IN {some}"),
        5 => format!("UPDATE provisioner_jobs SET canceled_at = at_second(1), error = '' WHERE id IN {some}"),
        6 => format!("UPDATE provisioner_jobs SET created_at = at_second(5), tags = '{{}}' WHERE id IN {some}"),
        7 => format!("DELETE FROM provisioner_jobs WHERE id IN {some}"),
        _ => format!("UPDATE provisioner_jobs SET initiator_id = prebuilds(), error = NULL WHERE id IN {some}"),
    };
    let changes = format!("{}; SAVEPOINT a; {}; ROLLBACK TO a; {}", change(), change(), change());
    let end = if rng.u8(..4) == 0 { "ROLLBACK" } else { "COMMIT" };
    let all = format!("BEGIN ISOLATION LEVEL {}; {changes}; {end}", isolation.unwrap_or_default());
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(all)).execute(&mut *conn).await {
        let code = error.as_database_error().and_then(|error| error.code().map(String::from)).unwrap_or_default();
        // A duplicate id, a conflict under a strict isolation, and two writers with the same jobs in another order.
        assert!(["23505", "40001", "40P01"].contains(&code.as_str()), "{error}");
        sqlx::raw_sql("ROLLBACK").execute(conn).await.expect("the end");
    }
}

#[tokio::test]
async fn every_snapshot_has_the_right_counts_while_others_write_roll_back_and_fold() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    let mut writers = JoinSet::new();
    for seed in 0..6 {
        let mut conn = rows.database.connect().await;
        writers.spawn(async move {
            let mut rng = Rng::with_seed(seed);
            for _ in 0..60 {
                step(&mut conn, &mut rng).await;
            }
        });
    }
    let mut checks = 0;
    while !writers.is_empty() {
        while let Some(done) = writers.try_join_next() {
            done.expect("a writer that nothing fails");
        }
        assert_eq!(rows.one(DIFFERENCES).await, "0");
        checks += 1;
    }
    assert!(checks > 1);
    let folds: u64 = rows.one(FOLDS).await.parse().expect("a number");
    assert!(folds > 2, "{folds} folds");
    assert_places(&mut rows).await;
}

/// The numbers of all listed jobs, and of the pending ones for each of two daemons, are those of plain SQL.
async fn assert_places(rows: &mut Rows) {
    let order = "ORDER BY initiator_id = prebuilds(), created_at, id";
    let listed = "started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL";
    let mut expected = rows
        .all(&format!(
            "SELECT concat_ws(' ', id, row_number() OVER ({order}), count(*) OVER ()) FROM provisioner_jobs WHERE {listed}"
        ))
        .await;
    let permit = support::read_jobs(OrganizationId(Uuid::from_u128(1)));
    let page = store::jobs::list(&mut rows.conn, &permit, &JobFilter::default(), PageRequest::default()).await;
    let page = page.expect("a page").rows;
    let mut actual: Vec<String> = page
        .iter()
        .filter(|row| row.queue_position > 0)
        .map(|row| format!("{} {} {}", row.job.id, row.queue_position, row.queue_size))
        .collect();
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected);

    rows.run(
        "DELETE FROM provisioner_daemons; DELETE FROM provisioner_keys;
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (
            id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id
         ) VALUES (u(1), at_second(0), 'one', '{echo}', '{\"n\": \"1\"}', at_second(0), u(1), u(1))",
    )
    .await;
    let served = "job_status = 'pending' AND provisioner_tagset_contains('{\"n\": \"1\"}', tags)";
    let mut expected = rows
        .all(&format!(
            "SELECT concat_ws(' ', id, row_number() OVER ({order}), count(*) OVER ()) FROM provisioner_jobs WHERE {served}"
        ))
        .await;
    let ids: Vec<JobId> = page.iter().map(|row| row.job.id).collect();
    let placed =
        store::jobs::by_ids_with_queue_position(&mut rows.conn, &permit, &ids, NOW, store::jobs::STALE_INTERVAL)
            .await
            .expect("the jobs");
    let mut actual: Vec<String> = placed
        .iter()
        .filter(|row| row.queue_position > 0)
        .map(|row| format!("{} {} {}", row.job.id, row.queue_position, row.queue_size))
        .collect();
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected);
}

#[tokio::test]
async fn places_are_exact_over_many_pages_and_changes_that_are_not_folded() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run("SELECT add_many(1001, 2500)").await;
    assert_eq!(rows.one(UNFOLDED).await, "0", "a large transaction folds what it did");
    let pages = "SELECT cardinality(pages) > 3 FROM provisioner_job_queue_lanes WHERE listed";
    assert_eq!(rows.one(pages).await, "true");
    assert_places(&mut rows).await;
    // Too few to be folded.
    rows.run("SELECT add_many(2501, 2530); UPDATE provisioner_jobs SET started_at = at_second(0) WHERE id < u(1040)")
        .await;
    assert_ne!(rows.one(UNFOLDED).await, "0");
    assert_places(&mut rows).await;
    rows.run("UPDATE provisioner_jobs SET started_at = at_second(0) WHERE created_at < at_second(50)").await;
    assert_places(&mut rows).await;
    rows.run("TRUNCATE provisioner_jobs CASCADE").await;
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    assert_places(&mut rows).await;
}

async fn take(conn: &mut PgConnection, tags: &[(&str, &str)]) -> Option<JobId> {
    let permit = jobs::daemon(1, 7);
    let tags: Tags = tags.iter().copied().collect();
    let offer = Capabilities { provisioners: &[ProvisionerType::Echo], tags: &tags };
    store::jobs::acquire(conn, &permit, offer, NOW).await.expect("an answer").map(|job| job.id)
}

#[tokio::test]
async fn a_daemon_takes_its_jobs_in_order_from_one_fold_to_the_next() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run("DELETE FROM provisioner_jobs; SELECT add_many(1001, 1600)").await;
    let folds = rows.one(FOLDS).await;
    let order = "SELECT id FROM provisioner_jobs WHERE tags = '{\"n\": \"1\"}' ORDER BY initiator_id = prebuilds(), created_at, id";
    let mut expected = rows.all(order).await;
    // A job that comes while the daemon works is the next one when it is a person's, and older than all.
    let late = rows.one("SELECT u(999999)").await;
    expected.insert(100, late);
    let mut taken = Vec::new();
    while let Some(job) = take(&mut rows.conn, &[("n", "1")]).await {
        taken.push(job.to_string());
        if taken.len() == 100 {
            rows.run(
                "SELECT add_job(999999);
                 UPDATE provisioner_jobs SET tags = '{\"n\": \"1\"}', created_at = '-infinity' WHERE id = u(999999)",
            )
            .await;
        }
    }
    assert_eq!(taken, expected);
    assert_ne!(rows.one(FOLDS).await, folds);
    assert_eq!(take(&mut rows.conn, &[("n", "2")]).await, None);
    assert!(take(&mut rows.conn, &[("n", "0")]).await.is_some());
    assert_eq!(rows.one(DIFFERENCES).await, "0");
}

#[tokio::test]
async fn a_writer_whose_session_reads_backslashes_otherwise_is_counted_alike() {
    let mut rows = Rows::new().await;
    rows.run("SET standard_conforming_strings = off; SET escape_string_warning = off; SELECT add_job(11)").await;
    rows.run("RESET standard_conforming_strings").await;
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    assert_eq!(rows.one(UNFOLDED).await, "2", "the job of every test, and this one");
}

#[tokio::test]
async fn who_may_write_jobs_needs_no_right_on_the_counted_queue() {
    let mut rows = Rows::new().await;
    let role = format!("writer_of_{}", rows.database.name());
    rows.run(ADD_MANY).await;
    rows.run(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON provisioner_jobs TO {role};
         BEGIN; SET LOCAL ROLE {role}; CREATE TEMP TABLE provisioner_job_queue_changes (nothing integer);
         SELECT add_many(1001, 1200); UPDATE provisioner_jobs SET started_at = at_second(0) WHERE id > u(1100);
         DELETE FROM provisioner_jobs WHERE id = u(1100); DROP TABLE pg_temp.provisioner_job_queue_changes; COMMIT"
    ))
    .await;
    assert_ne!(rows.one(FOLDS).await, "1", "folded as the owner");
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    rows.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_job_that_was_never_counted_is_found_is_taken_some_time_and_counted_anew() {
    let mut rows = Rows::new().await;
    rows.run("DELETE FROM provisioner_jobs").await;
    rows.run(
        "BEGIN; SET LOCAL session_replication_role = replica; SELECT add_job(11), add_job(12);
         UPDATE provisioner_jobs SET tags = '{}'; COMMIT",
    )
    .await;
    // Two keys of a lane each, which are one key: the ids begin alike.
    assert_eq!(rows.one(DIFFERENCES).await, "2");
    let mut calls = 0;
    // Nobody has as bad luck as this: one call in 256 does not trust the counts.
    while take(&mut rows.conn, &[("a", "b")]).await.is_none() {
        calls += 1;
        assert!(calls < 10_000);
    }
    rows.run("SELECT provisioner_job_queue_recount()").await;
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    assert!(take(&mut rows.conn, &[("a", "b")]).await.is_some());
    assert_eq!(rows.one(DIFFERENCES).await, "0");
}

#[tokio::test]
async fn a_queue_that_cannot_be_folded_fails_no_writer_and_is_folded_later() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run("ALTER TABLE provisioner_job_queue_pages RENAME TO elsewhere; SELECT add_many(1001, 1300)").await;
    assert_eq!(rows.one(UNFOLDED).await, "301");
    rows.run("ALTER TABLE elsewhere RENAME TO provisioner_job_queue_pages").await;
    assert_places(&mut rows).await;
    rows.run("SELECT add_many(1301, 1340)").await;
    assert_eq!(rows.one(UNFOLDED).await, "0");
    assert_places(&mut rows).await;
}

#[tokio::test]
async fn a_database_that_was_restored_on_a_younger_server_counts_on() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run("SELECT add_many(1001, 1300); UPDATE provisioner_job_queue_folds SET upto = '99999999999'").await;
    rows.run("SELECT add_many(1301, 1310)").await;
    assert_places(&mut rows).await;
    rows.run("SELECT add_many(1311, 1600)").await;
    assert_eq!(rows.one(UNFOLDED).await, "0");
    assert_places(&mut rows).await;
}
