//! The queue of prebuilt workspaces (domain: prebuilds).

use std::{num::NonZeroU32, time::Duration};

use coderdb::{
    authz::{FindPrebuilds, MaintainPrebuilds},
    model::{
        CanceledPrebuild, GroupId, JobId, OrganizationId, PrebuildMetrics, PrebuildOrganization, PrebuildStatus,
        PresetId, SetOutcome, StalePrebuilds, UserId, WorkspaceBuildId,
    },
    store::{self, Error},
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
    sql(&mut conn, include_str!("../golden/rows.sql")).await;
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
    assert_eq!((in_progress[0].transition.as_str(), in_progress[0].count), ("start", 2));
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

/// A preset that wants prebuilds of an active version, and nothing of it yet.
async fn wanted() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("../golden/rows.sql")).await;
    sql(&mut conn, "UPDATE template_version_presets SET desired_instances = 1").await;
    (database, conn)
}

/// Prebuilds of preset 1, one a second from 12:00: they succeeded, failed, were canceled, run or wait.
async fn history(conn: &mut PgConnection, history: &str) {
    for (n, end) in (0..).zip(history.chars()) {
        let (id, end) = (
            100 + n,
            match end {
                's' => "completed_at = at_second(0)",
                'f' => {
                    "completed_at = at_second(1000 + EXTRACT(EPOCH FROM created_at - at_second(0))), error = 'failed'"
                }
                'c' => "completed_at = at_second(0), canceled_at = at_second(0)",
                'r' => "started_at = at_second(0)",
                _ => "started_at = NULL",
            },
        );
        sql(
            conn,
            &format!(
                "SELECT add_workspace({id}, prebuilds()), add_build({id}, {id}, 1, prebuilds(), u(1));
                 UPDATE workspace_builds SET created_at = at_second({n}) WHERE id = u({id});
                 UPDATE provisioner_jobs SET created_at = at_second({n}) WHERE id = u({id});
                 UPDATE provisioner_jobs SET {end} WHERE id = u({id})"
            ),
        )
        .await;
    }
}

/// How many failures put preset 1 off, and when the last of them ended, in seconds after 12:00.
async fn backoff(conn: &mut PgConnection, lookback: Duration) -> Option<(i64, i64)> {
    let found = store::prebuilds::backoff(conn, &permit(1), NOW + Duration::from_mins(1), lookback).await.unwrap();
    assert!(found.len() <= 1 && found.iter().all(|backoff| backoff.preset_id == PresetId(u(1))));
    found.first().map(|backoff| (backoff.failures, (backoff.last_failed_at - NOW).whole_seconds()))
}

/// The largest number of failures at which preset 1 is, up to 9.
async fn limit(conn: &mut PgConnection) -> u32 {
    let mut reached = 0;
    for limit in (1..10).filter_map(NonZeroU32::new) {
        let found = store::prebuilds::at_failure_limit(conn, &permit(1), limit).await.unwrap();
        assert!(found.is_empty() || found == [PresetId(u(1))]);
        if !found.is_empty() {
            assert_eq!(reached + 1, limit.get(), "whoever is at a limit is at all lower ones");
            reached = limit.get();
        }
    }
    reached
}

