//! Status, tags, positions and workers in a listing.

use coderdb::{
    model::{JobDetails, JobFilter, JobStatus, PageRequest, UserId, tags_serve},
    store,
};
use serde_json::{Value, json};

use super::{ELSEWHERE, ORGANIZATION, World, minutes_ago, n, untagged};
use crate::support::{
    self,
    model::{PREBUILDS, tagset_contains},
    random_database::{NOW, STALE, at, with},
};

fn on_prem() -> Value {
    json!({"scope": "organization", "owner": "", "env": "on-prem"})
}

#[tokio::test]
async fn tags_match_as_the_table_of_the_domain_says() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let chicago = json!({"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"});
    let aaa = json!({"scope": "user", "owner": "aaa"});
    let bbb = json!({"scope": "user", "owner": "bbb"});
    let default = json!({"scope": "organization"});
    for (daemon, job, expected) in [
        (untagged(), untagged(), true),
        (on_prem(), untagged(), false),
        (on_prem(), on_prem(), true),
        (chicago.clone(), on_prem(), true),
        (on_prem(), chicago.clone(), false),
        (aaa.clone(), aaa.clone(), true),
        (aaa.clone(), bbb, false),
        (untagged(), json!({}), true),
        (chicago.clone(), json!({}), true),
        (json!({}), json!({}), true),
        (untagged(), default.clone(), true),
        (on_prem(), default.clone(), true),
        (aaa, default.clone(), false),
        (json!({}), default, false),
        (json!({}), untagged(), false),
        // What containment in jsonb means where a value is not a string or not an object.
        (json!({"n": 1}), json!({"n": 1.0}), true),
        (json!({"n": 9_007_199_254_740_993_u64}), json!({"n": 9_007_199_254_740_992_u64}), false),
        (json!({"n": "1"}), json!({"n": 1}), false),
        (json!({"n": null}), json!({"n": null}), true),
        (json!({}), json!({"n": null}), false),
        (json!({"l": ["a", "b"]}), json!({"l": ["b", "a", "b"]}), true),
        (json!({"l": ["a"]}), json!({"l": "a"}), false),
        (json!({"o": {"a": 1, "b": 2}}), json!({"o": {"a": 1}}), true),
        (json!(["a", "b"]), json!("a"), true),
        (json!("a"), json!(["a"]), false),
        (json!("a"), json!("a"), true),
        (json!(["a", ["b"]]), json!([["b"]]), true),
        (json!(["a", ["b"]]), json!("b"), false),
        (json!([]), json!({}), false),
        (json!({}), json!([]), false),
        (json!(null), json!(null), true),
        (json!([null]), json!(null), true),
    ] {
        let actual: Option<bool> = sqlx::query_scalar("SELECT provisioner_tagset_contains($1::jsonb, $2::jsonb)")
            .bind(&daemon)
            .bind(&job)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(actual, Some(expected), "daemon {daemon}, job {job}");
        assert_eq!(tagset_contains(&daemon, &job), expected, "the model: daemon {daemon}, job {job}");
        assert_eq!(tags_serve(&daemon, &job), expected, "the library: daemon {daemon}, job {job}");
    }
    for (daemon, job) in [(None, Some(untagged())), (Some(untagged()), None), (None, Some(json!({}))), (None, None)] {
        let actual: Option<bool> = sqlx::query_scalar("SELECT provisioner_tagset_contains($1::jsonb, $2::jsonb)")
            .bind(&daemon)
            .bind(&job)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_ne!(actual, Some(true), "NULL is no match: daemon {daemon:?}, job {job:?}");
    }
}

#[tokio::test]
async fn the_status_is_the_truth_table_of_completed_canceled_started_and_error() {
    let mut world = World::new().await;
    let table = [
        // completed, canceled, started, error
        (false, false, false, false, JobStatus::Pending),
        (false, false, false, true, JobStatus::Failed),
        (false, false, true, false, JobStatus::Running),
        (false, false, true, true, JobStatus::Failed),
        (false, true, false, false, JobStatus::Canceling),
        (false, true, false, true, JobStatus::Failed),
        (false, true, true, false, JobStatus::Canceling),
        (false, true, true, true, JobStatus::Failed),
        (true, false, false, false, JobStatus::Succeeded),
        (true, false, false, true, JobStatus::Failed),
        (true, false, true, false, JobStatus::Succeeded),
        (true, false, true, true, JobStatus::Failed),
        (true, true, false, false, JobStatus::Canceled),
        (true, true, false, true, JobStatus::Failed),
        (true, true, true, false, JobStatus::Canceled),
        (true, true, true, true, JobStatus::Failed),
    ];
    for (id, (completed, canceled, started, error, status)) in (1..).step_by(2).zip(table) {
        let columns = json!({
            "completed_at": completed.then(|| at(NOW)), "canceled_at": canceled.then(|| at(NOW)),
            "started_at": started.then(|| at(NOW)), "error": error.then_some("boom"),
        });
        world.job(id, columns.clone()).await;
        assert_eq!(world.get(id).await.job.status, status, "{columns}");
        // An empty error is no error.
        let columns = with(columns, json!({"error": if error { "boom" } else { "" }}));
        world.job(id + 1, columns.clone()).await;
        assert_eq!(world.get(id + 1).await.job.status, status, "{columns}");
    }
    for status in JobStatus::ALL {
        let rows = world.list(&JobFilter { status: vec![*status], ..JobFilter::default() }).await;
        assert_eq!(rows.len(), 2 * table.iter().filter(|row| row.4 == *status).count(), "{status}");
    }
}

