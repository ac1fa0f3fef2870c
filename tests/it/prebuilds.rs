//! The queue of prebuilt workspaces (domain 7.7).

use coderdb::{
    authz::MaintainPrebuilds,
    model::{CanceledPrebuild, JobId, OrganizationId, PresetId, StalePrebuilds, Transition, WorkspaceBuildId},
    store,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

fn u(n: u32) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

fn permit(organization: u32) -> MaintainPrebuilds {
    MaintainPrebuilds::check(&support::operator(), OrganizationId(u(organization))).unwrap()
}

async fn sql(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap();
}

/// Three prebuilds, 11 to 13, wait for a daemon, and the version that they are made from is no longer active.
async fn world() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("golden/rows.sql")).await;
    sql(
        &mut conn,
        "SELECT add_version(2, 1); UPDATE templates SET active_version_id = u(2);
         SELECT add_workspace(n, prebuilds()), add_build(n, n, 1, prebuilds(), u(1)) FROM generate_series(11, 13) AS n",
    )
    .await;
    (database, conn)
}

async fn cancel(conn: &mut PgConnection, ids: std::ops::Range<u32>) -> Vec<CanceledPrebuild> {
    let ids: Vec<_> = ids.map(|n| (WorkspaceBuildId(u(n)), JobId(u(n)))).collect();
    let (preset, stale) = (PresetId(u(1)), store::jobs::STALE_INTERVAL);
    store::prebuilds::cancel_stale_pending(conn, &permit(1), preset, &ids, NOW, stale).await.unwrap()
}

async fn stale(conn: &mut PgConnection) -> Vec<StalePrebuilds> {
    store::prebuilds::count_stale_pending(conn, &permit(1)).await.unwrap()
}

/// Of each prebuilt workspace: whether it is deleted, and the status of its jobs.
async fn workspaces(conn: &mut PgConnection) -> Vec<(bool, String)> {
    sqlx::query_as(
        "SELECT w.deleted, string_agg(b.transition || ' ' || j.job_status, ', ' ORDER BY b.build_number)
         FROM workspaces w JOIN workspace_builds b ON b.workspace_id = w.id JOIN provisioner_jobs j ON j.id = b.job_id
         WHERE w.id <> u(1) GROUP BY w.id ORDER BY w.id",
    )
    .fetch_all(conn)
    .await
    .unwrap()
}

fn row(deleted: bool, jobs: &str) -> (bool, String) {
    (deleted, jobs.to_owned())
}

#[tokio::test]
async fn stale_pending_jobs_are_counted_per_preset() {
    let (_database, mut conn) = world().await;
    let three = vec![StalePrebuilds { preset_id: PresetId(u(1)), count: 3 }];
    assert_eq!(stale(&mut conn).await, three);
    assert_eq!(store::prebuilds::count_stale_pending(&mut conn, &permit(2)).await.unwrap(), []);
    for not_stale in [
        "UPDATE provisioner_jobs SET worker_id = u(9), started_at = created_at",
        "UPDATE provisioner_jobs SET worker_id = u(9)",
        "UPDATE provisioner_jobs SET canceled_at = created_at",
        "UPDATE provisioner_jobs SET completed_at = created_at",
        "UPDATE workspace_builds SET transition = 'stop'",
        "UPDATE workspace_builds SET build_number = 2",
        "UPDATE workspace_builds SET initiator_id = u(1)",
        "UPDATE templates SET active_version_id = u(1)",
    ] {
        let mut transaction = conn.begin().await.unwrap();
        sql(&mut transaction, not_stale).await;
        assert_eq!(stale(&mut transaction).await, [], "{not_stale}");
        assert_eq!(cancel(&mut transaction, 100..110).await, [], "{not_stale}");
        transaction.rollback().await.unwrap();
    }
    assert_eq!(stale(&mut conn).await, three);
}

