//! What the demo holds.

use std::collections::BTreeMap;

use coderdb::{
    authz::ReadQueue,
    demo::{self, DemoOptions, Outcome, Progress, Regime, Scale, Step},
    model::{JobDetails, JobErrorCode, JobFilter, JobStatus, JobType, OrganizationId, PageRequest, UserId},
    sqlx::{self, AssertSqlSafe},
    store,
};
use time::{OffsetDateTime, macros::datetime};
use tokio::sync::Notify;

use super::{CALM, STORM, broken_references, count, execute, id, load, loaded, organization, schema, tables};
use crate::support;

fn user(number: u128) -> UserId {
    UserId(id(2, number))
}

#[tokio::test]
async fn a_default_listing_shows_every_status_and_every_type() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    loaded(&mut conn, None).await;
    let default = store::organizations::default(&mut conn, &support::read_organizations()).await.unwrap();
    assert_eq!((default.id, default.name.as_str()), (organization(), "coder"));

    let page = store::jobs::list(
        &mut conn,
        &support::read_jobs(organization()),
        &JobFilter::default(),
        PageRequest::first(50),
    )
    .await
    .unwrap();
    assert_eq!(page.rows.len() as u64, demo::SMALL_JOBS);
    assert_eq!(page.next, None);
    let mut statuses = BTreeMap::new();
    let mut types = BTreeMap::new();
    for row in &page.rows {
        assert!(!row.template_name.is_empty() && !row.template_version_name.is_empty(), "{}", row.job.id);
        assert_eq!(row.job.input.error, None, "{}", row.job.id);
        assert_eq!(row.workspace_name.is_empty(), row.job.job_type != JobType::WorkspaceBuild, "{}", row.job.id);
        *statuses.entry(row.job.status.as_str()).or_insert(0) += 1;
        *types.entry(row.job.job_type.as_str()).or_insert(0) += 1;
    }
    let expected =
        [("canceled", 2), ("canceling", 1), ("failed", 3), ("pending", 15), ("running", 2), ("succeeded", 19)];
    assert_eq!(statuses, BTreeMap::from(expected));
    assert_eq!(
        types,
        BTreeMap::from([("template_version_dry_run", 3), ("template_version_import", 9), ("workspace_build", 30)])
    );

    let with_code =
        |code: JobErrorCode| page.rows.iter().filter(|row| row.job.error_code == Some(code.clone())).count();
    assert_eq!(with_code(JobErrorCode::InsufficientQuota), 1);
    assert_eq!(with_code(JobErrorCode::RequiredTemplateVariables), 1);
    assert_eq!(page.rows.iter().filter(|row| row.job.error.as_deref() == Some("insufficient quota")).count(), 1);
    assert_eq!(page.rows.iter().filter(|row| row.job.logs_overflowed).count(), 1);
    let permit = ReadQueue::check(&support::operator()).unwrap();
    let queue = store::queue::snapshot(&mut conn, &permit, demo::ANCHOR, store::jobs::STALE_INTERVAL).await.unwrap();
    let queue = queue.of(&support::read_jobs(organization()));
    let is_stuck = |row: &&JobDetails| queue.why(row.job.id).is_some_and(|why| why.is_stuck());
    let stuck: Vec<_> = page.rows.iter().filter(is_stuck).collect();
    assert_eq!(stuck.iter().map(|row| row.workspace_name.as_str()).collect::<Vec<_>>(), ["legacy-api"]);

    let prebuilds = JobFilter { initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
    let mut page =
        store::jobs::list(&mut conn, &support::read_jobs(organization()), &prebuilds, PageRequest::first(50))
            .await
            .unwrap();
    page.rows.retain(|row| row.job.status == JobStatus::Pending);
    assert_eq!(page.rows.len(), 12);
    // Three jobs of people come first, although they were queued later.
    assert_eq!(page.rows.iter().map(|row| row.queue_position).min(), Some(4));
    let old = count(
        &mut conn,
        "SELECT count(*) FROM workspace_prebuild_builds AS b INNER JOIN template_versions AS v ON v.id = b.template_version_id \
         INNER JOIN templates AS t ON t.id = v.template_id INNER JOIN provisioner_jobs AS j ON j.id = b.job_id \
         WHERE j.job_status = 'pending' AND b.build_number = 1 AND b.transition = 'start' AND v.id <> t.active_version_id",
    );
    assert_eq!(old.await, 8, "of a version that is not active");
}

