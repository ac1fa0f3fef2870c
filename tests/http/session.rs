//! Who is let in: each rule for tokens, keys and users. The operations are only there to have something to ask for.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Request, header},
};
use serde_json::json;

use crate::{
    client::{Answer, Client, Site, TOKEN, demo_id, send},
    support::secrets,
};

const SIGNED_OUT: &str = "You are signed out or your session has expired. Please sign in again to continue.";
const RESTRICTED: &str =
    "API key is restricted to certain scopes, resources or an audience, which this API does not support.";
/// Everybody who is signed in gets an answer here.
const OWN_QUOTA: &str = "workspace-quota/me";

async fn with_headers(site: &Site, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(format!("/api/v2/{OWN_QUOTA}"));
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_str(value).expect("a header"));
    }
    send(&site.router, request.body(Body::empty()).expect("a request")).await
}

fn signed_out(answer: &Answer, detail: &str) {
    answer.says_more(401, SIGNED_OUT, detail);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"coder\", error=\"invalid_token\""));
}

/// Changes the row of the key.
async fn change(site: &mut Site, client: &Client, set: &str) {
    site.sql(&format!("UPDATE api_keys SET {set} WHERE id = '{}'", client.id())).await;
}

#[tokio::test]
async fn session_takes_the_token_from_two_headers() {
    let mut site = Site::demo().await;
    let (alice, dave) = (site.user("alice").await, site.user("dave").await);
    let bearer = format!("Bearer {}", alice.token);
    for headers in [
        vec![(TOKEN, alice.token.as_str())],
        vec![("coder-session-token", &alice.token)],
        vec![("Authorization", &bearer)],
        vec![("authorization", &bearer.replace("Bearer", "bEARER"))],
        vec![("Authorization", &bearer.replace("Bearer ", "bearer   "))],
        vec![(TOKEN, &format!("  {}  ", alice.token))],
        vec![(TOKEN, ""), ("Authorization", &bearer)],
        // The first one counts.
        vec![(TOKEN, &alice.token), ("Authorization", "Bearer nonsense")],
    ] {
        assert_eq!(with_headers(&site, &headers).await.ok()["budget"], 20, "{headers:?}");
    }
    let both = with_headers(&site, &[(TOKEN, &dave.token), ("Authorization", &bearer)]).await;
    assert_eq!(both.ok()["budget"], 60);
}

#[tokio::test]
async fn session_takes_no_token_from_elsewhere() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let none = "The header \"Coder-Session-Token\" or \"Authorization: Bearer\" must be provided.";
    let cookie = format!("coder_session_token={}", alice.token);
    let basic = format!("Basic {}", alice.token);
    for headers in [
        vec![],
        vec![("Cookie", cookie.as_str())],
        vec![("Authorization", alice.token.as_str())],
        vec![("Authorization", &basic)],
        vec![("Authorization", "Bearer")],
        vec![("Authorization", "Bearer ")],
        vec![(TOKEN, "")],
        vec![(TOKEN, "  ")],
        vec![("Coder-Token", &alice.token)],
    ] {
        signed_out(&with_headers(&site, &headers).await, none);
    }
    for name in ["coder_session_token", "access_token"] {
        let uri = format!("/api/v2/{OWN_QUOTA}?{name}={}", alice.token);
        let request = Request::builder().uri(uri).body(Body::empty()).expect("a request");
        // Not even a trace of it stays.
        signed_out(&without_its_uri(&site, request).await, none);
    }
    let not_a_text = HeaderValue::from_bytes(b"\xff\xfe").expect("a value");
    let mut request = Request::builder().uri(format!("/api/v2/{OWN_QUOTA}")).body(Body::empty()).expect("a request");
    request.headers_mut().insert(HeaderName::from_static("coder-session-token"), not_a_text);
    signed_out(&send(&site.router, request).await, none);
}

async fn without_its_uri(site: &Site, request: Request<Body>) -> Answer {
    let mut answer = send(&site.router, request).await;
    answer.headers.remove(header::LOCATION);
    answer
}

