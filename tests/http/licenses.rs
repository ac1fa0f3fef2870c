//! get-licenses, add-new-license, delete-license, update-license-entitlements.

use std::time::Duration as Wait;

use coderdb::{http::Settings, sqlx::postgres::PgListener};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    client::{Site, demo_id},
    support::licenses::{Signer, claims, with},
};

const NO_PERMISSION: &str = "You don't have permission to view this content. If you believe this is a mistake, please contact \
                             your administrator or try signing in with different credentials.";
const SEVERAL: &str = "license has multiple issues; contact support";

/// The demo without its license, and whoever signs licenses for it.
async fn site() -> (Site, Signer) {
    let signer = Signer::new("key");
    let settings = Settings { license_keys: signer.keys(), requests_per_minute: None, ..Settings::default() };
    let mut site = Site::demo().await.with(settings).await;
    site.sql("DELETE FROM licenses; SELECT setval('licenses_id_seq', 1, false)").await;
    (site, signer)
}

#[tokio::test]
async fn licenses_are_added_shown_and_deleted() {
    let (mut site, signer) = site().await;
    let alice = site.user("alice").await;
    let now = OffsetDateTime::now_utc();
    let first = claims(now);
    // The second has no id of its own, and is not valid yet.
    let mut second = with(&first, "nbf", json!((now + Duration::days(2)).unix_timestamp()));
    second.as_object_mut().expect("claims").remove("jti");
    let mut listed = Vec::new();
    for (id, claims) in [(1, &first), (2, &second)] {
        let text = signer.sign(claims);
        let answer = alice.post("licenses", &json!({ "license": text })).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let body = answer.json();
        assert_eq!((&body["id"], &body["claims"]), (&json!(id), claims), "numbers and unknown claims as they are");
        assert!(body["uploaded_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");
        assert_eq!(body.as_object().expect("an object").len(), 4, "{body}");
        assert!(
            !answer.text().contains(&text) && !answer.text().contains(text.split('.').nth(2).expect("a signature"))
        );
        listed.push(body);
    }
    assert_eq!(listed[0]["uuid"], first["jti"]);
    alice.get("licenses").await.is(200, &json!(listed));
    let deleted = alice.call("DELETE", "licenses/1", "").await;
    assert_eq!((deleted.status.as_u16(), deleted.text()), (200, String::new()));
    alice.get("licenses").await.is(200, &json!(listed[1..]));
    alice.call("DELETE", "licenses/1", "").await.says(404, "Unknown license ID");
}

#[tokio::test]
async fn licenses_that_are_there_already_are_a_conflict() {
    let (mut site, signer) = site().await;
    let alice = site.user("alice").await;
    let license = json!({ "license": signer.sign(&claims(OffsetDateTime::now_utc())) });
    assert_eq!(alice.post("licenses", &license).await.status, 201);
    alice.post("licenses", &license).await.says_more(409, "License already exists.", "It is license 1.");
    assert_eq!(alice.get("licenses").await.ok().as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn licenses_that_are_none_are_refused_with_the_text_of_the_claim_and_a_code() {
    let (mut site, signer) = site().await;
    site.sql("INSERT INTO site_configs (key, value) VALUES ('deployment_id', 'this-one')").await;
    let alice = site.user("alice").await;
    let now = OffsetDateTime::now_utc();
    let (good, later) = (claims(now), |days: i64| json!((now + Duration::days(days)).unix_timestamp()));
    let invalid = |name: &str| format!("license has invalid or missing {name} claim");
    for (claim, value, detail, code) in [
        ("version", json!(2), "license must be version 3".to_owned(), "license_version"),
        ("iat", Value::Null, invalid("iat (issued at)"), "license_iat"),
        ("iat", later(1), SEVERAL.to_owned(), "license_issued_in_future"),
        ("nbf", Value::Null, invalid("nbf (not before)"), "license_nbf"),
        ("license_expires", later(6 * 365), invalid("license_expires"), "license_expires"),
        ("exp", Value::Null, invalid("exp (expires at)"), "license_exp"),
        ("exp", later(-1), SEVERAL.to_owned(), "license_expired"),
        ("account_type", json!(""), "license must contain valid account type".to_owned(), "license_account_type"),
        ("account_id", json!(""), "license must contain valid account ID".to_owned(), "license_account_id"),
    ] {
        let license = signer.sign(&with(&good, claim, value));
        let answer = alice.post("licenses", &json!({ "license": license })).await;
        answer.is(
            400,
            &json!({
                "message": "Invalid license",
                "detail": detail,
                "validations": [{ "field": "license", "detail": code }],
            }),
        );
    }
    let mut changed = signer.sign(&good);
    changed.truncate(changed.len() - 4);
    for (license, code) in [
        ("nonsense".to_owned(), "license_malformed"),
        (String::new(), "license_malformed"),
        ("\0".repeat(100), "license_malformed"),
        (changed, "license_signature"),
        (Signer::new("key").sign(&good), "license_signature"),
        (Signer::new("other").sign(&good), "license_key_id_unknown"),
    ] {
        let answer = alice.post("licenses", &json!({ "license": license })).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["message"]), (400, &json!("Invalid license")), "{body}");
        assert_eq!((&body["detail"], &body["validations"][0]["field"]), (&json!(SEVERAL), &json!("license")), "{body}");
        let found = body["validations"][0]["detail"].as_str().expect("a code");
        assert!(found == code || code == "license_signature" && found == "license_malformed", "{found}, not {code}");
    }
    let elsewhere = signer.sign(&with(&good, "deployment_ids", json!(["another", "more"])));
    let body = alice.post("licenses", &json!({ "license": elsewhere })).await.json();
    assert_eq!(body["message"], "License cannot be used on this deployment!");
    assert!(
        body["detail"].as_str().is_some_and(|text| text.contains("another") && text.contains("this-one")),
        "{body}"
    );
    for body in ["", "{}", "[\"x\"]", "{\"license\": 1}"] {
        let answer = alice.call("POST", "licenses", body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["message"].as_str()),
            (400, Some("Request body must be valid JSON."))
        );
    }
    alice.get("licenses").await.is(200, &json!([]));
}

