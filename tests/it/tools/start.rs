//! `start_workspace` (domain: starting a workspace).

use coderdb::tools::{CancellationToken, Tool};
use serde_json::json;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn without_a_way_to_start_the_tool_says_so() {
    let world = World::new().await;
    let reply = start(&world.toolbox().operations(None)).await;
    assert_eq!(error(&reply), "workspace starter is not configured");
}

#[tokio::test]
async fn a_chat_without_a_workspace_is_sent_to_create_workspace() {
    let world = World::new().await;
    assert_eq!(error(&start(&world.toolbox()).await), "chat has no workspace; use create_workspace first");
}

#[tokio::test]
async fn what_cannot_be_loaded_is_named() {
    let mut world = World::after("SELECT has(5, 'start', 'succeeded')").await;
    for (sql, expected) in [
        ("DELETE FROM workspace_builds", format!("get latest build: build of the workspace not found: {}", id(5))),
        (
            "ALTER TABLE workspaces RENAME TO gone",
            "load workspace: the database schema is missing or too old".to_owned(),
        ),
        ("DELETE FROM chats", format!("load chat: chat not found: {}", id(1))),
    ] {
        world.rows.run(sql).await;
        let reply = start(&world.toolbox()).await;
        assert!(error(&reply).starts_with(&expected), "{reply:?}");
    }
}

#[tokio::test]
async fn a_deleted_workspace_is_not_started() {
    let world = World::after("SELECT has(5, 'delete', 'succeeded'); UPDATE workspaces SET deleted = true").await;
    let reply = start(&world.toolbox()).await;
    assert_eq!(error(&reply), "workspace was deleted; use create_workspace to make a new one");
}

#[tokio::test]
async fn a_workspace_that_runs_is_left_alone_and_no_roles_are_needed() {
    let mut world = World::after("SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main', 'ready')").await;
    // Nobody can load the roles of somebody who is suspended.
    world.rows.run("UPDATE users SET status = 'suspended'").await;
    let (toolbox, operations) = world.recorded(Answer::Database);
    let before = world.binding().await;
    assert_golden("already running", &start(&toolbox).await, id(0));
    assert!(operations.starts().is_empty());
    assert_eq!((world.binding().await, world.told()), (before, 0));
}

#[tokio::test]
async fn of_several_agents_the_one_for_chats_is_dialed() {
    let world = World::after(
        "SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'a', 'ready'), add_agent(52, 5, 'z-Coderd-Chat', 'ready')",
    )
    .await;
    let dials = Dials::after(0);
    let reply = start(&world.toolbox().connector(dials.clone())).await;
    assert_eq!(keys(&reply).get("agent_status"), None);
    assert_eq!(dials.dialed(), [WorkspaceAgentId(id(52))]);
}

#[tokio::test]
async fn a_workspace_that_runs_without_agents_is_started_all_the_same() {
    let world = World::after("SELECT has(5, 'start', 'succeeded')").await;
    assert_golden("no agent", &start(&world.toolbox()).await, id(0));
}

#[tokio::test]
async fn two_agents_for_chats_are_an_error_of_the_selection_only() {
    let world = World::after(
        "SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'b-coderd-chat'), add_agent(52, 5, 'a-coderd-chat')",
    )
    .await;
    let dials = Dials::after(0);
    assert_golden("selection error", &start(&world.toolbox().connector(dials.clone())).await, id(0));
    assert!(dials.dialed().is_empty());
}

#[tokio::test]
async fn a_stopped_workspace_is_started_and_the_chat_is_bound_to_the_build() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let (toolbox, operations) = world.recorded(Answer::Database);
    let (reply, job) = world.built(&toolbox, Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
    let build = world.newest_build().await;
    assert_golden("started", &reply, build);
    let starts = operations.starts();
    let [start] = starts.as_slice() else { panic!("{starts:?}") };
    assert_eq!((start.owner.0, start.workspace.0, start.seen.0), (id(1), id(5), id(5)));
    assert_eq!(world.binding().await, format!("{} {build}", id(5)));
    assert_eq!(world.told(), 2);
    let made = format!("SELECT transition || ' ' || build_number FROM workspace_builds WHERE job_id = '{}'", job.id);
    assert_eq!(world.one(&made).await, "start 2");
    assert_eq!(
        world.one("SELECT initiator_id FROM provisioner_jobs ORDER BY created_at DESC LIMIT 1").await,
        id(1).to_string()
    );
}

/// Version 2 of the template, the active one, and required.
const NEW_VERSION: &str = "SELECT add_version(2, 1);
    UPDATE template_versions SET job_id = u(90);
    UPDATE templates SET active_version_id = u(2), require_active_version = true;";

