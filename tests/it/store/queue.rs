//! Positions in the queue and claims, beside a plain count of the jobs: what indexes tell, and what no index could hold.

use std::{collections::HashSet, time::Duration};

use coderdb::{
    model::{Capabilities, JobFilter, JobId, OrganizationId, PageRequest, ProvisionerType, Tags},
    store,
};
use sqlx::{Connection, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{
    self,
    rows::{Rows, daemon, id},
};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

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

/// The numbers of all listed jobs, and of the pending ones for each of two daemons, are those of plain SQL.
async fn assert_positions(rows: &mut Rows) {
    assert_positions_for(rows, r#"{"n": "1"}"#).await;
}

/// The same, with the tags of the daemons.
async fn assert_positions_for(rows: &mut Rows, daemon: &str) {
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

    rows.run(&format!(
        "DELETE FROM provisioner_daemons; DELETE FROM provisioner_keys;
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{{}}');
         INSERT INTO provisioner_daemons (
            id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id
         ) VALUES (u(1), at_second(0), 'one', '{{echo}}', '{daemon}', at_second(0), u(1), u(1))",
    ))
    .await;
    let served = format!("job_status = 'pending' AND provisioner_tagset_contains('{daemon}', tags)");
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

async fn take(conn: &mut PgConnection, tags: &[(&str, &str)]) -> Option<JobId> {
    take_with(conn, &tags.iter().copied().collect()).await
}

async fn take_with(conn: &mut PgConnection, tags: &Tags) -> Option<JobId> {
    let permit = daemon(1, 7);
    let offer = Capabilities { provisioners: &[ProvisionerType::Echo], tags };
    store::jobs::acquire(conn, &permit, offer, NOW).await.expect("an answer").map(|job| job.id)
}

/// So many tags that the parts of the set are not listed.
fn many_tags(others: &[(&str, &str)]) -> Tags {
    let many = (0..12).map(|n| (format!("tag-{n}"), n.to_string()));
    many.chain(others.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))).collect()
}

#[tokio::test]
async fn positions_are_those_of_a_plain_count() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run("SELECT add_many(1001, 2500)").await;
    assert_positions(&mut rows).await;
    rows.run("UPDATE provisioner_jobs SET started_at = at_second(0) WHERE created_at < at_second(50)").await;
    assert_positions(&mut rows).await;
    rows.run("UPDATE provisioner_jobs SET error = '' WHERE id > md5('half')::uuid").await;
    assert_positions(&mut rows).await;
    rows.run("TRUNCATE provisioner_jobs CASCADE").await;
    assert_positions(&mut rows).await;
}

/// Tags that are too large for an entry of an index, and values that no part of a set is made of.
#[tokio::test]
async fn positions_count_jobs_whose_tags_are_odd() {
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run(
        "SELECT add_many(1001, 1060);
         UPDATE provisioner_jobs SET tags = jsonb_build_object('n', '1', 'large', repeat('x', 1000000)) WHERE id < u(1010);
         UPDATE provisioner_jobs SET tags = '{\"n\": 1.0}' WHERE id BETWEEN u(1010) AND u(1020);
         UPDATE provisioner_jobs SET tags = '{\"n\": 1}' WHERE id BETWEEN u(1020) AND u(1030);
         UPDATE provisioner_jobs SET tags = '{\"deep\": {\"a\": 1}}' WHERE id BETWEEN u(1030) AND u(1040);
         UPDATE provisioner_jobs SET tags = '[\"n\"]' WHERE id BETWEEN u(1040) AND u(1045);
         UPDATE provisioner_jobs SET tags = '{}' WHERE id BETWEEN u(1045) AND u(1050)",
    )
    .await;
    for daemon in [
        r#"{"n": "1"}"#,
        r#"{"n": 1}"#,
        r#"{"n": "1", "deep": {"a": 1, "b": 2}}"#,
        r#"["n", "m"]"#,
        r#"{"n": "1", "1": "", "2": "", "3": "", "4": "", "5": "", "6": "", "7": "", "8": "", "9": ""}"#,
        "{}",
    ] {
        assert_positions_for(&mut rows, daemon).await;
    }
    let large = "jsonb_build_object('n', '1', 'large', repeat('x', 1000000), 'more', '2')";
    let large = rows.one(&format!("SELECT {large}::text")).await;
    assert_positions_for(&mut rows, &large).await;
}