#[tokio::test]
async fn licenses_cannot_be_added_without_a_key_to_verify_them() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let license = Signer::new("key").sign(&claims(OffsetDateTime::now_utc()));
    let body = alice.post("licenses", &json!({ "license": license })).await.json();
    assert_eq!(body["message"], "Licenses cannot be verified on this deployment");
    // What was stored by somebody else is shown, also when it is no license.
    assert_eq!(alice.get("licenses").await.ok()[0]["uuid"], demo_id("0011", 1));
}

#[tokio::test]
async fn licenses_are_for_owners_and_others_see_none() {
    let (mut site, signer) = site().await;
    let (alice, license) = (site.user("alice").await, signer.sign(&claims(OffsetDateTime::now_utc())));
    let license = json!({ "license": license });
    assert_eq!(alice.post("licenses", &license).await.status, 201);
    for username in ["bob", "carol", "grace", "dave"] {
        let client = site.user(username).await;
        client.get("licenses").await.is(200, &json!([]));
        // Whatever the body is.
        for body in [license.to_string(), "{".to_owned(), String::new()] {
            client.call("POST", "licenses", body).await.says_more(403, "Forbidden.", NO_PERMISSION);
        }
        client.post("licenses/refresh-entitlements", &json!({})).await.says_more(403, "Forbidden.", NO_PERMISSION);
        for id in ["1", "2"] {
            client.call("DELETE", &format!("licenses/{id}"), "").await.says_more(403, "Forbidden.", NO_PERMISSION);
        }
        client.call("DELETE", "licenses/one", "").await.says(404, "License ID must be an integer");
    }
    for id in ["one", "1.0", "2147483648", "%20", "1%20"] {
        alice.call("DELETE", &format!("licenses/{id}"), "").await.says(404, "License ID must be an integer");
    }
    for id in ["0", "-1", "2"] {
        alice.call("DELETE", &format!("licenses/{id}"), "").await.says(404, "Unknown license ID");
    }
    assert_eq!(alice.get("licenses").await.ok().as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn licenses_are_refreshed_once_a_minute() {
    let (mut site, _) = site().await;
    let alice = site.user("alice").await;
    let refresh = "licenses/refresh-entitlements";
    // Who may not has used nothing up, and neither has a request that is wrong.
    assert_eq!(site.user("dave").await.post(refresh, &json!({})).await.status, 403);
    assert_eq!(alice.call("POST", &format!("{refresh}?x=1"), "").await.status, 400);
    alice.call("POST", refresh, "").await.says(200, "Entitlements updated");
    let again = alice.call("POST", refresh, "").await;
    let wait: u64 = again.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let message = format!("Entitlements already recently refreshed, please wait {wait} seconds to force a new refresh");
    again.says(400, &message);
}

#[tokio::test]
async fn licenses_are_announced_to_other_servers_when_they_change() {
    let (mut site, signer) = site().await;
    let alice = site.user("alice").await;
    let Some(mut listener) = listener(&site).await else { return };
    let license = json!({ "license": signer.sign(&claims(OffsetDateTime::now_utc())) });
    assert_eq!(alice.post("licenses", &license).await.status, 201);
    alice.call("POST", "licenses/refresh-entitlements", "").await.says(200, "Entitlements updated");
    assert_eq!(alice.call("DELETE", "licenses/1", "").await.status, 200);
    // What changes nothing is not announced.
    assert_eq!(alice.call("DELETE", "licenses/1", "").await.status, 404);
    site.sql("NOTIFY licenses, 'the end'").await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|payload| payload != "the end") {
        let next = tokio::time::timeout(Wait::from_secs(30), listener.recv()).await.expect("in time");
        heard.push(next.expect("a notification").payload().to_owned());
    }
    assert_eq!(heard, ["add", "refresh", "delete", "the end"]);
}

/// Listens on the channel, where no pooler is in between.
async fn listener(site: &Site) -> Option<PgListener> {
    if crate::support::is_pooled() {
        return None;
    }
    let mut listener = PgListener::connect(site.database.url()).await.expect("a connection");
    listener.listen("licenses").await.expect("the channel");
    Some(listener)
}