#[tokio::test]
async fn a_filtered_list_shows_real_queue_positions() {
    let mut world = World::new().await;
    world.job(1, json!({"created_at": minutes_ago(9), "initiator_id": PREBUILDS})).await;
    world.job(2, json!({"created_at": minutes_ago(8), "organization_id": ELSEWHERE})).await;
    world.job(3, json!({"created_at": minutes_ago(7), "tags": on_prem()})).await;
    world.job(4, json!({"created_at": minutes_ago(6)})).await;
    let queue = |rows: Vec<JobDetails>| -> Vec<_> {
        rows.iter().map(|row| (row.job.id.0.as_u128(), row.queue_position, row.queue_size)).collect()
    };
    let all = world.list(&JobFilter::default()).await;
    assert_eq!(queue(all), [(4, 3, 4), (3, 2, 4), (1, 4, 4)], "people first, other organizations included");
    let prebuilds = JobFilter { initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
    assert_eq!(queue(world.list(&prebuilds).await), [(1, 4, 4)]);
    let page = store::jobs::list(
        &mut world.conn,
        &support::read_jobs(ORGANIZATION),
        &JobFilter::default(),
        PageRequest::first(1),
    )
    .await;
    assert_eq!(queue(page.unwrap().rows), [(4, 3, 4)]);
    let one = world.get(3).await;
    assert_eq!(queue(vec![one]), [(3, 2, 4)]);
}

#[tokio::test]
async fn every_row_shows_the_size_of_the_queue_also_one_that_does_not_wait() {
    let mut world = World::new().await;
    world.job(1, json!({"started_at": at(NOW)})).await;
    world.job(2, json!({"organization_id": ELSEWHERE})).await;
    let row = world.get(1).await;
    assert_eq!((row.queue_position, row.queue_size), (0, 1));
}

#[tokio::test]
async fn a_job_with_an_empty_error_waits_for_tags_but_not_in_the_list() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, untagged(), json!({})).await;
    world.job(1, json!({"error": ""})).await;
    let row = world.get(1).await;
    assert_eq!((row.job.status, row.queue_position, row.queue_size), (JobStatus::Pending, 0, 0));
    assert_eq!(world.queued(&[1]).await, [(1, 1, 1)]);
}

#[tokio::test]
async fn jobs_of_one_moment_queue_by_id_and_list_by_id_from_the_last() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, untagged(), json!({})).await;
    for id in [2, 3, 1] {
        world.job(id, json!({})).await;
    }
    let rows = world.list(&JobFilter::default()).await;
    let positions: Vec<_> = rows.iter().map(|row| (row.job.id.0.as_u128(), row.queue_position)).collect();
    assert_eq!(positions, [(3, 3), (2, 2), (1, 1)]);
    assert_eq!(world.queued(&[3, 2, 1]).await, [(1, 1, 3), (2, 2, 3), (3, 3, 3)]);
}

#[tokio::test]
async fn an_untagged_job_never_gets_a_tagged_worker() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, on_prem(), json!({})).await;
    world.job(1, json!({"created_at": minutes_ago(2)})).await;
    world.job(2, json!({"created_at": minutes_ago(1), "tags": on_prem()})).await;
    assert!(world.get(1).await.available_workers.is_empty());
    assert_eq!(world.get(2).await.available_workers, [n(100).into()]);
    assert_eq!(world.queued(&[1, 2]).await, [(1, 0, 0), (2, 1, 1)]);

    world.daemon(101, ORGANIZATION, untagged(), json!({})).await;
    assert_eq!(world.get(1).await.available_workers, [n(101).into()]);
    assert_eq!(world.get(2).await.available_workers, [n(100).into()], "nor a tagged job an untagged worker");
    assert_eq!(world.queued(&[1, 2]).await, [(1, 1, 1), (2, 1, 1)]);
}