#[tokio::test]
async fn a_workspace_that_gets_another_version_says_so() {
    let mut world = World::after(&format!("SELECT has(5, 'stop', 'succeeded'); {NEW_VERSION}")).await;
    let (reply, _) = world.built(&world.toolbox(), Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
    assert_golden("started with another version", &reply, world.newest_build().await);
}

#[tokio::test]
async fn a_workspace_keeps_its_version_where_its_template_does_not_require_the_active_one() {
    let mut world = World::after(&format!("SELECT has(5, 'stop', 'succeeded'); {NEW_VERSION}")).await;
    world.rows.run("UPDATE templates SET require_active_version = false").await;
    let (reply, _) = world.built(&world.toolbox(), Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
    assert_golden("started", &reply, world.newest_build().await);
}

const INPUT: &str = "SELECT input -> 'rich_parameter_values' FROM provisioner_jobs ORDER BY created_at DESC LIMIT 1";

#[tokio::test]
async fn parameters_are_passed_on_as_a_list_and_others_stay_as_they_were() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let before = r#"UPDATE provisioner_jobs SET input = '{"rich_parameter_values": [
        {"name": "region", "value": "eu"}, {"name": "size", "value": "s"}]}' WHERE id = u(5)"#;
    world.rows.run(before).await;
    let (toolbox, operations) = world.recorded(Answer::Database);
    let arguments = json!({ "parameters": { "size": "xl", "disk": "10" } });
    let _ = world.built(&toolbox, Tool::StartWorkspace, arguments, Ending::Succeeds(&[])).await;
    let given: Vec<_> =
        operations.starts()[0].parameters.iter().map(|given| format!("{}={}", given.name, given.value)).collect();
    assert_eq!(given, ["disk=10", "size=xl"]);
    let stored: Value = serde_json::from_str(&world.one(INPUT).await).expect("JSON");
    let expected = json!([
        { "name": "region", "value": "eu" }, { "name": "disk", "value": "10" }, { "name": "size", "value": "xl" },
    ]);
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn a_refusal_that_names_arguments_names_the_template_too() {
    let world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let (toolbox, _) = world.recorded(Answer::Refuse(refusal(400, Some("parameters"))));
    assert_golden("start refused with validations", &start(&toolbox).await, id(0));
    let (toolbox, _) = world.recorded(Answer::Refuse(refusal(403, None)));
    assert_golden("start refused", &start(&toolbox).await, id(0));
    let nothing = ApiError { message: String::new(), detail: None, ..refusal(500, None) };
    let (toolbox, _) = world.recorded(Answer::Refuse(nothing));
    assert_eq!(keys(&start(&toolbox).await), json!({ "error": "request failed" }));
}

#[tokio::test]
async fn a_version_that_was_not_imported_is_not_started() {
    let world = World::after("SELECT has(5, 'stop', 'succeeded'), stands(90, 'failed')").await;
    let reply = keys(&start(&world.toolbox()).await);
    assert_eq!(reply["validations"][0]["field"], "template_version_id");
    assert_eq!(reply["template_id"], id(1).to_string());
}

#[tokio::test]
async fn a_start_that_is_under_way_is_waited_for_and_bound_early() {
    let mut world = World::after("SELECT has(5, 'start', 'pending')").await;
    let (toolbox, operations) = world.recorded(Answer::Database);
    let reply = {
        let waiting = start(&toolbox);
        tokio::pin!(waiting);
        // Bound before the build ends.
        while world.binding().await != format!("{} {}", id(5), id(5)) {
            assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        }
        tokio::join!(waiting, world.daemon(Ending::Succeeds(&["main"]))).0
    };
    assert_golden("started", &reply, id(5));
    assert!(operations.starts().is_empty());
    assert_eq!(world.told(), 2);
}