/// Two values that swap places 64 tokens apart have one hash, whatever its seed, where a hash only rotates and adds.
#[tokio::test]
async fn tag_sets_with_swapped_values_are_told_apart() {
    let mut rows = Rows::new().await;
    let set = |first: &str, last: &str| -> Tags {
        let inner = (1..32).map(|n| (format!("k{n:02}"), String::new()));
        let ends = [("k00".to_owned(), first.to_owned()), ("k32".to_owned(), last.to_owned())];
        inner.chain(ends).collect()
    };
    let (one, other) = (set("a", "b"), set("b", "a"));
    let json = |tags: &Tags| serde_json::to_string(tags).expect("JSON");
    rows.run(&format!(
        "DELETE FROM provisioner_jobs; SELECT add_job(11), add_job(12);
         UPDATE provisioner_jobs SET tags = '{}' WHERE id = u(11); UPDATE provisioner_jobs SET tags = '{}' WHERE id = u(12)",
        json(&one),
        json(&other)
    ))
    .await;
    assert_positions_for(&mut rows, &json(&one)).await;
    assert_positions_for(&mut rows, &json(&other)).await;
    assert_eq!(take_with(&mut rows.conn, &other).await, Some(JobId(id(12))));
    assert_eq!(take_with(&mut rows.conn, &other).await, None);
    assert_eq!(take_with(&mut rows.conn, &one).await, Some(JobId(id(11))));
}

#[tokio::test]
async fn acquire_takes_the_jobs_of_a_daemon_in_order() {
    for tags in [[("n", "1")].into_iter().collect(), many_tags(&[("n", "1")])] {
        let mut rows = Rows::new().await;
        rows.run(ADD_MANY).await;
        rows.run("DELETE FROM provisioner_jobs; SELECT add_many(1001, 1200)").await;
        let order = "SELECT id FROM provisioner_jobs WHERE tags = '{\"n\": \"1\"}' ORDER BY initiator_id = prebuilds(), created_at, id";
        let mut expected = rows.all(order).await;
        // A job that comes while the daemon works is the next one when it is a person's, and older than all.
        let late = rows.one("SELECT u(999999)").await;
        expected.insert(50, late);
        let mut taken = Vec::new();
        while let Some(job) = take_with(&mut rows.conn, &tags).await {
            taken.push(job.to_string());
            if taken.len() == 50 {
                rows.run(
                    "SELECT add_job(999999);
                     UPDATE provisioner_jobs SET tags = '{\"n\": \"1\"}', created_at = '-infinity' WHERE id = u(999999)",
                )
                .await;
            }
        }
        assert_eq!(taken, expected);
        assert_eq!(take(&mut rows.conn, &[("n", "2")]).await, None);
        assert!(take(&mut rows.conn, &[("n", "0")]).await.is_some());
    }
}

/// However many candidates others have locked, one that nobody has is found.
#[tokio::test]
async fn acquire_finds_the_job_behind_many_that_are_locked() {
    for locked in [23, 24, 25, 600] {
        let mut rows = Rows::new().await;
        rows.run(ADD_MANY).await;
        rows.run("DELETE FROM provisioner_jobs").await;
        rows.run(&format!("SELECT add_many(1, {0}); UPDATE provisioner_jobs SET tags = '{{}}'", locked + 2)).await;
        let order = "ORDER BY initiator_id = prebuilds(), created_at, id";
        let free = rows.all(&format!("SELECT id FROM provisioner_jobs {order} OFFSET {locked}")).await;
        let mut others = rows.database.connect_with_session().await;
        let mut transaction = others.begin().await.expect("a transaction");
        let lock =
            format!("SELECT id FROM (SELECT id FROM provisioner_jobs {order} LIMIT {locked} FOR UPDATE) AS locked");
        sqlx::query(sqlx::AssertSqlSafe(lock)).fetch_all(&mut *transaction).await.expect("locks");
        for expected in free {
            assert_eq!(take(&mut rows.conn, &[("a", "b")]).await.map(|id| id.to_string()), Some(expected));
        }
        assert_eq!(take(&mut rows.conn, &[("a", "b")]).await, None);
        transaction.rollback().await.expect("an end");
    }
}

/// 64 daemons at once: every job is taken once, and nobody hears "nothing" while a job waits for him.
#[tokio::test]
async fn acquire_by_many_at_once_leaves_nothing_behind() {
    const DAEMONS: usize = 64;
    let mut rows = Rows::new().await;
    rows.run(ADD_MANY).await;
    rows.run("DELETE FROM provisioner_jobs; SELECT add_many(1, 640); UPDATE provisioner_jobs SET tags = '{}'").await;
    let settings =
        coderdb::pool::Settings { max_size: DAEMONS, deadline: Duration::from_mins(1), ..Default::default() };
    let pool = rows.database.pool(settings);
    let mut daemons = JoinSet::new();
    for _ in 0..DAEMONS {
        let pool = pool.clone();
        daemons.spawn(async move {
            let mut taken = Vec::new();
            // Ten for each: whoever hears "nothing" before has missed one.
            for _ in 0..10 {
                let mut conn = pool.get().await.expect("a connection");
                taken.push(take(&mut conn, &[("a", "b")]).await.expect("a job"));
            }
            taken
        });
    }
    let taken: HashSet<JobId> = daemons.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 640);
    assert_eq!(take(&mut rows.conn, &[("a", "b")]).await, None);
}