#[tokio::test]
async fn daemons_are_online_at_the_moment_that_the_demo_calls_now() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    loaded(&mut conn, None).await;
    let ids = [coderdb::model::JobId(id(9, 28)), coderdb::model::JobId(id(9, 24))];
    let jobs = store::jobs::by_ids_with_queue_position(
        &mut conn,
        &support::read_jobs(organization()),
        &ids,
        demo::ANCHOR,
        store::jobs::STALE_INTERVAL,
    )
    .await
    .unwrap();
    let position = |n: usize| (jobs[n].queue_position, jobs[n].queue_size);
    assert_eq!(position(0), (0, 0), "nobody has the tags of aws-linux");
    assert_eq!(position(1), (1, 13), "people come before prebuilds");
}

#[tokio::test]
async fn the_moment_that_the_demo_calls_now_moves_every_time_and_what_comes_later_is_of_the_same_moment() {
    let (database, at) = (support::database().await, datetime!(2031-02-03 4:05:06 UTC));
    let mut conn = database.connect().await;
    let loaded = load(&mut conn, DemoOptions { at, ..DemoOptions::default() }).await.unwrap();
    assert!(matches!(loaded, Outcome::Loaded { at: of, .. } if of == at), "{loaded:?}");
    let newest: OffsetDateTime =
        sqlx::query_scalar("SELECT max(created_at) FROM provisioner_jobs").fetch_one(&mut conn).await.unwrap();
    assert_eq!(newest, at - time::Duration::seconds(30));
    let scale = Some(Scale { jobs: 1_000, regime: Regime::Calm });
    let loaded = load(&mut conn, DemoOptions { scale, ..DemoOptions::default() }).await.unwrap();
    assert!(matches!(loaded, Outcome::Loaded { at: of, .. } if of == at), "{loaded:?}");
    let later = "SELECT count(*) FROM provisioner_jobs WHERE created_at > '2031-02-03 04:05:06Z'
                     OR updated_at > '2031-02-03 04:05:06Z'";
    assert_eq!(count(&mut conn, later).await, 0);
}

#[tokio::test]
async fn live_keeps_daemons_online_and_has_a_build_log() {
    const ONLINE: &str = "SELECT count(*) FROM provisioner_daemons WHERE last_seen_at > now() - interval '90 seconds'";
    const LINES: &str = "SELECT count(*) FROM provisioner_job_logs WHERE output LIKE '%Still creating%'";
    let database = support::database().await;
    let mut conn = database.connect().await;
    let at = OffsetDateTime::now_utc() - time::Duration::hours(1);
    let _ = load(&mut conn, DemoOptions { at, ..DemoOptions::default() }).await.unwrap();
    assert_eq!(count(&mut conn, ONLINE).await, 0);
    let before = count(&mut conn, LINES).await;

    let mut living = database.connect().await;
    let living = tokio::spawn(async move { demo::live(&mut living, at).await });
    while count(&mut conn, LINES).await < before + 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&mut conn, ONLINE).await, 4, "all but the one that was offline");
    // Without a job that runs there is nothing to keep going.
    execute(&mut conn, "UPDATE provisioner_jobs SET completed_at = now() WHERE job_status = 'running'").await;
    living.await.unwrap().unwrap();
}

#[tokio::test]
async fn quota_numbers_are_worth_looking_at() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    loaded(&mut conn, None).await;
    let mut usage = Vec::new();
    for number in [4, 5, 6, 8, 10] {
        let quota = store::quota::usage(&mut conn, &support::read_quota(user(number), organization())).await.unwrap();
        usage.push((number, quota.credits_consumed, quota.budget));
    }
    // Erin's third workspace would have cost 40; Judy has left, and has no budget.
    assert_eq!(usage, [(4, 22, 60), (5, 60, 80), (6, 0, 60), (8, 50, 120), (10, 0, 0)]);
    let prebuilds =
        store::quota::usage(&mut conn, &support::read_quota(UserId::PREBUILDS, organization())).await.unwrap();
    assert_eq!((prebuilds.credits_consumed, prebuilds.budget), (20, 220));

    let lines: Vec<(String, String)> = sqlx::query_as(
        "SELECT log.level::text, regexp_replace(log.output, ' +— +', ': ') FROM provisioner_job_logs AS log \
         INNER JOIN provisioner_jobs AS job ON job.id = log.job_id \
         WHERE job.error_code = 'INSUFFICIENT_QUOTA' AND log.stage = 'Commit quota' ORDER BY log.id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let expected = [
        ("info", "Build cost: 40"),
        ("info", "Budget: 80"),
        ("info", "Credits consumed: 60"),
        ("warn", "This build would exceed your quota. Failing."),
    ];
    assert_eq!(lines, expected.map(|(level, output)| (level.to_owned(), output.to_owned())));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one sentence per promise")]