#[tokio::test]
async fn without_a_daemon_canceled_prebuilds_are_deleted_at_once() {
    let (_database, mut conn) = world().await;
    let canceled = cancel(&mut conn, 100..102).await;
    assert_eq!(canceled.len(), 2, "as many as there are ids");
    assert!(canceled.iter().all(|prebuild| prebuild.deleted));
    assert_eq!(canceled[0].job_id, JobId(u(11)));
    assert_eq!(canceled[0].delete_build_id, WorkspaceBuildId(u(100)));
    let gone = row(true, "start canceled, delete succeeded");
    assert_eq!(workspaces(&mut conn).await, [gone.clone(), gone.clone(), row(false, "start pending")]);
    assert_eq!(cancel(&mut conn, 102..112).await.len(), 1);
    assert_eq!(cancel(&mut conn, 112..122).await, []);
    assert_eq!(workspaces(&mut conn).await, [gone.clone(), gone.clone(), gone]);
}

#[tokio::test]
async fn with_a_daemon_the_delete_build_waits_for_it() {
    let (_database, mut conn) = world().await;
    sql(
        &mut conn,
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         VALUES (u(1), at_second(0), 'd', '{echo}', '{\"scope\": \"organization\"}', at_second(-91), u(1), u(1))",
    )
    .await;
    assert!(cancel(&mut conn, 100..101).await[0].deleted, "the daemon is gone");
    sql(&mut conn, "UPDATE provisioner_daemons SET last_seen_at = at_second(-90)").await;
    assert!(!cancel(&mut conn, 101..102).await[0].deleted);
    let gone = row(true, "start canceled, delete succeeded");
    let going = row(false, "start canceled, delete pending");
    assert_eq!(workspaces(&mut conn).await, [gone, going, row(false, "start pending")]);
}

#[tokio::test]
async fn a_job_that_is_being_taken_and_a_workspace_that_was_claimed_stay() {
    let (database, mut conn) = world().await;
    sql(&mut conn, "UPDATE workspaces SET owner_id = u(1) WHERE id = u(12)").await;
    let mut daemon = database.connect().await;
    let mut taking = daemon.begin().await.unwrap();
    sql(&mut taking, "UPDATE provisioner_jobs SET worker_id = u(9), started_at = created_at WHERE id = u(11)").await;
    let canceled = cancel(&mut conn, 100..110).await;
    taking.commit().await.unwrap();
    assert_eq!(canceled.iter().map(|prebuild| prebuild.job_id).collect::<Vec<_>>(), [JobId(u(13))]);
    let (running, pending) = (row(false, "start running"), row(false, "start pending"));
    assert_eq!(workspaces(&mut conn).await, [running, pending, row(true, "start canceled, delete succeeded")]);
}

#[tokio::test]
async fn what_is_in_progress_what_runs_and_what_is_wanted() {
    let (_database, mut conn) = world().await;
    assert_eq!(store::prebuilds::count_in_progress(&mut conn, &permit(1)).await.unwrap(), []);
    sql(
        &mut conn,
        "UPDATE templates SET active_version_id = u(1), deprecated = 'old';
         UPDATE template_version_presets SET desired_instances = 3;
         UPDATE provisioner_jobs SET started_at = created_at, completed_at = created_at WHERE id = u(13);
         SELECT add_resource(13, 13), add_agent(13, 13, 'main', 'ready')",
    )
    .await;
    let in_progress = store::prebuilds::count_in_progress(&mut conn, &permit(1)).await.unwrap();
    assert_eq!(in_progress.len(), 1);
    assert_eq!((in_progress[0].transition, in_progress[0].count), (Transition::Start, 2));
    let running = store::prebuilds::running(&mut conn, &permit(1)).await.unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!((&running[0].name[..], running[0].ready), ("workspace13", true));
    assert_eq!(running[0].current_preset_id, Some(PresetId(u(1))));
    let presets = store::prebuilds::presets(&mut conn, &permit(1), None).await.unwrap();
    assert_eq!(presets.len(), 1);
    assert_eq!((presets[0].desired_instances, presets[0].is_active_version), (3, true));
    assert!(presets[0].template_deprecated && !presets[0].template_deleted);
    assert_eq!(store::prebuilds::presets(&mut conn, &permit(1), Some(u(9).into())).await.unwrap(), []);
    assert_eq!(store::prebuilds::presets(&mut conn, &permit(2), None).await.unwrap(), []);
    assert_eq!(store::prebuilds::running(&mut conn, &permit(2)).await.unwrap(), []);
}
