//! cancel-workspace-build, cancel-template-version-by-id, cancel-template-version-dry-run-by-job-id.

use crate::client::{NOT_FOUND, Site, demo_id, job_id};

const CANCELED: &str = "Job has been marked as canceled...";
const NOT_ALLOWED: &str = "User is not allowed to cancel workspace builds. Owner role is required.";
const NOT_EXPECTED: &str = "Job is not in the expected state.";

fn build(n: u32) -> String {
    format!("workspacebuilds/{}/cancel", demo_id("0008", n))
}

fn version(v: u32) -> String {
    format!("templateversions/{}/cancel", demo_id("0005", v))
}

fn dry_run(v: u32, job: u32) -> String {
    format!("templateversions/{}/dry-run/{}/cancel", demo_id("0005", v), job_id(job))
}

/// Whether its cancellation was asked for, and whether it has ended.
async fn state(site: &mut Site, job: u32) -> (bool, bool) {
    let column = async |site: &mut Site, name: &str| {
        site.value::<bool>(&format!("SELECT {name} IS NOT NULL FROM provisioner_jobs WHERE id = '{}'", job_id(job)))
            .await
    };
    (column(site, "canceled_at").await, column(site, "completed_at").await)
}

async fn reset(site: &mut Site) {
    site.sql(&format!(
        "UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL, error = NULL
         WHERE id IN ('{}', '{}', '{}', '{}', '{}', '{}')",
        job_id(24),
        job_id(26),
        job_id(27),
        job_id(28),
        job_id(29),
        job_id(31)
    ))
    .await;
}

#[tokio::test]
async fn cancel_is_for_owners_and_others_by_the_kind_of_the_job() {
    let mut site = Site::demo().await;
    // The dry run is Heidi's, as the build that runs.
    site.sql(&format!(
        "UPDATE provisioner_jobs SET initiator_id = '{}' WHERE id = '{}'",
        demo_id("0002", 8),
        job_id(29)
    ))
    .await;
    let jobs = [
        (24, build(24), "dave"),
        (26, build(26), "heidi"),
        (31, build(31), ""),
        (27, version(2), "bob"),
        (28, version(6), "bob"),
        (29, dry_run(3, 29), "heidi"),
    ];
    let mut users = Vec::new();
    for name in ["alice", "grace", "bob", "carol", "dave", "heidi", "ivan"] {
        users.push((name, site.user(name).await));
    }
    for (name, client) in &users {
        for (n, path, owner) in &jobs {
            let is_import = path.starts_with("templateversions") && !path.contains("dry-run");
            let may = match *name {
                "alice" | "grace" => true,
                "bob" => is_import,
                name => name == *owner && !is_import,
            };
            let answer = client.patch(path).await;
            if may {
                answer.says(200, if path.contains("dry-run") { "Job has been marked as canceled." } else { CANCELED });
                // What nobody works on ends at once.
                assert_eq!(state(&mut site, *n).await, (true, !matches!(n, 26 | 27)), "{name} {path}");
            } else {
                answer.says(404, NOT_FOUND);
                assert_eq!(state(&mut site, *n).await, (false, false), "{name} {path}");
            }
            reset(&mut site).await;
        }
    }
}

#[tokio::test]
async fn cancel_says_of_a_job_that_has_ended_or_is_being_canceled_that_it_is_so() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    alice.patch(&build(19)).await.says(400, "Job has already completed!");
    alice.patch(&build(20)).await.says(400, "Job has already completed!");
    alice.patch(&build(23)).await.says(400, "Job has already completed!");
    alice.patch(&build(25)).await.says(400, "Job has already been marked as canceled!");
    alice.patch(&version(5)).await.says(400, "Job has already completed!");
    alice.patch(&dry_run(3, 15)).await.says(400, "Job has already completed.");
    alice.patch(&dry_run(5, 21)).await.says(400, "Job has already completed.");
    alice.patch(&dry_run(3, 29)).await.says(200, "Job has been marked as canceled.");
    alice.patch(&dry_run(3, 29)).await.says(400, "Job has already completed.");
    site.sql(&format!(
        "UPDATE provisioner_jobs SET canceled_at = now(), completed_at = NULL, started_at = now() WHERE id IN ('{}', '{}')",
        job_id(29),
        job_id(27)
    ))
    .await;
    alice.patch(&dry_run(3, 29)).await.says(400, "Job has already been marked as canceled.");
    alice.patch(&version(2)).await.says(400, "Job has already been marked as canceled!");
}

