//! get-provisioner-jobs and get-provisioner-job: what they show, and each parameter.

use serde_json::{Value, json};

use crate::client::{Site, demo_id, job_id, query};

const JOBS: &str = "organizations/coder/provisionerjobs";

fn running() -> Value {
    json!({
        "id": job_id(26),
        "created_at": "2026-05-07T08:56:00Z",
        "started_at": "2026-05-07T08:56:02Z",
        "status": "running",
        "worker_id": demo_id("000a", 4),
        "worker_name": "gpu-1",
        "file_id": demo_id("000c", 7),
        "tags": { "scope": "organization", "owner": "", "env": "cloud", "gpu": "true" },
        "queue_position": 0,
        "queue_size": 15,
        "organization_id": demo_id("0001", 1),
        "initiator_id": demo_id("0002", 8),
        "input": { "workspace_build_id": demo_id("0008", 26) },
        "type": "workspace_build",
        "metadata": {
            "template_version_name": "v1.0",
            "template_id": demo_id("0004", 3),
            "template_name": "gpu-notebook",
            "template_display_name": "GPU Notebook",
            "template_icon": "/icon/jupyter.svg",
            "workspace_id": demo_id("0007", 9),
            "workspace_name": "analysis",
            "workspace_build_transition": "start",
        },
        "logs_overflowed": false,
    })
}

fn failed_import() -> Value {
    json!({
        "id": job_id(16),
        "created_at": "2026-05-06T10:00:00Z",
        "started_at": "2026-05-06T10:00:02Z",
        "completed_at": "2026-05-06T10:00:08Z",
        "error": "required template variables need values: zone",
        "error_code": "REQUIRED_TEMPLATE_VARIABLES",
        "status": "failed",
        "worker_id": demo_id("000a", 4),
        "worker_name": "gpu-1",
        "file_id": demo_id("000c", 8),
        "tags": { "scope": "organization", "owner": "", "env": "cloud", "gpu": "true" },
        "queue_position": 0,
        "queue_size": 15,
        "organization_id": demo_id("0001", 1),
        "initiator_id": demo_id("0002", 2),
        "input": { "template_version_id": demo_id("0005", 8) },
        "type": "template_version_import",
        "metadata": {
            "template_version_name": "v1.1",
            "template_id": demo_id("0004", 3),
            "template_name": "gpu-notebook",
            "template_display_name": "GPU Notebook",
            "template_icon": "/icon/jupyter.svg",
        },
        "logs_overflowed": false,
    })
}

fn pending() -> Value {
    json!({
        "id": job_id(24),
        "created_at": "2026-05-07T08:45:50Z",
        "status": "pending",
        "file_id": demo_id("000c", 9),
        "tags": { "scope": "organization", "owner": "", "env": "aws" },
        "queue_position": 1,
        "queue_size": 15,
        "organization_id": demo_id("0001", 1),
        "initiator_id": demo_id("0002", 4),
        "input": { "workspace_build_id": demo_id("0008", 24) },
        "type": "workspace_build",
        "metadata": {
            "template_version_name": "v1.0",
            "template_id": demo_id("0004", 4),
            "template_name": "aws-linux",
            "template_display_name": "AWS EC2 (Linux)",
            "template_icon": "/icon/aws.svg",
            "workspace_id": demo_id("0007", 4),
            "workspace_name": "legacy-api",
            "workspace_build_transition": "start",
        },
        "logs_overflowed": false,
    })
}

#[tokio::test]
async fn get_and_list_show_every_field_of_builds_and_imports() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for (n, expected) in [(26, running()), (16, failed_import()), (24, pending())] {
        alice.get(&format!("{JOBS}/{}", job_id(n))).await.is(200, &expected);
        alice.get(&format!("{JOBS}?ids={}", job_id(n))).await.is(200, &json!([expected]));
    }
    // What is not there is absent; all else has a value, and so has what a build that was canceled has.
    let canceled = alice.get(&format!("{JOBS}/{}", job_id(20))).await.ok();
    assert_eq!(canceled["canceled_at"], json!("2026-05-07T08:10:40Z"));
    assert_eq!(canceled["completed_at"], json!("2026-05-07T08:10:40Z"));
    assert!(canceled.get("started_at").is_none() && canceled.get("worker_id").is_none());
    assert_eq!(alice.get(&format!("{JOBS}/{}", job_id(14))).await.ok()["logs_overflowed"], json!(true));
}