#[tokio::test]
async fn session_says_what_is_wrong_with_the_form_of_a_token() {
    let site = Site::demo().await;
    let secret = "s".repeat(22);
    for (token, why) in [
        ("nonsense".to_owned(), "incorrect amount of API key parts, expected 2 got 1"),
        (format!("HOOmKyZ0bR-{secret}-"), "incorrect amount of API key parts, expected 2 got 3"),
        ("a-b-c-d".to_owned(), "incorrect amount of API key parts, expected 2 got 4"),
        (format!("short-{secret}"), "invalid API key ID length, expected 10 got 5"),
        (format!("-{secret}"), "invalid API key ID length, expected 10 got 0"),
        ("HOOmKyZ0bR-".to_owned(), "invalid API key secret length, expected 22 got 0"),
        (format!("HOOmKyZ0bR-{secret}s"), "invalid API key secret length, expected 22 got 23"),
        (format!("HOOm'Z0b;R-{secret}"), "invalid API key ID, expected letters and digits"),
        (format!("{}-{secret}", "%00".repeat(3) + "x"), "invalid API key ID, expected letters and digits"),
        ("x".repeat(100_000), "incorrect amount of API key parts, expected 2 got 1"),
    ] {
        signed_out(&with_headers(&site, &[(TOKEN, &token)]).await, &format!("Invalid API key format: {why}"));
    }
}

#[tokio::test]
async fn session_refuses_unknown_and_wrong_tokens() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    signed_out(&site.client(&format!("0000000000-{}", secrets::TOKEN)).get(OWN_QUOTA).await, "API key is invalid.");
    let wrong = site.client(&format!("{}-{}", alice.id(), "s".repeat(22)));
    signed_out(&wrong.get(OWN_QUOTA).await, "API key secret is invalid.");
    // Of another case, and with a digest of another length.
    let other_case = site.client(&format!("{}-{}", alice.id(), secrets::TOKEN.to_lowercase()));
    signed_out(&other_case.get(OWN_QUOTA).await, "API key secret is invalid.");
    for stored in ["''", "'\\x00'", "hashed_secret || '\\x00'", "substr(hashed_secret, 1, 31)"] {
        change(&mut site, &alice, &format!("hashed_secret = {stored}")).await;
        signed_out(&alice.get(OWN_QUOTA).await, "API key secret is invalid.");
        change(&mut site, &alice, &format!("hashed_secret = '{}'", hash())).await;
    }
    alice.get(OWN_QUOTA).await.ok();
    site.sql(&format!("DELETE FROM api_keys WHERE id = '{}'", alice.id())).await;
    signed_out(&alice.get(OWN_QUOTA).await, "API key is invalid.");
}

/// The stored form of the secret of the tests.
fn hash() -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, secrets::TOKEN.as_bytes());
    digest.as_ref().iter().fold("\\x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[tokio::test]
async fn session_refuses_what_has_expired_and_says_since_when() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    change(&mut site, &alice, "expires_at = '2026-05-07 09:00:00.25Z'").await;
    signed_out(&alice.get(OWN_QUOTA).await, "API key expired at \"2026-05-07T09:00:00.25Z\".");
    change(&mut site, &alice, "expires_at = now() + interval '1 hour'").await;
    alice.get(OWN_QUOTA).await.ok();
    // The secret is looked at first: whoever does not know it learns nothing of the key.
    change(&mut site, &alice, "expires_at = '2026-05-07 09:00:00Z', hashed_secret = ''").await;
    signed_out(&alice.get(OWN_QUOTA).await, "API key secret is invalid.");
}

#[tokio::test]
async fn session_looks_at_how_the_user_is() {
    let mut site = Site::demo().await;
    let (frank, ivan, judy) = (site.user("frank").await, site.user("ivan").await, site.user("carol").await);
    let suspended = "User is not active (status = \"suspended\"). Contact an admin to reactivate your account.";
    let answer = frank.get(OWN_QUOTA).await;
    answer.says(401, suspended);
    // Dormant users may come back.
    ivan.get(OWN_QUOTA).await.ok();
    judy.get(OWN_QUOTA).await.ok();
    site.sql(&format!("UPDATE users SET status = 'suspended' WHERE id = '{}'", demo_id("0002", 9))).await;
    ivan.get(OWN_QUOTA).await.says(401, suspended);
    // Who is deleted has no keys any more; and one that were left would let nobody in.
    site.sql(&format!("UPDATE users SET deleted = true WHERE id = '{}'", demo_id("0002", 3))).await;
    signed_out(&judy.get(OWN_QUOTA).await, "API key is invalid.");
    site.sql(
        "ALTER TABLE users DISABLE TRIGGER USER;
         UPDATE users SET deleted = true WHERE username = 'ivan'",
    )
    .await;
    signed_out(&ivan.get(OWN_QUOTA).await, "API key is invalid.");
}

