//! Who has which part of the queue (domain: shares of the queue).

use std::time::Duration;

use coderdb::{
    model::{Share, ShareBy, Spread, Tags},
    store::queue,
};
use uuid::Uuid;

use crate::support::{
    self,
    model::PREBUILDS,
    rows::{NOW, Rows, id},
};

/// Five jobs of user 1 and three prebuilds that wait for 10, 20, … seconds, one of each that runs, and one of user 1 that
/// has started after 7 seconds; those of user 1 build template 1.
const JOBS: &str = "
DELETE FROM provisioner_jobs;
INSERT INTO provisioner_jobs (
    id, created_at, updated_at, started_at, completed_at, organization_id, initiator_id, provisioner, storage_method, type,
    input, file_id, tags
)
SELECT
    u(10 + n), at_second(-10 * n), at_second(0), started, ended, u(1), initiator, 'echo', 'file', 'workspace_build', '{}',
    u(0), tags
FROM (VALUES
    (1, NULL, NULL, u(1), '{\"a\": \"1\"}'), (2, NULL, NULL, u(1), '{\"a\": \"1\"}'), (3, NULL, NULL, u(1), '{}'),
    (4, NULL, NULL, u(1), '{}'), (5, NULL, NULL, u(1), '{}'), (6, NULL, NULL, prebuilds(), '{}'),
    (7, NULL, NULL, prebuilds(), '{}'), (8, NULL, NULL, prebuilds(), '{}'),
    (9, at_second(-80), NULL, u(1), '{}'), (10, at_second(-80), NULL, prebuilds(), '{}'),
    (11, at_second(-103), at_second(-50), u(1), '{}')
) AS j (n, started, ended, initiator, tags_text), LATERAL (SELECT tags_text::jsonb AS tags) AS t;
INSERT INTO workspace_builds (
    id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id
)
SELECT id, created_at, created_at, u(1), u(1), row_number() OVER (ORDER BY id), 'start', initiator_id, id
FROM provisioner_jobs WHERE initiator_id = u(1);
";

fn spread(p50: f64, p95: f64) -> Spread {
    Spread { p50: Duration::from_secs_f64(p50), p95: Duration::from_secs_f64(p95) }
}

#[tokio::test]
async fn shares_say_who_waits_and_runs_and_for_how_long() {
    let mut rows = Rows::new().await;
    rows.run(JOBS).await;
    let permit = support::read_jobs(id(1));
    let day = Duration::from_hours(24);
    let mine = Share {
        id: Some(id(1)),
        name: "user1".to_owned(),
        tags: None,
        waiting: 5,
        waiting_prebuilds: 0,
        waiting_share: 5.0 / 8.0,
        running: 1,
        running_share: 0.5,
        started: 2,
        waiting_for: Some(spread(30.0, 48.0)),
        started_after: Some(spread(8.5, 9.85)),
    };
    let prebuilds = Share {
        id: Some(PREBUILDS),
        name: "prebuilds".to_owned(),
        waiting: 3,
        waiting_prebuilds: 3,
        waiting_share: 3.0 / 8.0,
        started: 1,
        waiting_for: Some(spread(70.0, 79.0)),
        started_after: Some(spread(20.0, 20.0)),
        ..mine.clone()
    };
    let shares = queue::shares(&mut rows.conn, &permit, ShareBy::Initiator, NOW, day).await.expect("shares");
    assert_eq!(shares, [mine.clone(), prebuilds.clone()]);
    let shares = queue::shares(&mut rows.conn, &permit, ShareBy::Template, NOW, day).await.expect("shares");
    let named = Share { name: "template1".to_owned(), ..mine };
    assert_eq!(shares, [named, Share { id: None, name: String::new(), ..prebuilds }]);
    let shares = queue::shares(&mut rows.conn, &permit, ShareBy::Tags, NOW, day).await.expect("shares");
    let counts =
        |share: &Share| (share.tags.clone().expect("tags"), share.waiting, share.waiting_prebuilds, share.running);
    let a: Tags = [("a", "1")].into_iter().collect();
    assert_eq!(shares.iter().map(counts).collect::<Vec<_>>(), [(Tags::default(), 6, 3, 2), (a, 2, 0, 0)]);
    // What was created before the window does not count among those that have started.
    let shares = queue::shares(&mut rows.conn, &permit, ShareBy::Initiator, NOW, Duration::from_secs(95)).await;
    let started: Vec<_> = shares.expect("shares").iter().map(|share| share.started).collect();
    assert_eq!(started, [1, 0]);
    // Others see nothing of it.
    let elsewhere = support::read_jobs(id(2));
    rows.run("SELECT add_organization(2)").await;
    assert_eq!(queue::shares(&mut rows.conn, &elsewhere, ShareBy::Tags, NOW, day).await.expect("shares"), []);
}

#[tokio::test]
async fn shares_keep_whoever_is_gone_and_jobs_at_odd_times() {
    let mut rows = Rows::new().await;
    rows.run(JOBS).await;
    rows.run(
        "UPDATE users SET deleted = true WHERE id = u(1);
         UPDATE provisioner_jobs SET created_at = 'infinity' WHERE id = u(11);
         UPDATE provisioner_jobs SET created_at = '-infinity' WHERE id = u(12);
         UPDATE provisioner_jobs SET initiator_id = u(77) WHERE id = u(13)",
    )
    .await;
    let permit = support::read_jobs(id(1));
    let shares = queue::shares(&mut rows.conn, &permit, ShareBy::Initiator, NOW, Duration::from_hours(1)).await;
    let shares = shares.expect("shares");
    let named: Vec<(Option<Uuid>, &str, i64)> =
        shares.iter().map(|share| (share.id, share.name.as_str(), share.waiting)).collect();
    assert_eq!(named, [(Some(id(1)), "user1", 4), (Some(PREBUILDS), "prebuilds", 3), (Some(id(77)), "", 1)]);
    assert_eq!(shares[0].waiting_for.map(|it| it.p95), Some(Duration::MAX));
}
