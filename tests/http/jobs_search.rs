//! get-provisioner-jobs: the search.

use serde_json::json;

use crate::client::{Site, demo_id, job_id, query};

const JOBS: &str = "organizations/coder/provisionerjobs";

#[tokio::test]
async fn list_finds_by_search_what_the_other_parameters_find() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let heidi = demo_id("0002", 8);
    for (search, pairs) in [
        ("status:running", vec![("status", "running")]),
        ("status:running,pending", vec![("status", "running,pending")]),
        ("initiator:heidi", vec![("initiator", heidi.as_str())]),
        ("initiator:heidi status:failed", vec![("initiator", &heidi), ("status", "failed")]),
        ("initiator:prebuilds", vec![("initiator", "c42fdf75-3097-471c-8c33-fb52454d81c0")]),
        ("initiator:me", vec![("initiator", &demo_id("0002", 1))]),
    ] {
        let expected = alice.get(&format!("{JOBS}?limit=0&{}", query(&pairs))).await.ids();
        let found = alice.get(&format!("{JOBS}?limit=0&{}", query(&[("search", search)]))).await.ids();
        assert_eq!(found, expected, "{search}");
        assert!(!found.is_empty(), "{search}");
    }
    let failed = alice.get(&format!("{JOBS}?limit=0&{}", query(&[("search", "-status:failed")]))).await.ids();
    assert_eq!(failed.len(), 39);
}

#[tokio::test]
async fn list_combines_a_search_with_other_parameters_and_refuses_what_both_ask_for() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let pairs = [("search", "initiator:heidi"), ("status", "running"), ("tags", r#"{"gpu":"true"}"#)];
    assert_eq!(alice.get(&format!("{JOBS}?{}", query(&pairs))).await.ids(), [job_id(26)]);
    let heidi = demo_id("0002", 8);
    for (search, name, value) in [("status:running", "status", "failed"), ("initiator:me", "initiator", heidi.as_str())]
    {
        let detail = format!("Query param {name:?} is asked for in \"search\", too");
        let pairs = [("search", search), (name, value)];
        alice.get(&format!("{JOBS}?{}", query(&pairs))).await.faults(&[(name, &detail)]);
    }
}

#[tokio::test]
async fn list_says_what_is_wrong_with_a_search() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for search in [
        "status:done",
        "initiator:nobody",
        "organization:other",
        "organization:coder",
        "nonsense:x",
        "created:>soon",
        "(",
    ] {
        let answer = alice.get(&format!("{JOBS}?{}", query(&[("search", search)]))).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["message"]), (400, &json!("Invalid query parameters.")), "{search}");
        assert_eq!(body["validations"][0]["field"], "search", "{body}");
    }
    // With the faults of the other parameters.
    let body = alice.get(&format!("{JOBS}?{}", query(&[("search", "status:done"), ("limit", "x")]))).await.json();
    let fields: Vec<_> = body["validations"].as_array().expect("faults").iter().map(|it| &it["field"]).collect();
    assert_eq!(fields, ["limit", "search"]);
}
