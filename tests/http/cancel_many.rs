//! cancel-provisioner-jobs: many at once, by a search or by their ids.

use serde_json::{Value, json};

use crate::client::{Answer, Site, demo_id, job_id};

const CANCEL: &str = "organizations/coder/provisionerjobs/cancel";
const PREBUILDS: &str = "initiator:prebuilds status:pending";

/// The jobs that the answer names, with what became of each.
fn outcomes(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let jobs = answer.ok()["jobs"].as_array().expect("jobs").clone();
    jobs.iter().map(|job| (text(&job["id"]), text(&job["outcome"]))).collect()
}

async fn canceled(site: &mut Site) -> i64 {
    site.value("SELECT count(*) FROM provisioner_jobs WHERE canceled_at > now() - interval '1 hour'").await
}

#[tokio::test]
async fn cancel_many_by_a_search_says_first_what_it_would_do_and_then_does_it() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let asked = json!({ "search": PREBUILDS, "dry_run": true });
    let previewed = alice.post(CANCEL, &asked).await;
    assert_eq!(previewed.ok()["outcomes"], json!({ "would_be_canceled": 12 }));
    assert_eq!(canceled(&mut site).await, 0);
    let done = alice.post(CANCEL, &json!({ "search": PREBUILDS })).await;
    assert_eq!(done.ok()["outcomes"], json!({ "canceled": 12 }));
    assert_eq!(
        done.ok()["jobs"][0],
        json!({ "id": job_id(42), "outcome": "canceled", "type": "workspace_build", "status": "canceled" })
    );
    let ids: Vec<_> = outcomes(&done).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, (31..=42).rev().map(job_id).collect::<Vec<_>>());
    assert_eq!(canceled(&mut site).await, 12);
    alice.post(CANCEL, &json!({ "search": PREBUILDS })).await.is(200, &json!({ "outcomes": {}, "jobs": [] }));
}

#[tokio::test]
async fn cancel_many_by_ids_leaves_out_what_is_ending_and_what_is_not_there() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let search = format!("id:{}", [26, 404, 19, 25, 24, 20].map(job_id).join(","));
    let report = |n: u32, outcome: &str, status: &str| json!({ "id": job_id(n), "outcome": outcome, "type": "workspace_build", "status": status });
    let would = "would_be_canceled";
    alice.post(CANCEL, &json!({ "search": search, "dry_run": true })).await.is(
        200,
        &json!({
            "outcomes": { would: 2 },
            "jobs": [report(26, would, "running"), report(24, would, "pending")],
        }),
    );
    alice.post(CANCEL, &json!({ "search": search })).await.is(
        200,
        &json!({
            "outcomes": { "canceled": 1, "canceling": 1 },
            "jobs": [
                report(26, "canceling", "canceling"),
                report(24, "canceled", "canceled"),
            ],
        }),
    );
}

#[tokio::test]
async fn cancel_many_leaves_what_has_another_status_than_the_expected_one() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let search = format!("id:{},{}", job_id(26), job_id(24));
    let done = alice.post(CANCEL, &json!({ "search": search, "expect_status": "pending" })).await;
    assert_eq!(done.ok()["outcomes"], json!({ "canceled": 1 }));
    let done = alice.post(CANCEL, &json!({ "search": "initiator:heidi", "expect_status": "running" })).await;
    assert_eq!(done.ok()["outcomes"], json!({ "canceling": 1 }));
    assert_eq!(canceled(&mut site).await, 2);
}