#[tokio::test]
async fn get_shows_an_import_without_a_template_and_an_input_that_cannot_be_read() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let import = job_id(28);
    site.sql(&format!("UPDATE template_versions SET template_id = NULL WHERE job_id = '{import}'")).await;
    site.sql(&format!("UPDATE provisioner_jobs SET input = '[1]' WHERE id = '{}'", job_id(26))).await;
    let shown = alice.get(&format!("{JOBS}/{import}")).await.ok();
    assert_eq!(
        shown["metadata"],
        json!({
            "template_version_name": "v1.2",
            "template_id": "00000000-0000-0000-0000-000000000000",
            "template_name": "",
            "template_display_name": "",
            "template_icon": "",
        })
    );
    let shown = alice.get(&format!("{JOBS}/{}", job_id(26))).await.ok();
    assert!(shown["input"]["error"].as_str().is_some_and(|why| why.starts_with("decode input")), "{shown}");
}

#[tokio::test]
async fn list_shows_where_a_job_stands_and_who_could_take_it() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    site.sql("UPDATE provisioner_daemons SET last_seen_at = now()").await;
    let shown = alice.get(&format!("{JOBS}?ids={}", job_id(28))).await.ok();
    assert_eq!((&shown[0]["queue_position"], &shown[0]["queue_size"]), (&json!(2), &json!(15)));
    assert_eq!(shown[0]["available_workers"], json!([demo_id("000a", 2), demo_id("000a", 3)]));
    // No daemon has its tags.
    let shown = alice.get(&format!("{JOBS}/{}", job_id(24))).await.ok();
    assert!(shown.get("available_workers").is_none(), "{shown}");
}

#[tokio::test]
async fn list_answers_the_newest_50_unless_another_limit_is_asked_for() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    more_jobs(&mut site, 30).await;
    let all = alice.get(&format!("{JOBS}?limit=0")).await.ids();
    assert_eq!(all.len(), 72);
    let newest = "SELECT array_agg(id::text ORDER BY created_at DESC, id DESC) FROM provisioner_jobs";
    assert_eq!(all, site.value::<Vec<String>>(newest).await);
    for (parameters, count) in
        [("", 50), ("?limit=", 50), ("?limit=1", 1), ("?limit=50", 50), ("?limit=71", 71), ("?limit=2147483647", 72)]
    {
        assert_eq!(alice.get(&format!("{JOBS}{parameters}")).await.ids(), all[..count], "{parameters}");
    }
}

/// So many more jobs, two at a time of the same moment.
pub async fn more_jobs(site: &mut Site, count: u32) {
    let insert = format!(
        "INSERT INTO provisioner_jobs (
             id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id,
             tags
         )
         SELECT
             md5('job ' || n)::uuid, moment, moment, '{}', '{}', 'terraform', 'file', 'template_version_dry_run', '{{}}',
             '{}', jsonb_build_object('n', n::text)
         FROM generate_series(1, {count}) AS n
         CROSS JOIN LATERAL (SELECT timestamptz '2026-05-07 09:00:00Z' + n / 2 * interval '1 ms' AS moment) AS at",
        demo_id("0001", 1),
        demo_id("0002", 5),
        demo_id("000c", 1)
    );
    site.sql(&insert).await;
}