async fn the_rows_agree_with_each_other() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    loaded(&mut conn, Some(STORM)).await;
    assert_eq!(broken_references(&mut conn).await, Vec::<String>::new());
    for (name, rows) in tables(&mut conn).await {
        // A server of Coder would look for the keys that encrypt its tokens.
        assert_eq!(rows.0 > 0, name != "dbcrypt_keys", "no table ends empty, and {name} has");
    }
    let never = [
        (
            "a build that its job does not name",
            "SELECT count(*) FROM workspace_builds AS b INNER JOIN provisioner_jobs AS j ON j.id = b.job_id \
          WHERE j.input ->> 'workspace_build_id' IS DISTINCT FROM b.id::text OR j.type <> 'workspace_build' OR j.initiator_id <> b.initiator_id",
        ),
        (
            "a build job without a build",
            "SELECT count(*) FROM provisioner_jobs AS j WHERE type = 'workspace_build' \
          AND NOT EXISTS (SELECT 1 FROM workspace_builds AS b WHERE b.job_id = j.id)",
        ),
        (
            "a version that its import does not name",
            "SELECT count(*) FROM template_versions AS v LEFT JOIN provisioner_jobs AS j ON j.id = v.job_id \
          WHERE j.type IS DISTINCT FROM 'template_version_import' OR j.input ->> 'template_version_id' IS DISTINCT FROM v.id::text",
        ),
        (
            "a dry run of no version",
            "SELECT count(*) FROM provisioner_jobs AS j WHERE type = 'template_version_dry_run' \
          AND NOT EXISTS (SELECT 1 FROM template_versions AS v WHERE v.id::text = j.input ->> 'template_version_id')",
        ),
        (
            "a job without a file",
            "SELECT count(*) FROM provisioner_jobs AS j WHERE NOT EXISTS (SELECT 1 FROM files AS f WHERE f.id = j.file_id)",
        ),
        (
            "build numbers with a gap",
            "SELECT count(*) FROM (SELECT workspace_id FROM workspace_builds GROUP BY 1 \
          HAVING min(build_number) <> 1 OR max(build_number) <> count(*)) AS w",
        ),
        (
            "a workspace without a build",
            "SELECT count(*) FROM workspaces AS w WHERE NOT EXISTS (SELECT 1 FROM workspace_builds AS b WHERE b.workspace_id = w.id)",
        ),
        (
            "builds out of order",
            "SELECT count(*) FROM workspace_builds AS b INNER JOIN workspace_builds AS n \
          ON n.workspace_id = b.workspace_id AND n.build_number = b.build_number + 1 WHERE n.created_at <= b.created_at",
        ),
        (
            "two builds of a workspace under way",
            "SELECT count(*) FROM (SELECT workspace_id FROM workspace_builds AS b INNER JOIN provisioner_jobs AS j \
          ON j.id = b.job_id WHERE j.completed_at IS NULL GROUP BY 1 HAVING count(*) > 1) AS w",
        ),
        (
            "an active version that is not imported",
            "SELECT count(*) FROM templates AS t LEFT JOIN template_versions AS v ON v.id = t.active_version_id AND v.template_id = t.id \
          LEFT JOIN provisioner_jobs AS j ON j.id = v.job_id WHERE j.job_status IS DISTINCT FROM 'succeeded'",
        ),
        (
            "a build of a version that was not imported before it",
            "SELECT count(*) FROM workspace_builds AS b INNER JOIN template_versions AS v ON v.id = b.template_version_id \
          INNER JOIN provisioner_jobs AS j ON j.id = v.job_id WHERE j.job_status <> 'succeeded' OR j.created_at > b.created_at",
        ),
        (
            "a version of another organization",
            "SELECT count(*) FROM workspace_builds AS b INNER JOIN workspaces AS w ON w.id = b.workspace_id \
          INNER JOIN template_versions AS v ON v.id = b.template_version_id INNER JOIN provisioner_jobs AS j ON j.id = b.job_id \
          WHERE v.organization_id <> w.organization_id OR j.organization_id <> w.organization_id OR v.template_id <> w.template_id",
        ),
        (
            "an owner who is no member",
            "SELECT count(*) FROM workspaces AS w WHERE NOT EXISTS (SELECT 1 FROM organization_members AS m \
          WHERE m.user_id = w.owner_id AND m.organization_id = w.organization_id)",
        ),
        (
            "a worker that could not take its job",
            "SELECT count(*) FROM provisioner_jobs AS j INNER JOIN provisioner_daemons AS d ON d.id = j.worker_id \
          WHERE d.organization_id <> j.organization_id OR NOT provisioner_tagset_contains(d.tags, j.tags)",
        ),
        (
            "a daemon with two jobs",
            "SELECT count(*) FROM (SELECT worker_id FROM provisioner_jobs WHERE worker_id IS NOT NULL AND completed_at IS NULL \
          GROUP BY 1 HAVING count(*) > 1) AS d",
        ),
        (
            "a deleted workspace whose last build is not a deletion",
            "SELECT count(*) FROM workspaces AS w CROSS JOIN LATERAL (SELECT transition FROM workspace_builds \
          WHERE workspace_id = w.id ORDER BY build_number DESC LIMIT 1) AS b WHERE w.deleted <> (b.transition = 'delete')",
        ),
        (
            "a rejected build with a cost",
            "SELECT count(*) FROM workspace_builds AS b INNER JOIN provisioner_jobs AS j ON j.id = b.job_id \
          WHERE j.error_code = 'INSUFFICIENT_QUOTA' AND b.daily_cost <> 0",
        ),
        (
            "a job that ends before it starts",
            "SELECT count(*) FROM provisioner_jobs WHERE completed_at < started_at OR started_at < created_at OR canceled_at < created_at",
        ),
        (
            "a job from the future",
            "SELECT count(*) FROM provisioner_jobs WHERE greatest(created_at, updated_at, completed_at) > '2026-05-07 09:00+00'",
        ),
        (
            "logs that are counted wrongly",
            "SELECT count(*) FROM provisioner_jobs AS j INNER JOIN (SELECT job_id, sum(octet_length(output)) AS bytes \
          FROM provisioner_job_logs GROUP BY 1) AS l ON l.job_id = j.id WHERE j.logs_length <> l.bytes",
        ),
    ];
    for (what, sql) in never {
        assert_eq!(count(&mut conn, sql).await, 0, "{what}");
    }
}