#[tokio::test]
async fn cancel_many_reaches_only_the_jobs_of_its_organization_and_what_the_session_may() {
    let mut site = Site::demo().await;
    site.sql(
        "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
         VALUES ('22222222-2222-4222-8222-222222222222', 'other', '', now(), now(), '')",
    )
    .await;
    let (alice, grace, heidi, bob) =
        (site.user("alice").await, site.user("grace").await, site.user("heidi").await, site.user("bob").await);
    let both = json!({ "search": format!("id:{},{}", job_id(24), job_id(26)) });
    let elsewhere = "organizations/other/provisionerjobs/cancel";
    for search in [&both, &json!({ "search": PREBUILDS })] {
        alice.post(elsewhere, search).await.is(200, &json!({ "outcomes": {}, "jobs": [] }));
        grace.post(elsewhere, search).await.not_found();
        // No search without the right to read jobs, not even for one's own.
        heidi.post(CANCEL, search).await.not_found();
        bob.post(CANCEL, search).await.not_found();
    }
    heidi.post(CANCEL, &json!({ "search": "initiator:me" })).await.not_found();
    assert_eq!(canceled(&mut site).await, 0);
    // A template admin of the organization reads all jobs there, and cancels imports.
    site.sql(&format!(
        "UPDATE organization_members SET roles = '{{organization-template-admin}}' WHERE user_id = '{}'",
        demo_id("0002", 2)
    ))
    .await;
    let search = json!({ "search": format!("id:{},{}", job_id(27), job_id(24)) });
    assert_eq!(
        bob.post(CANCEL, &search).await.ok(),
        json!({
            "outcomes": { "canceling": 1, "not_found": 1 },
            "jobs": [
                { "id": job_id(27), "outcome": "canceling", "type": "template_version_import", "status": "canceling" },
                { "id": job_id(24), "outcome": "not_found" },
            ],
        })
    );
}

#[tokio::test]
async fn cancel_many_is_not_allowed_where_the_template_does_not_let_it() {
    let mut site = Site::demo().await;
    site.sql("UPDATE templates SET allow_user_cancel_workspace_jobs = false").await;
    let grace = site.user("grace").await;
    grace.post(CANCEL, &json!({ "search": format!("id:{}", job_id(26)) })).await.is(
        200,
        &json!({ "outcomes": { "not_allowed": 1 }, "jobs": [{ "id": job_id(26), "outcome": "not_allowed" }] }),
    );
}

#[tokio::test]
async fn cancel_many_says_what_is_wrong_with_the_body() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for search in ["", "  "] {
        alice.post(CANCEL, &json!({ "search": search })).await.is(
            400,
            &json!({
                "message": "Validation failed.",
                "validations": [{ "field": "search", "detail": "it is empty: which jobs?" }],
            }),
        );
    }
    for status in ["", "done", "Pending"] {
        let message = format!("Invalid expect_status \"{status}\". Only 'running' or 'pending' are allowed.");
        alice.post(CANCEL, &json!({ "search": PREBUILDS, "expect_status": status })).await.says(400, &message);
    }
    for search in ["status:done", "initiator:nobody", "organization:coder"] {
        let answer = alice.post(CANCEL, &json!({ "search": search })).await;
        assert_eq!(answer.status, 400, "{search}");
        assert_eq!(answer.json()["validations"][0]["field"], "search", "{search}");
    }
    let type_or_missing = "A field is missing or has another type.";
    for (body, detail) in [
        ("", "Expected an object; line 1, column 0"),
        ("{", "Expected an object; line 1, column 1"),
        ("{\"search\": nothing}", "Expected an object; line 1, column 13"),
        ("{}", type_or_missing),
        ("{\"search\": 1}", type_or_missing),
        ("{\"search\": \"id:x\", \"dry_run\": \"false\"}", type_or_missing),
        ("{\"search\": \"id:x\", \"expect_status\": 1}", type_or_missing),
    ] {
        alice.call("POST", CANCEL, body).await.says_more(400, "Request body must be valid JSON.", detail);
    }
    for body in ["[]", "null", "[\"status:pending\"]"] {
        alice.call("POST", CANCEL, body).await.json()["detail"].as_str().expect("a detail");
    }
    alice
        .call("POST", &format!("{CANCEL}?dry_run=true"), "{\"search\": \"status:pending\"}")
        .await
        .faults(&[("dry_run", "\"dry_run\" is not a valid query param")]);
    alice.post("organizations/nowhere/provisionerjobs/cancel", &json!({ "search": PREBUILDS })).await.not_found();
    assert_eq!(canceled(&mut site).await, 0);
}

#[tokio::test]
async fn cancel_many_goes_through_more_jobs_than_a_batch_has() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    crate::jobs::more_jobs(&mut site, 300).await;
    let done = alice.post(CANCEL, &json!({ "search": format!("initiator:{}", demo_id("0002", 5)) })).await;
    assert_eq!(done.ok()["outcomes"], json!({ "canceled": 300 }));
    assert_eq!(canceled(&mut site).await, 300);
}