#[tokio::test]
async fn list_takes_each_filter_and_all_of_them_together() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let (heidi, on_prem) = (demo_id("0002", 8), r#"{"env":"on-prem"}"#);
    let nobody = "11111111-1111-4111-8111-111111111111";
    let nil = "00000000-0000-0000-0000-000000000000";
    let two = format!("{},{}", job_id(26), job_id(27));
    for (pairs, expected) in [
        (vec![("status", "running")], vec![27, 26]),
        (vec![("status", "running,canceling")], vec![27, 26, 25]),
        (vec![("status", "running"), ("status", "canceling")], vec![27, 26, 25]),
        (vec![("status", "canceled"), ("status", "")], vec![21, 20]),
        (vec![("ids", two.as_str())], vec![27, 26]),
        (vec![("ids", &job_id(1)), ("ids", &two), ("ids", nobody)], vec![27, 26, 1]),
        (vec![("tags", r#"{"gpu":"true"}"#)], vec![26, 23, 16, 14, 4]),
        (vec![("tags", r#"{"gpu":"no"}"#)], vec![]),
        (vec![("initiator", &heidi)], vec![26, 22]),
        (vec![("initiator", nobody)], vec![]),
        (vec![("initiator", &heidi), ("status", "failed")], vec![22]),
        (vec![("initiator", &heidi), ("limit", "1")], vec![26]),
        (vec![("initiator", &heidi), ("tags", r#"{"gpu":"true"}"#)], vec![26]),
        (vec![("tags", on_prem), ("status", "canceling,canceled"), ("ids", &job_id(25))], vec![25]),
        (vec![("limit", "2"), ("status", ""), ("ids", ""), ("tags", ""), ("initiator", "")], vec![29, 28]),
        (vec![("limit", "2"), ("initiator", nil), ("tags", "null"), ("search", ""), ("after", "")], vec![29, 28]),
        // The first value counts, as for Coder's own server.
        (vec![("limit", "2"), ("tags", "{} and more")], vec![29, 28]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(job_id).collect();
        assert_eq!(alice.get(&format!("{JOBS}?{}", query(&pairs))).await.ids(), expected, "{pairs:?}");
    }
    // Without a match it is an empty list, not null.
    alice.get(&format!("{JOBS}?initiator={nobody}")).await.is(200, &json!([]));
}

#[tokio::test]
async fn list_tells_all_faults_of_the_query_at_once() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let positive = "must be a valid 32-bit positive integer: ";
    for (name, value, detail) in [
        ("limit", "-1", format!("Query param \"limit\" {positive}it is negative")),
        ("limit", "many", format!("Query param \"limit\" {positive}invalid digit found in string")),
        ("limit", "1.5", format!("Query param \"limit\" {positive}invalid digit found in string")),
        ("limit", "2147483648", format!("Query param \"limit\" {positive}number too large to fit in target type")),
        ("initiator", "bob", "Query param \"initiator\" must be a valid uuid".to_owned()),
        ("initiator", "me", "Query param \"initiator\" must be a valid uuid".to_owned()),
        ("user", "bob", "\"user\" is not a valid query param".to_owned()),
        ("Limit", "1", "\"Limit\" is not a valid query param".to_owned()),
        ("offset", "", "\"offset\" is not a valid query param".to_owned()),
        ("count", "yes", "Query param \"count\" must be a valid boolean".to_owned()),
        ("after", "yesterday", "Query param \"after\" is not from a Link header".to_owned()),
    ] {
        alice.get(&format!("{JOBS}?{}", query(&[(name, value)]))).await.faults(&[(name, &detail)]);
    }
    for (name, value, begin) in [
        ("tags", "env", "Query param \"tags\" must be a valid JSON object: "),
        ("tags", "[]", "Query param \"tags\" must be a valid JSON object: "),
        ("tags", r#"{"count":1}"#, "Query param \"tags\" must be a valid JSON object: "),
        ("ids", "x", "Query param \"ids\" has invalid values: "),
        ("ids", "x,y", "Query param \"ids\" has invalid values: "),
        ("status", "done", "Query param \"status\" has invalid values: "),
        ("status", "running,,pending", "Query param \"status\" has invalid values: "),
        ("search", "status:done", ""),
    ] {
        let body = alice.get(&format!("{JOBS}?{}", query(&[(name, value)]))).await.json();
        assert_eq!(body["message"], "Invalid query parameters.", "{body}");
        let [fault] = &body["validations"].as_array().expect("faults")[..] else { panic!("one fault: {body}") };
        assert_eq!(fault["field"], name, "{body}");
        assert!(fault["detail"].as_str().is_some_and(|detail| detail.starts_with(begin)), "{body}");
    }
    let twice = |name: &str| format!("Query param \"{name}\" provided more than once, found 2 times");
    alice.get(&format!("{JOBS}?limit=1&limit=2")).await.faults(&[("limit", &twice("limit"))]);
    alice.get(&format!("{JOBS}?limit=x&initiator=x&initiator=y&b=1&a=2&b=3")).await.faults(&[
        ("limit", &format!("Query param \"limit\" {positive}invalid digit found in string")),
        ("initiator", &twice("initiator")),
        ("initiator", "Query param \"initiator\" must be a valid uuid"),
        ("b", "\"b\" is not a valid query param"),
        ("a", "\"a\" is not a valid query param"),
    ]);
}

#[tokio::test]
async fn list_finds_the_organization_by_id_by_name_and_as_the_default() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let all = alice.get(&format!("{JOBS}?limit=3")).await.ids();
    for organization in
        [demo_id("0001", 1).as_str(), "coder", "Coder", "default", "00000000-0000-0000-0000-000000000000"]
    {
        assert_eq!(alice.get(&format!("organizations/{organization}/provisionerjobs?limit=3")).await.ids(), all);
    }
    let longer = "c".repeat(3_000);
    for organization in ["nowhere", "11111111-1111-4111-8111-111111111111", "%20", "*", "coder%2F", longer.as_str()] {
        alice.get(&format!("organizations/{organization}/provisionerjobs")).await.not_found();
    }
    // One that is deleted, and no default one.
    site.sql(
        "ALTER TABLE organizations DISABLE TRIGGER USER; UPDATE organizations SET deleted = true, is_default = false",
    )
    .await;
    alice.get(JOBS).await.not_found();
    alice.get("organizations/default/provisionerjobs").await.not_found();
}

#[tokio::test]
async fn list_and_get_are_not_there_for_members_whatever_they_ask_for() {
    let mut site = Site::demo().await;
    for username in ["bob", "carol", "dave", "heidi", "ivan"] {
        let client = site.user(username).await;
        client.get(JOBS).await.not_found();
        client.get(&format!("{JOBS}?initiator={}", demo_id("0002", 8))).await.not_found();
        // Who may not ask learns nothing of how to ask.
        client.get(&format!("{JOBS}?limit=x")).await.not_found();
        client.get(&format!("{JOBS}/{}", job_id(26))).await.not_found();
        client.get(&format!("{JOBS}/{}?limit=x", job_id(26))).await.not_found();
    }
    let grace = site.user("grace").await;
    assert_eq!(grace.get(&format!("{JOBS}?limit=0")).await.ids().len(), 42);
}

#[tokio::test]
async fn get_checks_the_organization_then_the_id_then_the_permission_then_the_query() {
    let mut site = Site::demo().await;
    let (alice, dave) = (site.user("alice").await, site.user("dave").await);
    for client in [&alice, &dave] {
        client.get("organizations/nowhere/provisionerjobs/x?limit=x").await.not_found();
        let answer = client.get(&format!("{JOBS}/x?limit=x")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["message"]), (400, &json!("Invalid UUID \"x\".")));
        assert!(answer.json()["detail"].is_string());
    }
    dave.get(&format!("{JOBS}/{}?limit=x", job_id(26))).await.not_found();
    let positive = "Query param \"limit\" must be a valid 32-bit positive integer: invalid digit found in string";
    alice.get(&format!("{JOBS}/{}?limit=x", job_id(26))).await.faults(&[("limit", positive)]);
    alice.get(&format!("{JOBS}/{}", job_id(404))).await.not_found();
}

#[tokio::test]
async fn get_takes_the_filters_of_the_list_but_its_ids() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let job = format!("{JOBS}/{}", job_id(26));
    for pairs in [
        vec![("limit", "0")],
        vec![("limit", "10"), ("status", "pending,running")],
        vec![("tags", r#"{"env":"cloud"}"#), ("initiator", &demo_id("0002", 8))],
    ] {
        alice.get(&format!("{job}?{}", query(&pairs))).await.is(200, &running());
    }
    for pairs in [
        vec![("status", "pending")],
        vec![("tags", r#"{"env":"aws"}"#)],
        vec![("status", "running"), ("initiator", &demo_id("0002", 1))],
    ] {
        alice.get(&format!("{job}?{}", query(&pairs))).await.not_found();
    }
    for name in ["ids", "search", "after", "count"] {
        let detail = format!("{name:?} is not a valid query param");
        alice.get(&format!("{job}?{name}={}", job_id(26))).await.faults(&[(name, &detail)]);
    }
}

#[tokio::test]
async fn get_finds_no_job_of_another_organization() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    site.sql(
        "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
         VALUES ('22222222-2222-4222-8222-222222222222', 'other', '', now(), now(), '')",
    )
    .await;
    alice.get(&format!("organizations/other/provisionerjobs/{}", job_id(26))).await.not_found();
    alice.get(&format!("organizations/other/provisionerjobs?ids={}", job_id(26))).await.is(200, &json!([]));
}
