//! get-provisioner-daemons.

use serde_json::{Value, json};

use crate::client::{Site, demo_id, job_id, query};

const DAEMONS: &str = "organizations/coder/provisionerdaemons";

fn daemon(n: u32) -> String {
    demo_id("000a", n)
}

/// Daemon 1 idles since the job that it works on is not its own, 2 was never seen, 3 a minute ago, 4 is busy, 5 was seen
/// two days ago.
async fn site() -> Site {
    let mut site = Site::demo().await;
    for (n, seen) in [
        (1, "now()"),
        (2, "NULL"),
        (3, "now() - interval '60 seconds'"),
        (4, "now()"),
        (5, "now() - interval '48 hours'"),
    ] {
        site.sql(&format!("UPDATE provisioner_daemons SET last_seen_at = {seen} WHERE id = '{}'", daemon(n))).await;
    }
    site.sql(&format!(
        "UPDATE provisioner_jobs SET worker_id = '{}' WHERE id IN ('{}', '{}')",
        daemon(5),
        job_id(27),
        job_id(25)
    ))
    .await;
    site
}

#[tokio::test]
async fn daemons_show_every_field() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let gpu = json!({
        "id": daemon(4),
        "organization_id": demo_id("0001", 1),
        "key_id": demo_id("000b", 4),
        "created_at": "2026-04-07T09:04:00Z",
        "last_seen_at": "2026-05-07T08:59:52Z",
        "name": "gpu-1",
        "version": "v2.33.0",
        "api_version": "1.15",
        "provisioners": ["terraform"],
        "tags": { "scope": "organization", "owner": "", "env": "cloud", "gpu": "true" },
        "key_name": "demo-gpu",
        // What was seen more than 90 seconds ago is offline, whatever it works on.
        "status": "offline",
        "current_job": {
            "id": job_id(26),
            "status": "running",
            "template_name": "gpu-notebook",
            "template_icon": "/icon/jupyter.svg",
            "template_display_name": "GPU Notebook",
        },
        "previous_job": {
            "id": job_id(23),
            "status": "failed",
            "template_name": "gpu-notebook",
            "template_icon": "/icon/jupyter.svg",
            "template_display_name": "GPU Notebook",
        },
    });
    alice.get(&format!("{DAEMONS}?offline=true&ids={}", daemon(4))).await.is(200, &json!([gpu]));
    site.sql("UPDATE provisioner_jobs SET worker_id = NULL; UPDATE provisioner_daemons SET last_seen_at = NULL").await;
    let never = alice.get(&format!("{DAEMONS}?offline=true&ids={}", daemon(4))).await.ok();
    for key in ["last_seen_at", "current_job", "previous_job"] {
        assert_eq!(never[0].get(key), Some(&Value::Null), "{key}");
    }
}

#[tokio::test]
async fn daemons_are_listed_newest_first_by_each_filter() {
    let mut site = site().await;
    let alice = site.user("alice").await;
    let two = format!("{},{}", daemon(1), daemon(5));
    for (pairs, expected) in [
        (vec![], vec![4, 3, 1]),
        (vec![("offline", "true")], vec![5, 4, 3, 2, 1]),
        (vec![("offline", "false")], vec![4, 3, 1]),
        (vec![("offline", "")], vec![4, 3, 1]),
        (vec![("offline", "1"), ("limit", "2")], vec![5, 4]),
        (vec![("limit", "0")], vec![4, 3, 1]),
        (vec![("limit", "1")], vec![4]),
        (vec![("status", "idle")], vec![3, 1]),
        (vec![("status", "busy")], vec![4]),
        (vec![("status", "offline")], vec![5, 2]),
        (vec![("status", "busy,offline")], vec![5, 4, 2]),
        (vec![("status", "idle"), ("status", "busy")], vec![4, 3, 1]),
        (vec![("status", "idle"), ("offline", "true")], vec![5, 3, 2, 1]),
        (vec![("ids", &two)], vec![1]),
        (vec![("ids", &two), ("offline", "true")], vec![5, 1]),
        (vec![("ids", "11111111-1111-4111-8111-111111111111")], vec![]),
        (vec![("max_age", "30s")], vec![4, 1]),
        (vec![("max_age", "0")], vec![4, 3, 1]),
        (vec![("max_age", "1h30m"), ("offline", "t")], vec![4, 3, 2, 1]),
        (vec![("max_age", "72h"), ("offline", "True")], vec![5, 4, 3, 2, 1]),
        (vec![("tags", r#"{"gpu":"true"}"#), ("offline", "true")], vec![4]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(daemon).collect();
        assert_eq!(alice.get(&format!("{DAEMONS}?{}", query(&pairs))).await.ids(), expected, "{pairs:?}");
    }
    let statuses = alice.get(&format!("{DAEMONS}?offline=true")).await.ok();
    let statuses: Vec<_> = statuses.as_array().expect("a list").iter().map(|it| it["status"].clone()).collect();
    assert_eq!(statuses, ["offline", "busy", "idle", "offline", "idle"]);
}

#[tokio::test]
async fn daemons_answer_50_unless_another_limit_is_asked_for() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    site.sql(&format!(
        "INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         SELECT md5('daemon ' || n)::uuid, now(), 'daemon-' || n, '{{echo}}', '{{}}', now(), '{}', '{}'
         FROM generate_series(1, 60) AS n",
        demo_id("0001", 1),
        demo_id("000b", 1)
    ))
    .await;
    for (parameters, count) in [("", 50), ("?limit=0", 60), ("?limit=55", 55), ("?limit=0&offline=true", 65)] {
        assert_eq!(alice.get(&format!("{DAEMONS}{parameters}")).await.ids().len(), count, "{parameters}");
    }
}

#[tokio::test]
async fn daemons_tell_all_faults_of_the_query_at_once() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let answer = alice.get(&format!("{DAEMONS}?limit=-1&offline=maybe&max_age=1d&max_age=2&initiator=x")).await;
    answer.faults(&[
        ("limit", "Query param \"limit\" must be a valid 32-bit positive integer: it is negative"),
        ("offline", "Query param \"offline\" must be a valid boolean"),
        ("max_age", "Query param \"max_age\" provided more than once, found 2 times"),
        ("max_age", "Query param \"max_age\" must be a valid duration, such as 24h"),
        ("initiator", "\"initiator\" is not a valid query param"),
    ]);
    for (name, value) in [("status", "pending"), ("ids", "x"), ("tags", "[]"), ("max_age", "-1h")] {
        let body = alice.get(&format!("{DAEMONS}?{}", query(&[(name, value)]))).await;
        assert_eq!((body.status.as_u16(), &body.json()["validations"][0]["field"]), (400, &json!(name)));
    }
}

#[tokio::test]
async fn daemons_are_not_there_for_members_and_in_other_organizations() {
    let mut site = Site::demo().await;
    for username in ["bob", "carol", "dave"] {
        let client = site.user(username).await;
        client.get(DAEMONS).await.not_found();
        client.get(&format!("{DAEMONS}?limit=x")).await.not_found();
    }
    assert_eq!(site.user("grace").await.get(&format!("{DAEMONS}?offline=true")).await.ids().len(), 5);
    site.user("alice").await.get("organizations/nowhere/provisionerdaemons").await.not_found();
}
