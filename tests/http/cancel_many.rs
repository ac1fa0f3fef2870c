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
    let foreseen = alice.post(CANCEL, &asked).await;
    assert_eq!(foreseen.ok()["outcomes"], json!({ "would_be_canceled": 12 }));
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
async fn cancel_many_by_ids_reports_each_job_in_the_order_of_the_request() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let ids: Vec<_> = [26, 404, 19, 25, 24, 20, 26].map(job_id).into();
    let reports = |would: bool| {
        let (canceling, canceled) =
            if would { ("would_be_canceled", "would_be_canceled") } else { ("canceling", "canceled") };
        let (running, pending) = if would { ("running", "pending") } else { ("canceling", "canceled") };
        json!([
            { "id": job_id(26), "outcome": canceling, "type": "workspace_build", "status": running },
            { "id": job_id(404), "outcome": "not_found" },
            { "id": job_id(19), "outcome": "already_finished", "type": "workspace_build", "status": "succeeded" },
            { "id": job_id(25), "outcome": "already_canceled", "type": "workspace_build", "status": "canceling" },
            { "id": job_id(24), "outcome": canceled, "type": "workspace_build", "status": pending },
            { "id": job_id(20), "outcome": "already_canceled", "type": "workspace_build", "status": "canceled" },
        ])
    };
    let foreseen = alice.post(CANCEL, &json!({ "ids": ids, "dry_run": true })).await;
    assert_eq!(foreseen.ok()["jobs"], reports(true));
    let done = alice.post(CANCEL, &json!({ "ids": ids })).await;
    assert_eq!(done.ok()["jobs"], reports(false));
    assert_eq!(
        done.ok()["outcomes"],
        json!({ "canceled": 1, "canceling": 1, "already_canceled": 2, "already_finished": 1, "not_found": 1 })
    );
}

#[tokio::test]
async fn cancel_many_leaves_what_has_another_status_than_the_expected_one() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let ids = [26, 24].map(job_id);
    let done = alice.post(CANCEL, &json!({ "ids": ids, "expect_status": "pending" })).await;
    assert_eq!(done.ok()["outcomes"], json!({ "canceled": 1, "not_in_expected_state": 1 }));
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
    let ids = json!({ "ids": [job_id(24), job_id(26)] });
    let elsewhere = "organizations/other/provisionerjobs/cancel";
    assert_eq!(alice.post(elsewhere, &ids).await.ok()["outcomes"], json!({ "not_found": 2 }));
    alice.post(elsewhere, &json!({ "search": PREBUILDS })).await.is(200, &json!({ "outcomes": {}, "jobs": [] }));
    for client in [&grace, &heidi] {
        client.post(elsewhere, &ids).await.not_found();
    }
    // Heidi's own, and nobody else's; and no search without the right to read jobs.
    assert_eq!(
        outcomes(&heidi.post(CANCEL, &ids).await),
        [(job_id(24), "not_found".to_owned()), (job_id(26), "canceling".to_owned())]
    );
    heidi.post(CANCEL, &json!({ "search": "initiator:me" })).await.not_found();
    let imports = json!({ "ids": [job_id(27), job_id(24)] });
    assert_eq!(
        outcomes(&bob.post(CANCEL, &imports).await),
        [(job_id(27), "canceling".to_owned()), (job_id(24), "not_found".to_owned())]
    );
    assert_eq!(canceled(&mut site).await, 2);
}

#[tokio::test]
async fn cancel_many_is_not_allowed_where_the_template_does_not_let_it() {
    let mut site = Site::demo().await;
    site.sql("UPDATE templates SET allow_user_cancel_workspace_jobs = false").await;
    let grace = site.user("grace").await;
    let done = grace.post(CANCEL, &json!({ "ids": [job_id(26)] })).await;
    assert_eq!(
        done.ok(),
        json!({ "outcomes": { "not_allowed": 1 }, "jobs": [{ "id": job_id(26), "outcome": "not_allowed" }] })
    );
}

#[tokio::test]
async fn cancel_many_says_what_is_wrong_with_the_body() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let invalid = |field: &str, detail: &str| json!({ "message": "Validation failed.", "validations": [{ "field": field, "detail": detail }] });
    let neither = invalid("search", "expected a search or ids: which jobs?");
    for body in [json!({}), json!({ "search": "  " }), json!({ "ids": [], "dry_run": true }), json!({ "unknown": 1 })] {
        alice.post(CANCEL, &body).await.is(400, &neither);
    }
    let both = json!({ "search": PREBUILDS, "ids": [job_id(26)] });
    alice.post(CANCEL, &both).await.is(400, &invalid("ids", "expected either ids or a search, not both"));
    let body = json!({ "ids": [job_id(26)], "expect_status": "done" });
    alice
        .post(CANCEL, &body)
        .await
        .says(400, "Invalid expect_status \"done\". Only 'running' or 'pending' are allowed.");
    for search in ["status:done", "initiator:nobody", "organization:coder"] {
        let answer = alice.post(CANCEL, &json!({ "search": search })).await;
        assert_eq!(answer.status, 400, "{search}");
        assert_eq!(answer.json()["validations"][0]["field"], "search", "{search}");
    }
    for (body, detail) in [
        ("", "line 1, column 0"),
        ("{", "line 1, column 1"),
        ("{\"search\": nothing}", "line 1, column 13"),
        ("[]", "a field is missing or has another type"),
        ("null", "a field is missing or has another type"),
        ("{\"ids\": [\"x\"]}", "a field is missing or has another type"),
        ("{\"ids\": \"all\"}", "a field is missing or has another type"),
        ("{\"search\": 1}", "a field is missing or has another type"),
        ("{\"dry_run\": \"false\"}", "a field is missing or has another type"),
    ] {
        alice.call("POST", CANCEL, body).await.says_more(400, "Request body must be valid JSON.", detail);
    }
    alice
        .call("POST", &format!("{CANCEL}?dry_run=true"), "{}")
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
