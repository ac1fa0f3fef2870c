//! `create_workspace` for a chat that has a workspace (domain: creating a workspace).

use coderdb::tools::Tool;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_workspace_whose_agent_is_connected_is_kept_and_not_dialed_and_no_roles_are_needed() {
    let mut world =
        World::after("SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main', 'ready'), alive(0)").await;
    world.rows.run("UPDATE users SET status = 'suspended'").await;
    let dials = Dials::after(0);
    assert_golden("already connected", &create(&world.toolbox().connector(dials.clone())).await, id(0));
    assert!(dials.dialed().is_empty());
    assert_eq!((world.counts().await.as_str(), world.told()), ("1 1 1", 0));
}

#[tokio::test]
async fn a_workspace_that_can_be_used_wins_over_a_bad_template() {
    let world = World::after("SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main', 'ready'), alive(0)").await;
    let reply = call(&world.toolbox(), Tool::CreateWorkspace, template(404)).await;
    assert_eq!(keys(&reply)["status"], "already_exists");
}

#[tokio::test]
async fn an_agent_that_still_connects_is_dialed_until_it_can_be_reached() {
    let world = World::after("SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main', 'ready')").await;
    let dials = Dials::after(3);
    assert_golden("still connecting", &create(&world.toolbox().connector(dials.clone())).await, id(0));
    assert_eq!(dials.dialed(), [WorkspaceAgentId(id(51)); 4]);
}

#[tokio::test]
async fn where_none_can_be_chosen_the_first_agent_says_whether_the_workspace_lives() {
    let world = World::after(
        "SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'b-coderd-chat', 'ready'),
             add_agent(52, 5, 'a-coderd-chat', 'ready')",
    )
    .await;
    let dials = Dials::after(0);
    let reply = create(&world.toolbox().connector(dials.clone())).await;
    assert_eq!(keys(&reply)["status"], "already_exists");
    assert_eq!(dials.dialed(), [WorkspaceAgentId(id(52))]);
}

#[tokio::test]
async fn a_stopped_workspace_is_for_start_workspace() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    assert_golden("stopped", &create(&world.toolbox()).await, id(0));
    assert_eq!(world.counts().await, "1 1 1");
}

#[tokio::test]
async fn a_workspace_that_cannot_be_used_is_replaced() {
    for state in [
        "SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main'), alive(120)",
        "SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main'); UPDATE workspace_agents
             SET connection_timeout_seconds = 1",
        "SELECT has(5, 'start', 'succeeded')",
        "SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main'), alive(0); UPDATE workspaces SET deleted = true",
        "SELECT has(5, 'start', 'failed')",
        "SELECT has(5, 'start', 'canceled')",
        "SELECT has(5, 'start', 'canceling')",
        "SELECT has(5, 'delete', 'succeeded')",
        "SELECT has(5, 'start', 'succeeded'); DELETE FROM workspace_builds",
    ] {
        let mut world = World::after(state).await;
        let (reply, _) =
            world.built(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
        assert_golden("created", &reply, world.newest_build().await);
        assert_eq!(world.one("SELECT count(*) FROM workspaces").await, "2", "{state}");
    }
}

#[tokio::test]
async fn a_build_that_is_under_way_is_waited_for() {
    let mut world = World::after("SELECT has(5, 'start', 'pending')").await;
    let dials = Dials::after(1);
    let toolbox = world.toolbox().connector(dials.clone());
    let reply = world.under_way(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    assert_golden("build completed", &reply, id(5));
    assert_eq!(dials.dialed().len(), 2);
    assert_eq!((world.counts().await, world.binding().await), ("1 1 1".to_owned(), format!("{} {}", id(5), id(5))));
}

#[tokio::test]
async fn a_build_that_is_under_way_and_fails_says_of_which_build() {
    let world = World::after("SELECT has(5, 'start', 'pending')").await;
    let reply = world.under_way(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Fails("boom")).await;
    assert_golden("existing build failed", &reply, id(5));
}

#[tokio::test]
async fn a_chat_or_a_workspace_that_cannot_be_loaded_is_an_error() {
    let mut world = World::after("SELECT has(5, 'start', 'succeeded')").await;
    for (sql, expected) in [
        ("ALTER TABLE workspaces RENAME TO gone", "load workspace: the database schema is missing or too old"),
        ("DELETE FROM chats", "load chat: chat not found: "),
    ] {
        world.rows.run(sql).await;
        let reply = call(&world.toolbox(), Tool::CreateWorkspace, json!({ "template_id": id(1) })).await;
        assert!(error(&reply).starts_with(expected), "{reply:?}");
    }
}