#[tokio::test]
async fn session_asks_for_the_link_of_keys_that_came_from_a_login_provider() {
    let mut site = Site::demo().await;
    let dave = site.user("dave").await;
    let again = "You must re-authenticate with the login provider.";
    for (login_type, is_linked) in
        [("password", true), ("token", true), ("none", true), ("oidc", true), ("github", false)]
    {
        change(&mut site, &dave, &format!("login_type = '{login_type}'")).await;
        let answer = dave.get(OWN_QUOTA).await;
        if is_linked { drop(answer.ok()) } else { signed_out(&answer, again) }
    }
    site.sql("DELETE FROM user_links").await;
    change(&mut site, &dave, "login_type = 'oidc'").await;
    signed_out(&dave.get(OWN_QUOTA).await, again);
    change(&mut site, &dave, "login_type = 'oauth2_provider_app'").await;
    signed_out(&dave.get(OWN_QUOTA).await, RESTRICTED);
}

#[tokio::test]
async fn session_refuses_keys_that_may_do_only_a_part() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for (scopes, may) in [
        ("coder:all", true),
        ("coder:application_connect,coder:all", true),
        ("coder:application_connect", false),
        ("", false),
    ] {
        change(&mut site, &alice, &format!("scopes = '{{{scopes}}}'")).await;
        let answer = alice.get(OWN_QUOTA).await;
        if may { drop(answer.ok()) } else { signed_out(&answer, RESTRICTED) }
    }
    change(&mut site, &alice, "scopes = '{coder:all}'").await;
    for (list, may) in [
        ("*:*", true),
        ("template:*,*:*", true),
        ("template:*", false),
        ("*", false),
        ("", false),
        ("workspace:11111111-1111-4111-8111-111111111111", false),
    ] {
        let list = if list.is_empty() { "\"\"" } else { list };
        change(&mut site, &alice, &format!("allow_list = '{{{list}}}'")).await;
        let answer = alice.get(OWN_QUOTA).await;
        if may { drop(answer.ok()) } else { signed_out(&answer, RESTRICTED) }
    }
}

#[tokio::test]
async fn session_notes_the_use_of_a_key_once_an_hour() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let age = format!("SELECT extract(EPOCH FROM now() - last_used)::bigint FROM api_keys WHERE id = '{}'", alice.id());
    let row = format!("SELECT xmin::text FROM api_keys WHERE id = '{}'", alice.id());
    assert!(site.value::<i64>(&age).await > 1_000_000, "it was never used");
    alice.get(OWN_QUOTA).await.ok();
    assert!(site.value::<i64>(&age).await < 600);
    for (last_used, is_noted) in
        [("now()", false), ("now() - interval '50 minutes'", false), ("now() - interval '61 minutes'", true)]
    {
        change(&mut site, &alice, &format!("last_used = {last_used}")).await;
        let before = site.value::<String>(&row).await;
        for _ in 0..3 {
            alice.get(OWN_QUOTA).await.ok();
        }
        assert_eq!(site.value::<String>(&row).await != before, is_noted, "{last_used}");
    }
    // Whoever is refused has not used it.
    change(&mut site, &alice, "last_used = '1970-01-01Z', expires_at = now() - interval '1 s'").await;
    alice.get(OWN_QUOTA).await;
    assert!(site.value::<i64>(&age).await > 1_000_000);
}

#[tokio::test]
async fn session_of_a_role_that_is_taken_away_may_no_longer() {
    let mut site = Site::demo().await;
    let grace = site.user("grace").await;
    grace.get("organizations/coder/provisionerjobs").await.ok();
    site.sql("UPDATE organization_members SET roles = '{}'").await;
    grace.get("organizations/coder/provisionerjobs").await.not_found();
}

#[tokio::test]
async fn session_is_asked_for_before_anything_else() {
    let site = Site::demo().await;
    let nobody = site.client("nonsense");
    for (method, path) in [
        ("GET", "organizations/nowhere/provisionerjobs?limit=x"),
        ("GET", "organizations/coder/provisionerjobs/x"),
        ("PUT", "prebuilds/settings"),
        ("POST", "organizations/coder/provisionerjobs/cancel"),
        ("PATCH", "workspacebuilds/x/cancel?expect_status=x"),
        ("GET", "workspacebuilds/x/logs?follow&format=text"),
    ] {
        assert_eq!(nobody.call(method, path, "{").await.status, 401, "{method} {path}");
    }
    // What needs no session.
    for (uri, status) in [("/healthz", 200), ("/readyz", 200), ("/openapi.json", 200), ("/api/v2/nowhere", 404)] {
        let answer = send(&site.router, crate::client::request("GET", uri)).await;
        assert_eq!(answer.status.as_u16(), status, "{uri}");
    }
    let unknown = send(&site.router, crate::client::request("GET", "/api/v2/nowhere")).await;
    unknown.is(404, &json!({ "message": "Route not found." }));
}