#[tokio::test]
async fn a_workspace_whose_build_failed_or_was_canceled_is_started() {
    for status in ["failed", "canceled"] {
        let mut world = World::after(&format!("SELECT has(5, 'start', '{status}')")).await;
        let (toolbox, operations) = world.recorded(Answer::Database);
        let (reply, _) = world.built(&toolbox, Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
        assert_golden("started", &reply, world.newest_build().await);
        assert_eq!(operations.starts().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_stops_or_is_canceled_ends_first_and_then_the_workspace_is_started() {
    for (transition, status, after) in [
        ("stop", "pending", "succeeded"),
        ("stop", "running", "failed"),
        ("start", "canceling", "canceled"),
        ("stop", "canceling", "canceled"),
    ] {
        let mut world = World::after(&format!("SELECT has(5, '{transition}', '{status}')")).await;
        let (toolbox, operations) = world.recorded(Answer::Database);
        let waiting = start(&toolbox);
        tokio::pin!(waiting);
        while world.told() == 0 {
            assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        }
        assert!(operations.starts().is_empty(), "{transition} {status}");
        world.rows.run(&format!("SELECT stands(5, '{after}')")).await;
        world.watcher.announce(Change { job: id(5).into(), organization: id(1).into() });
        let (reply, _) = tokio::join!(waiting, world.daemon(Ending::Succeeds(&["main"])));
        assert_golden("started", &reply, world.newest_build().await);
        assert_eq!(operations.starts().len(), 1, "{transition} {status}");
    }
}

#[tokio::test]
async fn a_workspace_that_is_deleted_while_the_call_waits_is_not_started() {
    let mut world = World::after("SELECT has(5, 'delete', 'running')").await;
    let toolbox = world.toolbox();
    let waiting = start(&toolbox);
    tokio::pin!(waiting);
    while world.told() == 0 {
        assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    }
    world.rows.run("SELECT stands(5, 'succeeded'); UPDATE workspaces SET deleted = true").await;
    world.watcher.announce(Change { job: id(5).into(), organization: id(1).into() });
    assert_eq!(error(&waiting.await), "workspace was deleted; use create_workspace to make a new one");
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_of_which_build() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let (reply, _) = world.built(&world.toolbox(), Tool::StartWorkspace, json!({}), Ending::Fails("boom")).await;
    assert_golden("start failed", &reply, world.newest_build().await);
    let world = World::after("SELECT has(5, 'start', 'pending')").await;
    let reply = world.under_way(&world.toolbox(), Tool::StartWorkspace, json!({}), Ending::Fails("boom")).await;
    assert_golden("start in progress failed", &reply, id(5));
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_a_failure_and_so_is_a_call_that_is_canceled() {
    let world = World::after("SELECT has(5, 'start', 'pending')").await;
    let impatient = Settings { build_timeout: Duration::from_millis(50), ..SETTINGS };
    let reply = keys(&start(&world.toolbox().settings(impatient)).await);
    let text = reply["error"].as_str().expect("a text");
    let expected = "waiting for in-progress build: timed out waiting for workspace build: the provisioner job ";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(reply["build_id"], id(5).to_string());

    let (cancel, toolbox) = (CancellationToken::new(), world.toolbox());
    world.told.lock().expect("no panic").clear();
    let waiting = call_until(&toolbox, Tool::StartWorkspace, json!({}), &cancel);
    let (reply, ()) = tokio::join!(waiting, async {
        world.until_told().await;
        cancel.cancel();
    });
    let text = "waiting for in-progress build: timed out waiting for workspace build: the call was canceled";
    assert_eq!(keys(&reply), json!({ "error": text, "build_id": id(5) }));
}

#[tokio::test]
async fn roles_that_cannot_be_loaded_are_an_error_where_they_are_needed() {
    let world = World::after("SELECT has(5, 'stop', 'succeeded'); UPDATE users SET status = 'suspended'").await;
    let reply = start(&world.toolbox()).await;
    assert!(error(&reply).starts_with("user1, who owns this chat, is suspended: "), "{reply:?}");
}

#[tokio::test]
async fn bad_arguments_are_named_with_what_is_expected() {
    let world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    for (arguments, expected) in [
        (
            json!({ "parameters": { "size": 4 } }),
            "invalid parameters.size: invalid type: integer `4`, expected a string",
        ),
        (json!({ "parameters": [] }), "invalid parameters: invalid type: sequence, expected a map"),
        (json!({ "parameter": {} }), "invalid parameter: unknown field `parameter`, expected `parameters`"),
        (json!("now"), "invalid arguments: expected an object"),
    ] {
        assert_eq!(error(&call(&world.toolbox(), Tool::StartWorkspace, arguments).await), expected);
    }
}

#[tokio::test]
async fn a_dormant_workspace_that_is_started_is_not_deleted_while_it_runs() {
    let dormant = "SELECT has(5, 'stop', 'succeeded');
                   UPDATE workspaces SET dormant_at = at_second(0), deleting_at = at_second(9)";
    let mut world = World::after(dormant).await;
    let toolbox = world.toolbox();
    let (reply, _) = world.built(&toolbox, Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
    assert_eq!(keys(&reply)["started"], true);
    let stands =
        "SELECT concat_ws(' ', dormant_at IS NULL, deleting_at IS NULL, last_used_at > at_second(9)) FROM workspaces";
    assert_eq!(world.one(stands).await, "t t t");
}
