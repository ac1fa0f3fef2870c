//! Quota: consumption and budget.

use coderdb::{
    model::{JobFilter, PageRequest},
    store,
};
use serde_json::json;
use uuid::Uuid;

use super::{ELSEWHERE, ORGANIZATION, TEMPLATE, USER, WORKSPACE, World, n};
use crate::support::{
    self,
    model::PREBUILDS,
    random_database::{self as rows, NOW, at, with},
};

#[tokio::test]
async fn consumption_is_the_cost_of_the_newest_build_of_each_workspace() {
    let mut world = World::new().await;
    assert_eq!(world.quota(USER, ORGANIZATION).await, (0, 0), "a workspace without a build");
    world.build(1, WORKSPACE, 1, json!({"daily_cost": 30})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 30);
    world.build(2, WORKSPACE, 10, json!({"daily_cost": 7, "transition": "stop"})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 7, "what the stop build committed");
    world.build(3, WORKSPACE, 9, json!({"daily_cost": 100})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 7, "the number decides, and not as a text");
    world.insert("workspaces", rows::workspace(n(80), ORGANIZATION, USER, TEMPLATE, "second")).await;
    world.build(4, n(80), 1, json!({"daily_cost": 5})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 12);
    world.build(5, WORKSPACE, 11, json!({})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 5, "a build without a cost hides the one before it");
    sqlx::query("UPDATE workspaces SET deleted = true").execute(&mut world.conn).await.unwrap();
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 0, "deleted workspaces are free");
}

#[tokio::test]
async fn consumption_counts_the_owner_in_one_organization_only() {
    let mut world = World::new().await;
    world.insert("workspaces", rows::workspace(n(80), ELSEWHERE, USER, TEMPLATE, "second")).await;
    world.insert("workspaces", rows::workspace(n(81), ORGANIZATION, PREBUILDS, TEMPLATE, "prebuild")).await;
    for (id, workspace, cost) in [(1, WORKSPACE, 1), (2, n(80), 20), (3, n(81), 300)] {
        world.build(id, workspace, 1, json!({"daily_cost": cost, "initiator_id": USER})).await;
    }
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 1);
    assert_eq!(world.quota(USER, ELSEWHERE).await.0, 20);
    assert_eq!(world.quota(PREBUILDS, ORGANIZATION).await.0, 300);
}

#[tokio::test]
async fn consumption_exceeds_thirty_two_bits() {
    let mut world = World::new().await;
    world.insert("workspaces", rows::workspace(n(80), ORGANIZATION, USER, TEMPLATE, "second")).await;
    world.build(1, WORKSPACE, 1, json!({"daily_cost": i32::MAX})).await;
    world.build(2, n(80), 1, json!({"daily_cost": i32::MAX})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 2 * i64::from(i32::MAX));
}

#[tokio::test]
async fn the_budget_is_the_sum_over_the_users_groups_in_the_organization() {
    let mut world = World::new().await;
    let group = |id: Uuid, organization: Uuid, allowance: i32| json!({"id": id, "name": id, "organization_id": organization, "quota_allowance": allowance});
    let member = |group: Uuid| json!({"group_id": group, "user_id": USER});
    let joined = |organization: Uuid| json!({"organization_id": organization, "user_id": USER, "created_at": at(NOW), "updated_at": at(NOW), "roles": []});
    // Everyone has the id of the organization.
    let everyone = json!({
        "id": ORGANIZATION, "name": "Everyone", "organization_id": ORGANIZATION, "avatar_url": "",
        "quota_allowance": 1, "display_name": "", "source": "user",
    });
    let group =
        |id: Uuid, organization: Uuid, allowance: i32| with(everyone.clone(), group(id, organization, allowance));
    world.insert("groups", everyone.clone()).await;
    world.insert("groups", group(n(90), ORGANIZATION, 20)).await;
    world.insert("groups", group(n(91), ELSEWHERE, 300)).await;
    world.insert("groups", group(n(92), ORGANIZATION, 4000)).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.1, 0, "a member of nothing");
    world.insert("organization_members", joined(ORGANIZATION)).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.1, 1, "Everyone needs no membership of its own");
    world.insert("group_members", member(n(90))).await;
    world.insert("group_members", member(n(91))).await;
    world.insert("group_members", member(ORGANIZATION)).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.1, 21, "each group once");
    assert_eq!(world.quota(USER, ELSEWHERE).await.1, 300, "a group of an organization that the user is no member of");
    for (change, budget) in [("status = 'suspended'", 21), ("status = 'dormant'", 21), ("deleted = true", 0)] {
        let sql = sqlx::AssertSqlSafe(format!("UPDATE users SET {change} WHERE id = '{USER}'"));
        sqlx::query(sql).execute(&mut world.conn).await.unwrap();
        assert_eq!(world.quota(USER, ORGANIZATION).await.1, budget, "{change}");
    }
    world.build(1, WORKSPACE, 1, json!({"daily_cost": 8})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await, (8, 0), "what a deleted user left behind still costs");
    assert_eq!(world.quota(n(99), ORGANIZATION).await, (0, 0), "nobody");
}

#[tokio::test]
async fn a_time_that_no_calendar_has_fails_neither_the_listing_nor_its_walk() {
    let mut world = World::new().await;
    for id in 1..=4 {
        world.build(id, WORKSPACE, i32::try_from(id).unwrap(), json!({})).await;
    }
    let odd = "UPDATE provisioner_jobs SET created_at = 'infinity' WHERE right(id::text, 1) IN ('2', '3');
               UPDATE provisioner_jobs SET created_at = '0001-06-01 BC' WHERE right(id::text, 1) IN ('1', '4');
               UPDATE provisioner_jobs SET completed_at = '-infinity', started_at = '4713-01-01 BC' \
               WHERE right(id::text, 1) = '1'";
    sqlx::raw_sql(odd).execute(&mut world.conn).await.unwrap();
    let rows = world.list(&JobFilter::default()).await;
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| serde_json::to_string(row).is_ok()), "a time that JSON can hold");
    assert_eq!(rows[0].job.created_at.year(), 9999);

    let permit = support::read_jobs(ORGANIZATION);
    let (mut walked, mut request) = (Vec::new(), PageRequest::first(1));
    loop {
        let page = store::jobs::list(&mut world.conn, &permit, &JobFilter::default(), request).await.unwrap();
        walked.extend(page.rows);
        match page.next {
            Some(cursor) => request = PageRequest::after(cursor, 1),
            None => break,
        }
    }
    assert_eq!(walked, rows);
}
