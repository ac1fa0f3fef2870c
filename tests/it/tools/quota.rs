//! Builds that are over quota, on all paths, and the numbers in their replies (domain: chat tools).

use coderdb::tools::Tool;
use serde_json::json;

use super::*;

/// The budget of 40 is used up by another workspace.
const FULL: &str = "SELECT add_workspace(8), add_build(8, 8, 1), stands(8, 'succeeded');
                    UPDATE workspace_builds SET daily_cost = 40 WHERE id = u(8);";

#[tokio::test]
async fn a_new_workspace_that_is_over_quota_says_so_with_the_numbers() {
    let mut world = World::after(FULL).await;
    let (reply, _) = world.built(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Costs(1)).await;
    assert_golden("create over quota", &reply, world.newest_build().await);
}

#[tokio::test]
async fn an_existing_build_that_is_over_quota_could_not_start() {
    let world = World::after(&format!("{FULL} SELECT has(5, 'start', 'pending')")).await;
    let reply = world.under_way(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Costs(1)).await;
    assert_golden("existing build over quota", &reply, id(5));
}

#[tokio::test]
async fn a_start_under_way_that_is_over_quota_says_so_with_the_numbers() {
    let world = World::after(&format!("{FULL} SELECT has(5, 'start', 'pending')")).await;
    let reply = world.under_way(&world.toolbox(), Tool::StartWorkspace, json!({}), Ending::Costs(1)).await;
    assert_golden("start in progress over quota", &reply, id(5));
}

#[tokio::test]
async fn a_fresh_start_that_is_over_quota_says_so_and_goes_on_once_there_is_room() {
    let mut world = World::after(&format!("{FULL} SELECT has(5, 'stop', 'succeeded')")).await;
    let toolbox = world.toolbox();
    let (reply, _) = world.built(&toolbox, Tool::StartWorkspace, json!({}), Ending::Costs(1)).await;
    assert_golden("start over quota", &reply, world.newest_build().await);
    world.rows.run("UPDATE workspaces SET deleted = true WHERE id = u(8)").await;
    let (reply, _) = world.built(&toolbox, Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
    assert_golden("started", &reply, world.newest_build().await);
}

/// Fails the build 5 as a quota commit does, which might not get so far after what happens just before.
async fn fails_for_insufficient_quota(world: &World, error_code: &str, and: &'static str) -> Value {
    let (toolbox, mut conn) = (world.toolbox(), world.rows.database.connect().await);
    let (reply, ()) = tokio::join!(start(&toolbox), async {
        world.until_told().await;
        sqlx::raw_sql(and).execute(&mut conn).await.expect("the statement");
        let fail = "UPDATE provisioner_jobs SET started_at = now(), completed_at = now(), error = 'insufficient quota',
                        error_code = nullif($1, '') WHERE id = u(5)";
        sqlx::query(fail).bind(error_code).execute(&mut conn).await.expect("failed");
        world.watcher.announce(Change { job: id(5).into(), organization: id(1).into() });
    });
    keys(&reply)
}

#[tokio::test]
async fn a_reply_without_its_numbers_is_a_reply_all_the_same() {
    for why in [
        "UPDATE users SET status = 'suspended'",
        "UPDATE users SET deleted = true",
        "DELETE FROM organization_members",
        "ALTER TABLE organization_members RENAME TO gone",
        "ALTER TABLE groups RENAME TO gone",
        "ALTER TABLE group_members RENAME COLUMN user_id TO member_id; DROP VIEW group_members_expanded",
    ] {
        let world = World::after("SELECT has(5, 'start', 'pending')").await;
        let reply = fails_for_insufficient_quota(&world, "INSUFFICIENT_QUOTA", why).await;
        assert_eq!(reply["error_code"], "INSUFFICIENT_QUOTA", "{why}");
        assert_eq!(reply.get("quota"), None, "{why}");
    }
    // The same where all is well.
    let world = World::after("SELECT has(5, 'start', 'pending')").await;
    let reply = fails_for_insufficient_quota(&world, "INSUFFICIENT_QUOTA", "SELECT").await;
    assert_eq!(reply["quota"], json!({ "credits_consumed": 0, "budget": 40 }));
}

#[tokio::test]
async fn a_reply_does_not_wait_long_for_its_numbers() {
    let world = World::after("SELECT has(5, 'start', 'pending')").await;
    let mut blocker = world.rows.database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE groups").execute(&mut blocker).await.expect("a lock");
    let impatient = Settings { quota_timeout: Duration::from_millis(100), ..SETTINGS };
    let toolbox = world.toolbox().settings(impatient);
    let mut conn = world.rows.database.connect().await;
    let (reply, ()) = tokio::join!(start(&toolbox), async {
        world.until_told().await;
        let fail = "UPDATE provisioner_jobs SET started_at = now(), completed_at = now(), error = 'insufficient quota',
                        error_code = 'INSUFFICIENT_QUOTA' WHERE id = u(5)";
        sqlx::raw_sql(fail).execute(&mut conn).await.expect("failed");
        world.watcher.announce(Change { job: id(5).into(), organization: id(1).into() });
    });
    let reply = keys(&reply);
    assert_eq!((&reply["error_code"], reply.get("quota")), (&json!("INSUFFICIENT_QUOTA"), None));
}

#[tokio::test]
async fn the_text_without_the_code_is_a_plain_failure() {
    for code in ["", "MISSING_TEMPLATE_PARAMETER"] {
        let world = World::after("SELECT has(5, 'start', 'pending')").await;
        let expected = json!({ "error": "waiting for in-progress build: insufficient quota", "build_id": id(5) });
        assert_eq!(fails_for_insufficient_quota(&world, code, "SELECT").await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_of_the_example_deletes_a_workspace_and_starts_again() {
    let mut world = World::after(&format!("{FULL} SELECT has(5, 'stop', 'succeeded')")).await;
    let daemon = async {
        let over = world.daemon(Ending::Costs(1)).await;
        let deleted = world.daemon(Ending::Succeeds(&[])).await;
        let started = world.daemon(Ending::Succeeds(&[])).await;
        [over.id, deleted.id, started.id]
    };
    let (reply, [_, deleted, started]) = tokio::join!(agent::run(&world.pool, ChatId(id(1)), "workspace8"), daemon);
    let build = |job| format!("SELECT transition || ' ' || workspace_id FROM workspace_builds WHERE job_id = '{job}'");
    let (deleted, started) = (build(deleted), build(started));
    assert_eq!(world.one(&deleted).await, format!("delete {}", id(8)));
    assert_eq!(world.one(&started).await, format!("start {}", id(5)));
    assert_eq!(keys(&reply.expect("a reply"))["started"], true);
}

#[tokio::test]
async fn whoever_acts_as_the_owner_already_needs_no_roles_for_the_numbers() {
    let world = World::new().await;
    let (toolbox, mut conn) = (world.toolbox(), world.rows.database.connect().await);
    let (reply, ()) = tokio::join!(create(&toolbox), async {
        world.until_told().await;
        let fail = "UPDATE users SET status = 'suspended';
                    UPDATE provisioner_jobs SET started_at = now(), completed_at = now(), error = 'insufficient quota',
                        error_code = 'INSUFFICIENT_QUOTA' WHERE type = 'workspace_build'";
        let job = take(&mut conn).await;
        sqlx::raw_sql(fail).execute(&mut conn).await.expect("failed");
        world.watcher.announce(Change { job: job.id, organization: job.organization_id });
    });
    assert_eq!(keys(&reply)["quota"], json!({ "credits_consumed": 0, "budget": 40 }));
}