#[tokio::test]
async fn a_scale_has_the_proportions_that_it_promises() {
    for scale in [CALM, STORM] {
        let database = support::database().await;
        let mut conn = database.connect().await;
        let before = schema(&mut conn).await;
        let mut last = None;
        let mut rebuilt = false;
        let options = DemoOptions { scale: Some(scale), ..DemoOptions::default() };
        let outcome = demo::load(&mut conn, &options, |progress: Progress| {
            assert!(progress.done <= progress.total, "{progress:?}");
            if progress.step == Step::Jobs {
                last = Some((progress.done, progress.total));
            }
            rebuilt |= progress.step == Step::Indexes;
        })
        .await
        .unwrap();
        assert!(matches!(outcome, Outcome::Loaded { jobs: 10_042, .. }), "{outcome:?}");
        assert_eq!(last, Some((10_000, 10_000)), "progress ends at its total");
        assert!(rebuilt, "alone in the database, indexes are built after the rows");
        assert_eq!(schema(&mut conn).await, before, "every index, key and trigger is as it was");

        let jobs: Vec<(String, i64)> = sqlx::query_as(
            "SELECT type::text, count(*) FROM provisioner_jobs AS j WHERE organization_id <> 'c0de0000-0001-4000-8000-000000000001' \
             GROUP BY 1 ORDER BY 2",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        let expected =
            [("template_version_dry_run", 1_000), ("template_version_import", 2_000), ("workspace_build", 7_000)];
        assert_eq!(jobs, expected.map(|(name, n)| (name.to_owned(), n)));

        let big =
            "SELECT count(*) FROM provisioner_jobs WHERE organization_id = 'c0de0000-0001-4000-8000-000000000101'";
        let big = count(&mut conn, big).await;
        assert!((6_700..=7_300).contains(&big), "the big organization holds 70 %, not {big} of 10,000");
        let of_scale = "FROM provisioner_jobs WHERE job_status = 'pending' AND organization_id <> 'c0de0000-0001-4000-8000-000000000001'";
        let pending: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) {of_scale}")))
            .fetch_one(&mut conn)
            .await
            .unwrap();
        let prebuilds: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT count(*) {of_scale} AND initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'"
        )))
        .fetch_one(&mut conn)
        .await
        .unwrap();
        let (expected_pending, expected_prebuilds): (i64, i64) = match scale.regime {
            Regime::Calm => (200, 20),
            Regime::Storm => (500, 450),
        };
        assert_eq!((pending, prebuilds), (expected_pending, expected_prebuilds));
        assert_eq!(
            (scale.pending(), scale.pending_prebuilds()),
            (expected_pending.cast_unsigned(), expected_prebuilds.cast_unsigned())
        );

        assert_eq!(count(&mut conn, "SELECT count(*) FROM users WHERE username LIKE 'dev-%'").await, 2_000);
        assert_eq!(count(&mut conn, "SELECT count(*) FROM provisioner_daemons").await, 55);
        assert_eq!(count(&mut conn, "SELECT count(*) FROM organizations").await, 6);
        assert_eq!(count(&mut conn, "SELECT count(*) FROM workspaces WHERE name LIKE 'ws-%'").await, 200);
        let heavy = "SELECT count(*) FROM workspaces AS w WHERE owner_id = 'c0de0000-0002-4000-8000-000000010001' \
             AND (SELECT count(*) FROM workspace_builds AS b WHERE b.workspace_id = w.id) >= 200";
        assert_eq!(count(&mut conn, heavy).await, 10);
        let quota = store::quota::usage(&mut conn, &support::read_quota(user(10_001), OrganizationId(id(1, 101))))
            .await
            .unwrap();
        assert!(quota.credits_consumed > 0 && quota.budget == 440, "{quota:?}");
    }
}

