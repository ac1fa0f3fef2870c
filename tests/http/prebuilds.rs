//! get-prebuilds-settings and update-prebuilds-settings.

use serde_json::json;

use crate::client::Site;

const SETTINGS: &str = "prebuilds/settings";
const NO_PERMISSION: &str = "You don't have permission to view this content. If you believe this is a mistake, please contact \
                             your administrator or try signing in with different credentials.";

#[tokio::test]
async fn prebuilds_settings_are_stored_answered_and_left_alone_when_they_are_the_same() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let (paused, resumed) = (json!({ "reconciliation_paused": true }), json!({ "reconciliation_paused": false }));
    alice.get(SETTINGS).await.is(200, &resumed);
    for (wanted, is_new) in [(&paused, true), (&paused, false), (&resumed, true), (&resumed, false)] {
        let answer = alice.put(SETTINGS, wanted).await;
        if is_new {
            answer.is(200, wanted);
        } else {
            assert_eq!((answer.status.as_u16(), answer.text()), (304, String::new()));
        }
        alice.get(SETTINGS).await.is(200, wanted);
    }
}

#[tokio::test]
async fn prebuilds_settings_default_to_false() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    site.sql("DELETE FROM site_configs WHERE key = 'prebuilds_settings'").await;
    alice.get(SETTINGS).await.is(200, &json!({ "reconciliation_paused": false }));
    // Other keys are ignored, and a key that is missing means false.
    alice
        .put(SETTINGS, &json!({ "reconciliation_paused": true, "more": [1] }))
        .await
        .is(200, &json!({ "reconciliation_paused": true }));
    alice.put(SETTINGS, &json!({})).await.is(200, &json!({ "reconciliation_paused": false }));
}

#[tokio::test]
async fn prebuilds_settings_are_forbidden_to_those_without_the_right() {
    let mut site = Site::demo().await;
    for (username, may_read) in [("carol", true), ("bob", false), ("grace", false), ("dave", false)] {
        let client = site.user(username).await;
        let answer = client.get(SETTINGS).await;
        if may_read {
            answer.ok();
        } else {
            answer.says_more(403, "Forbidden.", NO_PERMISSION);
        }
        // Also with the value that is stored: a 304 would say what that is. And whatever the body is.
        for body in [r#"{"reconciliation_paused": false}"#, r#"{"reconciliation_paused": true}"#, "{", ""] {
            client.call("PUT", SETTINGS, body).await.says_more(403, "Forbidden.", NO_PERMISSION);
        }
    }
    assert!(
        !site.value::<String>("SELECT value FROM site_configs WHERE key = 'prebuilds_settings'").await.contains("true")
    );
}

#[tokio::test]
async fn prebuilds_settings_say_what_is_wrong_with_the_request() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let no_object = "Expected an object; line 1, column 0";
    let other_type = "A field is missing or has another type.";
    for (body, detail) in [
        ("", "Expected an object; line 1, column 0"),
        ("{", "Expected an object; line 1, column 1"),
        ("paused", "Expected an object; line 1, column 1"),
        ("{} {}", "Expected an object; line 1, column 4"),
        ("\u{0}", "Expected an object; line 1, column 1"),
        ("[true]", no_object),
        ("null", "Expected an object; line 1, column 4"),
        (r#"{"reconciliation_paused": null}"#, other_type),
        (r#"{"reconciliation_paused": "true"}"#, other_type),
    ] {
        alice.call("PUT", SETTINGS, body).await.says_more(400, "Request body must be valid JSON.", detail);
    }
    let large = format!(r#"{{"reconciliation_paused": true, "more": "{}"}}"#, "x".repeat(300 * 1024));
    alice.call("PUT", SETTINGS, large).await.says(413, "Request body is too large.");
    alice.get(&format!("{SETTINGS}?x=1")).await.faults(&[("x", "\"x\" is not a valid query param")]);
    alice.call("PUT", &format!("{SETTINGS}?x=1"), "{}").await.faults(&[("x", "\"x\" is not a valid query param")]);
    alice.get(SETTINGS).await.is(200, &json!({ "reconciliation_paused": false }));
}

#[tokio::test]
async fn prebuilds_settings_that_are_broken_are_an_error_that_names_them() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for stored in ["", "nonsense", r#"{"reconciliation_paused": "yes"}"#] {
        site.sql(&format!("UPDATE site_configs SET value = '{stored}' WHERE key = 'prebuilds_settings'")).await;
        let answer = alice.get(SETTINGS).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["message"]),
            (500, &json!("Failed to unmarshal prebuilds settings."))
        );
        assert!(answer.json()["detail"].is_string());
    }
    alice
        .put(SETTINGS, &json!({ "reconciliation_paused": true }))
        .await
        .is(200, &json!({ "reconciliation_paused": true }));
}