#[tokio::test]
async fn available_workers_are_the_organizations_own_oldest_first_fresh_or_not() {
    let mut world = World::new().await;
    world.daemon(103, ORGANIZATION, untagged(), json!({"last_seen_at": null})).await;
    world.daemon(102, ORGANIZATION, untagged(), json!({"created_at": minutes_ago(-1)})).await;
    world.daemon(101, ORGANIZATION, untagged(), json!({"last_seen_at": minutes_ago(100_000)})).await;
    world.daemon(104, ORGANIZATION, untagged(), json!({"created_at": minutes_ago(1)})).await;
    world.daemon(105, ELSEWHERE, untagged(), json!({})).await;
    world.daemon(106, ORGANIZATION, untagged(), json!({"provisioners": ["echo"]})).await;
    world.daemon(107, ORGANIZATION, untagged(), json!({"provisioners": []})).await;
    world.job(1, json!({})).await;
    let workers = [104, 101, 103, 102].map(|id| n(id).into());
    assert_eq!(world.get(1).await.available_workers, workers);
    world.job(2, json!({"canceled_at": at(NOW), "completed_at": at(NOW)})).await;
    assert_eq!(world.get(2).await.available_workers, workers, "only started_at is tested");
    world.job(3, json!({"started_at": at(NOW)})).await;
    assert!(world.get(3).await.available_workers.is_empty());
}

#[tokio::test]
async fn a_daemon_is_online_up_to_the_very_boundary() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    for (id, seen, expected) in [
        (100, None, 0),
        (101, Some(NOW - STALE - time::Duration::microseconds(1)), 0),
        (102, Some(NOW - STALE), 1),
        (103, Some(NOW + STALE), 1),
    ] {
        world.daemon(id, ELSEWHERE, untagged(), json!({"last_seen_at": seen.map(at), "provisioners": []})).await;
        assert_eq!(world.queued(&[1]).await, [(1, expected, expected)], "seen at {seen:?}");
        sqlx::query("DELETE FROM provisioner_daemons").execute(&mut world.conn).await.unwrap();
    }
}

#[tokio::test]
async fn by_ids_takes_the_best_position_and_the_largest_queue_over_tag_sets() {
    let mut world = World::new().await;
    let gpu = json!({"scope": "organization", "owner": "", "gpu": "yes"});
    let both = json!({"scope": "organization", "owner": "", "gpu": "yes", "env": "on-prem"});
    // Of the first kind of daemon the job is third of three; of the second kind it is first of two.
    let chicago = json!({"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"});
    world.daemon(100, ORGANIZATION, both, json!({})).await;
    world.daemon(101, ORGANIZATION, chicago.clone(), json!({})).await;
    world.job(1, json!({"created_at": minutes_ago(9), "tags": gpu})).await;
    world.job(2, json!({"created_at": minutes_ago(8), "tags": gpu})).await;
    world.job(3, json!({"created_at": minutes_ago(7), "tags": on_prem()})).await;
    world.job(4, json!({"created_at": minutes_ago(6), "tags": chicago})).await;
    assert_eq!(world.queued(&[3]).await, [(3, 1, 3)]);
    assert_eq!(world.queued(&[4, 3, 2, 1]).await, [(1, 1, 3), (2, 2, 3), (3, 1, 3), (4, 2, 2)]);
    world
        .daemon(102, ELSEWHERE, json!({"dc": "chi", "env": "on-prem", "owner": "", "scope": "organization"}), json!({}))
        .await;
    assert_eq!(world.queued(&[3]).await, [(3, 1, 3)], "two daemons with one tag set have one queue");
    world.job(5, json!({"created_at": minutes_ago(10), "tags": on_prem(), "initiator_id": PREBUILDS})).await;
    assert_eq!(world.queued(&[3, 5]).await, [(5, 3, 4), (3, 1, 4)], "prebuilds wait behind people");
}

#[tokio::test]
async fn by_ids_leaves_unknown_ids_out_and_answers_each_id_once() {
    let mut world = World::new().await;
    world.job(1, json!({"created_at": minutes_ago(1)})).await;
    world.job(2, json!({"created_at": minutes_ago(2), "organization_id": ELSEWHERE})).await;
    assert_eq!(world.queued(&[]).await, []);
    assert_eq!(world.queued(&[7]).await, []);
    assert_eq!(world.queued(&[1, 7, 2, 1]).await, [(2, 0, 0), (1, 0, 0)]);
}