#[tokio::test]
async fn a_load_that_is_cancelled_leaves_nothing() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let (rows, objects) = (tables(&mut conn).await, schema(&mut conn).await);
    let midway = Notify::new();
    let options = DemoOptions { scale: Some(Scale { jobs: 100_000, regime: Regime::Calm }), ..DemoOptions::default() };
    tokio::select! {
        biased;
        outcome = demo::load(&mut conn, &options, |progress| {
            if progress.step == Step::Jobs && progress.done > 0 {
                midway.notify_one();
            }
        }) => panic!("it should have been cancelled, and ended with {outcome:?}"),
        () = midway.notified() => {}
    }
    assert_eq!(tables(&mut conn).await, rows);
    assert_eq!(schema(&mut conn).await, objects);
    loaded(&mut conn, Some(CALM)).await;
}

#[tokio::test]
async fn of_two_loads_at_once_one_finds_the_others() {
    let database = support::database().await;
    let (mut one, mut other) = (database.connect().await, database.connect().await);
    let (one, other) = tokio::join!(load(&mut one, DemoOptions::default()), load(&mut other, DemoOptions::default()));
    let loads = [one.unwrap(), other.unwrap()];
    assert_eq!(loads.iter().filter(|load| matches!(load, Outcome::Loaded { .. })).count(), 1, "{loads:?}");
    assert!(loads.contains(&Outcome::AlreadyLoaded { scale: None, at: demo::ANCHOR }), "{loads:?}");
    assert!(!database.url().is_empty());
}

#[tokio::test]
async fn the_demo_loads_and_is_shown_whatever_the_encoding_of_the_database() {
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII", "WIN1252"] {
        let database = support::empty_database_in(encoding).await.with_sessions();
        let done = support::run(database.coderdb().arg("demo"));
        assert_eq!(done.code, 0, "{encoding}: {}", done.stderr);
        assert!(done.stdout.contains("Loaded 42 jobs"), "{encoding}: {}", done.stdout);
        let failed = "c0de0000-0009-4000-8000-000000000023";
        let shown = support::run(database.coderdb().args(["provisioner", "jobs", "get", failed, "--lines", "3"]));
        assert_eq!(shown.code, 0, "{encoding}: {}", shown.stderr);
        assert!(shown.stdout.contains("Commit quota  Credits consumed ?   "), "{encoding}: {}", shown.stdout);
    }
}
