//! get-workspace-quota-by-user, and the same in the default organization.

use serde_json::json;

use crate::client::{Site, demo_id};

fn quota(user: &str) -> String {
    format!("organizations/coder/members/{user}/workspace-quota")
}

#[tokio::test]
async fn quota_shows_what_is_consumed_and_the_budget() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for (user, consumed, budget) in [
        ("dave", 22, 60),
        ("erin", 60, 80),
        ("grace", 0, 60),
        ("heidi", 50, 120),
        ("prebuilds", 20, 220),
        ("alice", 0, 20),
    ] {
        let expected = json!({ "credits_consumed": consumed, "budget": budget });
        alice.get(&quota(user)).await.is(200, &expected);
        alice.get(&format!("workspace-quota/{user}")).await.is(200, &expected);
    }
}

#[tokio::test]
async fn quota_finds_the_user_by_id_by_name_and_as_oneself() {
    let mut site = Site::demo().await;
    let dave = site.user("dave").await;
    let expected = json!({ "credits_consumed": 22, "budget": 60 });
    for user in ["me", "dave", "Dave", &demo_id("0002", 4)] {
        dave.get(&quota(user)).await.is(200, &expected);
        dave.get(&format!("workspace-quota/{user}")).await.is(200, &expected);
    }
    for user in ["ME", "nobody", "heidi", &demo_id("0002", 8), &demo_id("0002", 404), "%20", "*"] {
        dave.get(&quota(user)).await.not_found();
        dave.get(&format!("workspace-quota/{user}")).await.not_found();
    }
}

#[tokio::test]
async fn quota_is_for_oneself_and_for_those_who_look_after_users() {
    let mut site = Site::demo().await;
    for (username, may) in
        [("alice", true), ("carol", true), ("grace", true), ("bob", false), ("erin", false), ("ivan", false)]
    {
        let client = site.user(username).await;
        let answer = client.get(&quota("heidi")).await;
        if may { answer.is(200, &json!({ "credits_consumed": 50, "budget": 120 })) } else { answer.not_found() }
    }
}

#[tokio::test]
async fn quota_of_who_has_left_is_what_the_workspaces_still_consume() {
    let mut site = Site::demo().await;
    site.sql(&format!("DELETE FROM organization_members WHERE user_id = '{}'", demo_id("0002", 8))).await;
    let alice = site.user("alice").await;
    assert_eq!(alice.get(&quota("heidi")).await.ok()["credits_consumed"], 50);
    // Not a member any more, and without a role: not even one's own.
    site.user("heidi").await.get(&quota("me")).await.not_found();
}

#[tokio::test]
async fn quota_takes_no_parameters_and_knows_its_organization() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for path in [quota("dave"), "workspace-quota/dave".to_owned()] {
        alice.get(&format!("{path}?limit=1")).await.faults(&[("limit", "\"limit\" is not a valid query param")]);
    }
    alice.get("organizations/nowhere/members/dave/workspace-quota").await.not_found();
    alice.get("organizations/default/members/dave/workspace-quota").await.ok();
    site.sql("UPDATE organizations SET is_default = false").await;
    alice.get("workspace-quota/dave").await.not_found();
}