#[tokio::test]
async fn cancel_expects_a_status_before_it_writes() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    alice.patch(&format!("{}?expect_status=pending", build(26))).await.says(412, NOT_EXPECTED);
    alice.patch(&format!("{}?expect_status=running", build(24))).await.says(412, NOT_EXPECTED);
    assert_eq!((state(&mut site, 26).await, state(&mut site, 24).await), ((false, false), (false, false)));
    // What has ended is said first.
    alice.patch(&format!("{}?expect_status=pending", build(19))).await.says(400, "Job has already completed!");
    alice.patch(&format!("{}?expect_status=running", build(26))).await.says(200, CANCELED);
    alice.patch(&format!("{}?expect_status=pending", build(24))).await.says(200, CANCELED);
    alice.patch(&format!("{}?expect_status=", build(31))).await.says(200, CANCELED);
}

#[tokio::test]
async fn cancel_checks_the_expected_status_before_everything_else() {
    let mut site = Site::demo().await;
    let (alice, carol) = (site.user("alice").await, site.user("carol").await);
    for status in ["done", "succeeded", "PENDING", "Running", "pending,running"] {
        let message = format!("Invalid expect_status \"{status}\". Only 'running' or 'pending' are allowed.");
        for path in [build(24), build(404), "workspacebuilds/x/cancel".to_owned()] {
            alice.patch(&format!("{path}?expect_status={status}")).await.says(400, &message);
            carol.patch(&format!("{path}?expect_status={status}&more=1")).await.says(400, &message);
        }
    }
    let twice = "Query param \"expect_status\" provided more than once, found 2 times";
    let answer = alice.patch(&format!("{}?expect_status=running&expect_status=pending", build(26))).await;
    answer.faults(&[("expect_status", twice)]);
}

#[tokio::test]
async fn cancel_asks_the_template_whether_users_may_cancel_what_runs() {
    let mut site = Site::demo().await;
    site.sql("UPDATE templates SET allow_user_cancel_workspace_jobs = false").await;
    let (alice, grace, heidi, dave) =
        (site.user("alice").await, site.user("grace").await, site.user("heidi").await, site.user("dave").await);
    for client in [&grace, &heidi] {
        client.patch(&build(26)).await.says(403, NOT_ALLOWED);
        client.patch(&format!("{}?expect_status=running", build(26))).await.says(403, NOT_ALLOWED);
        // Whoever expects it to wait may ask, and is told that it does not.
        client.patch(&format!("{}?expect_status=pending", build(26))).await.says(412, NOT_EXPECTED);
    }
    assert_eq!(state(&mut site, 26).await, (false, false));
    dave.patch(&build(26)).await.not_found();
    dave.patch(&format!("{}?expect_status=pending", build(24))).await.says(200, CANCELED);
    alice.patch(&build(26)).await.says(200, CANCELED);
    // The rule is about builds: imports have none.
    site.user("bob").await.patch(&version(2)).await.says(200, CANCELED);
}

#[tokio::test]
async fn cancel_finds_only_the_job_that_the_path_names() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for path in [
        build(404),
        format!("workspacebuilds/{}/cancel", job_id(26)),
        version(404),
        dry_run(404, 29),
        dry_run(3, 404),
        // A dry run of another version, and jobs that are none.
        dry_run(5, 29),
        dry_run(3, 26),
        dry_run(2, 27),
    ] {
        alice.patch(&path).await.not_found();
    }
    for (path, raw) in [
        ("workspacebuilds/x/cancel".to_owned(), "x"),
        ("templateversions/1/cancel".to_owned(), "1"),
        (format!("templateversions/x/dry-run/{}/cancel", job_id(29)), "x"),
        (format!("templateversions/{}/dry-run/y/cancel", demo_id("0005", 3)), "y"),
    ] {
        let answer = alice.patch(&path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["message"].as_str()),
            (400, Some(&*format!("Invalid UUID \"{raw}\".")))
        );
    }
    for path in [version(2), dry_run(3, 29)] {
        let answer = alice.patch(&format!("{path}?expect_status=pending")).await;
        answer.faults(&[("expect_status", "\"expect_status\" is not a valid query param")]);
    }
    alice
        .patch(&format!("{}?dry_run=true", build(26)))
        .await
        .faults(&[("dry_run", "\"dry_run\" is not a valid query param")]);
    assert_eq!(state(&mut site, 26).await, (false, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_of_one_job_by_many_at_once_is_done_once() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for path in [build(26), version(2), version(6), dry_run(3, 29)] {
        let calls = (0..8).map(|_| {
            let (alice, path) = (alice.clone(), path.clone());
            tokio::spawn(async move { alice.patch(&path).await.status.as_u16() })
        });
        let mut statuses = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            statuses.push(call.await.expect("an answer"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400], "{path}");
    }
}
