//! What every answer has, and what ends requests that are too many or take too long.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use axum::http::StatusCode;
use coderdb::http::Settings;
use serde_json::json;
use tower::ServiceExt as _;

use crate::client::{Site, demo_id, request, send};

#[tokio::test]
async fn every_answer_has_a_fresh_id_whatever_the_request_says() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let mut ids = BTreeSet::new();
    for path in ["workspace-quota/me", "workspace-quota/nobody", "nowhere", "organizations/coder/provisionerjobs?x=1"] {
        for _ in 0..2 {
            let mut request = alice.request("GET", path, "");
            let sent = "11111111-1111-4111-8111-111111111111";
            request.headers_mut().insert("x-coder-request-id", sent.parse().expect("a header"));
            let answer = alice.send(request).await;
            assert!(ids.insert(answer.header("x-coder-request-id").expect("an id").to_owned()));
            assert!(!ids.contains(sent));
        }
    }
    for (method, uri) in
        [("DELETE", "/api/v2/prebuilds/settings"), ("GET", "/healthz"), ("GET", "/"), ("GET", "/docs/")]
    {
        let answer = send(&site.router, request(method, uri)).await;
        assert!(ids.insert(answer.header("x-coder-request-id").expect("an id").to_owned()), "{method} {uri}");
    }
}

#[tokio::test]
async fn another_method_is_405_and_another_route_is_404_as_json() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for (method, path) in [
        ("DELETE", "prebuilds/settings"),
        ("POST", "organizations/coder/provisionerjobs"),
        ("GET", "organizations/coder/provisionerjobs/x/cancel"),
        ("GET", "workspacebuilds/x/cancel"),
        ("PURGE", "workspacebuilds/x/logs"),
    ] {
        let answer = alice.call(method, path, "").await;
        let is_route = path != "organizations/coder/provisionerjobs/x/cancel";
        if is_route {
            answer.says(405, "Method not allowed.");
            assert!(answer.header("allow").is_some(), "{method} {path}");
        } else {
            answer.says(404, "Route not found.");
        }
    }
    for uri in ["/", "/api/v2", "/api/v2/", "/api/v2/prebuilds/settings/", "/api/v1/prebuilds/settings", "/api/v2/%00"]
    {
        send(&site.router, request("GET", uri)).await.says(404, "Route not found.");
    }
    for uri in ["/openapi.json", "/healthz", "/readyz"] {
        send(&site.router, request("DELETE", uri)).await.says(405, "Method not allowed.");
    }
    let head = alice.call("HEAD", "prebuilds/settings", "").await;
    assert_eq!((head.status.as_u16(), head.text()), (200, String::new()));
}

#[tokio::test]
async fn requests_are_limited_per_token_and_route() {
    let mut site =
        Site::demo().await.with(Settings { requests_per_minute: NonZeroU32::new(3), ..Settings::default() }).await;
    let (alice, again, dave) = (site.user("alice").await, site.user("alice").await, site.user("dave").await);
    for left in ["2", "1", "0"] {
        let answer = alice.get("workspace-quota/me").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
        let reset: u64 = answer.header("x-ratelimit-reset").expect("a time").parse().expect("seconds");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
        assert!((now..=now + 61).contains(&reset), "{reset} at {now}");
    }
    let answer = alice.get("workspace-quota/me").await;
    answer.says(429, "You've been rate limited for sending more than 3 requests in 1m0s.");
    let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    assert!(answer.header("x-ratelimit-reset").is_some());
    // Another path of the same route, and failures, count too; another route, another token and another user do not.
    assert_eq!(alice.get("workspace-quota/nobody").await.status, 429);
    for client in [&again, &dave] {
        assert_eq!(client.get("workspace-quota/me").await.status, 200);
    }
    let answer = alice.get("prebuilds/settings?x=1").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-ratelimit-remaining")), (400, Some("2")));
    // Who is not signed in has no budget that others could use up.
    let wrong = site.client(&format!("{}-{}", dave.id(), "s".repeat(22)));
    for _ in 0..5 {
        assert_eq!(wrong.get("workspace-quota/me").await.status, 401);
    }
    assert_eq!(dave.get("workspace-quota/me").await.status, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended_and_leaves_nothing() {
    let timeout = Duration::from_millis(300);
    let mut site =
        Site::demo().await.with(Settings { timeout, requests_per_minute: None, ..Settings::default() }).await;
    let alice = site.user("alice").await;
    alice.get("workspace-quota/me").await.ok();
    site.sql("BEGIN; LOCK TABLE provisioner_jobs").await;
    let answer = alice.patch(&format!("workspacebuilds/{}/cancel", demo_id("0008", 26))).await;
    answer.says(503, "The request took too long.");
    assert_eq!(answer.header("retry-after"), Some("1"));
    site.sql("ROLLBACK").await;
    let canceled = format!("SELECT canceled_at IS NOT NULL FROM provisioner_jobs WHERE id = '{}'", demo_id("0009", 26));
    assert!(!site.value::<bool>(&canceled).await);
    alice.get("workspace-quota/me").await.ok();
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for_longer() {
    let timeout = Duration::from_millis(200);
    let mut site = Site::demo().await.with(Settings { timeout, ..Settings::default() }).await;
    let alice = site.user("alice").await;
    for (method, path) in
        [("PUT", "prebuilds/settings"), ("POST", "organizations/coder/provisionerjobs/cancel"), ("POST", "licenses")]
    {
        let slow = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let answer = alice.call(method, path, axum::body::Body::from_stream(slow)).await;
        answer.says(503, "The request took too long.");
    }
    site.idle().await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_503_and_told_to_nobody_in_detail() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    site.pool.close();
    let answer = alice.get("workspace-quota/me").await;
    answer.says(503, "The database is not available. Try again.");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let ready = send(&site.router, request("GET", "/readyz")).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["message"]), (503, &json!("Not ready.")));
    assert_eq!(send(&site.router, request("GET", "/healthz")).await.text(), "OK");
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_not_ready() {
    let mut site = Site::demo().await;
    send(&site.router, request("GET", "/readyz")).await.says(200, "Ready.");
    site.sql("DELETE FROM coderdb.refinery_schema_history WHERE version = 10").await;
    let ready = send(&site.router, request("GET", "/readyz")).await;
    ready.says_more(503, "Not ready.", "migrations are pending: run `coderdb migrate up`");
}

#[tokio::test]
async fn answers_are_compressed_for_clients_that_take_it() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let mut request = alice.request("GET", "organizations/coder/provisionerjobs?limit=0", "");
    request.headers_mut().insert("accept-encoding", "gzip".parse().expect("a header"));
    let answer = alice.send(request).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.starts_with(&[0x1f, 0x8b]));
    assert_eq!(alice.get("workspace-quota/me").await.header("content-encoding"), None);
}

#[tokio::test]
async fn router_merges_into_a_service_with_routes_and_a_fallback_of_its_own() {
    let site = Site::demo().await;
    let service = axum::Router::new()
        .route("/own", axum::routing::get(async || "mine"))
        .fallback(async || (StatusCode::IM_A_TEAPOT, "not mine"))
        .merge(coderdb::http::router(&site.api));
    let ask = async |path: &str| {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).expect("a request");
        service.clone().oneshot(request).await.expect("an answer").status()
    };
    assert_eq!(ask("/own").await, StatusCode::OK);
    assert_eq!(ask("/nothing").await, StatusCode::IM_A_TEAPOT);
    assert_eq!(ask("/api/v2/nothing").await, StatusCode::NOT_FOUND);
    assert_eq!(ask("/api/v2/prebuilds/settings").await, StatusCode::UNAUTHORIZED);
}