#[tokio::test]
async fn failures_since_the_last_success_put_a_preset_off_and_bring_it_to_its_limit() {
    let (_database, mut conn) = wanted().await;
    for (past, failures, last) in [
        ("", 0, 0),
        ("s", 0, 0),
        ("f", 1, 1000),
        ("fff", 3, 1002),
        ("fffs", 0, 0),
        ("sffsf", 1, 1004),
        // What was canceled, runs or waits says nothing.
        ("sfcfcrp", 2, 1003),
        ("fsc", 0, 0),
        ("crp", 0, 0),
    ] {
        let mut transaction = conn.begin().await.unwrap();
        history(&mut transaction, past).await;
        let expected = (failures > 0).then_some((i64::from(failures), last));
        assert_eq!(backoff(&mut transaction, Duration::from_hours(1)).await, expected, "{past}");
        assert_eq!(limit(&mut transaction).await, failures, "{past}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn only_failures_within_the_lookback_put_a_preset_off() {
    let (_database, mut conn) = wanted().await;
    history(&mut conn, "ffff").await;
    for (seconds, failures) in [(56, None), (57, Some((1, 1003))), (59, Some((3, 1003))), (u64::MAX, Some((4, 1003)))] {
        assert_eq!(backoff(&mut conn, Duration::from_secs(seconds)).await, failures, "{seconds}");
    }
    assert_eq!(limit(&mut conn).await, 4, "the limit has none");
}

#[tokio::test]
async fn only_first_starts_of_prebuilds_that_are_still_wanted_count() {
    let (_database, mut conn) = wanted().await;
    history(&mut conn, "ff").await;
    for other in [
        "UPDATE workspace_builds SET transition = 'stop'",
        "UPDATE workspace_builds SET build_number = 2",
        "UPDATE workspace_builds SET initiator_id = u(1)",
        "UPDATE workspace_builds SET template_version_preset_id = NULL",
        "UPDATE provisioner_jobs SET completed_at = NULL",
        "SELECT add_version(2, 1); UPDATE templates SET active_version_id = u(2)",
        "UPDATE templates SET deleted = true",
        "SELECT add_organization(2); UPDATE templates SET organization_id = u(2)",
        "UPDATE template_version_presets SET desired_instances = NULL",
    ] {
        let mut transaction = conn.begin().await.unwrap();
        sql(&mut transaction, other).await;
        assert_eq!(backoff(&mut transaction, Duration::MAX).await, None, "{other}");
        assert_eq!(limit(&mut transaction).await, 0, "{other}");
        transaction.rollback().await.unwrap();
    }
    sql(&mut conn, "UPDATE workspaces SET owner_id = u(1), deleted = true").await;
    assert_eq!(limit(&mut conn).await, 2, "claimed and deleted ones count");
}

#[tokio::test]
async fn the_status_of_a_preset_is_set_once_and_shown() {
    let (_database, mut conn) = wanted().await;
    let preset = PresetId(u(1));
    for (status, outcome) in [
        (PrebuildStatus::Healthy, SetOutcome::Unchanged),
        (PrebuildStatus::HardLimited, SetOutcome::Changed),
        (PrebuildStatus::HardLimited, SetOutcome::Unchanged),
        (PrebuildStatus::ValidationFailed, SetOutcome::Changed),
        (PrebuildStatus::Healthy, SetOutcome::Changed),
    ] {
        assert_eq!(store::prebuilds::set_status(&mut conn, &permit(1), preset, status).await.unwrap(), outcome);
        let presets = store::prebuilds::presets(&mut conn, &permit(1), None).await.unwrap();
        assert_eq!(presets[0].status, status);
    }
}

#[tokio::test]
async fn set_status_by_two_at_once_is_a_change_for_one_of_them() {
    let (database, mut conn) = wanted().await;
    let (mut other, mut watcher) = (database.connect().await, database.connect().await);
    let (permit, preset) = (permit(1), PresetId(u(1)));
    let mut transaction = conn.begin().await.unwrap();
    let first = store::prebuilds::set_status(&mut transaction, &permit, preset, PrebuildStatus::HardLimited).await;
    assert_eq!(first.unwrap(), SetOutcome::Changed);
    let commit = async {
        let waits =
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut watcher).await.unwrap() {}
        transaction.commit().await.unwrap();
    };
    let second = store::prebuilds::set_status(&mut other, &permit, preset, PrebuildStatus::HardLimited);
    let (second, ()) = tokio::join!(second, commit);
    assert_eq!(second.unwrap(), SetOutcome::Unchanged);
}

#[tokio::test]
async fn metrics_count_what_became_of_all_prebuilds_over_all_versions() {
    let (_database, mut conn) = wanted().await;
    assert_eq!(store::prebuilds::metrics(&mut conn, &permit(1)).await.unwrap(), []);
    history(&mut conn, "sffcrp").await;
    sql(
        &mut conn,
        "SELECT add_build(200, 100, 2, u(1)), add_build(201, 101, 2, prebuilds(), u(1)), add_version(2, 1), add_preset(2, 2), add_preset(3, 2);
         UPDATE template_version_presets SET name = 'preset1' WHERE id = u(2);
         UPDATE workspaces SET owner_id = u(1), name = 'claimed' WHERE id = u(100);
         UPDATE workspaces SET deleted = true WHERE id = u(101);
         UPDATE workspace_builds SET template_version_preset_id = u(2) WHERE id = u(102);
         UPDATE workspace_builds SET template_version_preset_id = u(3) WHERE id = u(103)",
    )
    .await;
    let metrics = |preset_name: &str, created, failed, claimed| PrebuildMetrics {
        template_id: u(1).into(),
        template_name: "template1".to_owned(),
        preset_name: preset_name.to_owned(),
        created,
        failed,
        claimed,
    };
    let all = [metrics("preset1", 5, 2, 1), metrics("preset3", 1, 0, 0)];
    assert_eq!(store::prebuilds::metrics(&mut conn, &permit(1)).await.unwrap(), all);
    assert_eq!(store::prebuilds::metrics(&mut conn, &permit(2)).await.unwrap(), []);
}

async fn organizations(conn: &mut PgConnection) -> Vec<PrebuildOrganization> {
    let permit = FindPrebuilds::check(&support::operator()).unwrap();
    store::prebuilds::organizations(conn, &permit).await.unwrap()
}

async fn ensure(conn: &mut PgConnection, organization: u32, group: u32) -> Result<SetOutcome, Error> {
    store::prebuilds::ensure_organization(conn, &permit(organization), GroupId(u(group)), NOW).await
}

#[tokio::test]
async fn an_organization_that_wants_prebuilds_gets_what_its_prebuilds_user_needs() {
    let (_database, mut conn) = wanted().await;
    let row = |is_member, has_group, is_in_group| {
        vec![PrebuildOrganization { id: u(1).into(), name: "org1".to_owned(), is_member, has_group, is_in_group }]
    };
    sql(&mut conn, "SELECT add_organization(2)").await;
    assert_eq!(organizations(&mut conn).await, row(false, false, false));
    assert_eq!(ensure(&mut conn, 1, 50).await.unwrap(), SetOutcome::Changed);
    assert_eq!(organizations(&mut conn).await, row(true, true, true));
    sql(&mut conn, "UPDATE groups SET quota_allowance = 7 WHERE id = u(50) AND quota_allowance = 0").await;
    let mut transaction = conn.begin().await.unwrap();
    assert_eq!(ensure(&mut transaction, 1, 51).await.unwrap(), SetOutcome::Unchanged);
    let wrote = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
    assert!(!sqlx::query_scalar::<_, bool>(wrote).fetch_one(&mut *transaction).await.unwrap());
    transaction.rollback().await.unwrap();
    let may_read = support::read_quota(UserId::PREBUILDS, u(1));
    assert_eq!(store::quota::usage(&mut conn, &may_read).await.unwrap().budget, 7);

    // Whatever is missing is made, and only that.
    sql(&mut conn, "DELETE FROM group_members").await;
    assert_eq!(organizations(&mut conn).await, row(true, true, false));
    assert_eq!(ensure(&mut conn, 1, 51).await.unwrap(), SetOutcome::Changed);
    sql(&mut conn, "DELETE FROM groups").await;
    assert_eq!(organizations(&mut conn).await, row(true, false, false));
    assert_eq!(ensure(&mut conn, 1, 51).await.unwrap(), SetOutcome::Changed);
    sql(&mut conn, "DELETE FROM organization_members").await;
    assert_eq!(organizations(&mut conn).await, row(false, true, false));
    assert_eq!(ensure(&mut conn, 1, 52).await.unwrap(), SetOutcome::Changed);
    assert_eq!(organizations(&mut conn).await, row(true, true, true));

    let taken = ensure(&mut conn, 2, 51).await.unwrap_err();
    assert!(matches!(taken, Error::Conflict { constraint: "groups_pkey" }), "{taken}");
    sql(&mut conn, "UPDATE organizations SET deleted = true WHERE id = u(2)").await;
    assert!(matches!(ensure(&mut conn, 2, 53).await, Err(Error::NotFound { .. })));
    sql(&mut conn, "UPDATE template_version_presets SET desired_instances = NULL").await;
    assert_eq!(organizations(&mut conn).await, []);
}

#[tokio::test]
async fn reconcilers_that_ensure_an_organization_at_once_make_one_group() {
    let (database, mut conn) = wanted().await;
    // Somebody ensures it, or only makes the group; finds the membership, or not; and keeps what was made, or not.
    for (n, only_group, membership, keeps) in [
        (0, false, false, true),
        (1, false, true, true),
        (2, false, false, false),
        (3, false, true, false),
        (4, true, true, true),
        (5, true, false, false),
    ] {
        sql(&mut conn, "DELETE FROM organization_members; DELETE FROM groups").await;
        if membership {
            sql(&mut conn, "INSERT INTO organization_members VALUES (prebuilds(), u(1), at_second(0), at_second(0))")
                .await;
        }
        let (mut one, mut other) = (database.connect().await, database.connect().await);
        let mut first = one.begin().await.unwrap();
        if only_group {
            sql(&mut first, "SELECT add_group(60, 1, 'coderprebuiltworkspaces')").await;
        } else {
            assert_eq!(ensure(&mut first, 1, 60).await.unwrap(), SetOutcome::Changed);
        }
        let second = tokio::spawn(async move { ensure(&mut other, 1, 61).await.unwrap() });
        support::settled(&second, &mut conn, 1).await;
        assert!(!second.is_finished());
        if keeps {
            first.commit().await.unwrap();
        } else {
            first.rollback().await.unwrap();
        }
        let outcome = if keeps && !only_group { SetOutcome::Unchanged } else { SetOutcome::Changed };
        assert_eq!(second.await.unwrap(), outcome, "{n}");
        let (groups, members): (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM groups), (SELECT count(*) FROM group_members)")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        assert_eq!((groups, members), (1, 1), "{n}");
        assert!(organizations(&mut conn).await[0].is_in_group, "{n}");
    }
}
