//! `create_workspace` for a chat that has no workspace that can be used (domain: creating a workspace).

use coderdb::{
    model::{OrganizationId, PresetId, TemplateId},
    tools::{CancellationToken, Tool},
};
use serde_json::json;

use super::*;

const TTL: &str = "SELECT ttl FROM workspaces";

#[tokio::test]
async fn without_a_way_to_create_the_tool_says_so() {
    let world = World::new().await;
    let reply = create(&world.toolbox().operations(None)).await;
    assert_eq!(error(&reply), "workspace creator is not configured");
}

#[tokio::test]
async fn bad_arguments_are_named_with_what_is_expected() {
    let world = World::new().await;
    let template = id(1);
    let required = "template_id is required; use list_templates to find one";
    for (arguments, expected) in [
        (json!(null), required),
        (json!({}), required),
        (json!({ "template_id": " " }), required),
        (json!({ "template_id": null }), required),
        (json!({ "template_id": 5 }), "invalid template_id: invalid type: integer `5`, expected a string"),
        (json!({ "template_id": template, "name": ["x"] }), "invalid name: invalid type: sequence, expected a string"),
        (
            json!({ "template_id": template, "parameters": { "a": true } }),
            "invalid parameters.a: invalid type: boolean `true`, expected a string",
        ),
        (json!([]), "invalid arguments: expected an object"),
    ] {
        let reply = call(&world.toolbox(), Tool::CreateWorkspace, arguments.clone()).await;
        assert_eq!(error(&reply), expected, "{arguments}");
    }
    for (arguments, start, end) in [
        (json!({ "template_id": "docker" }), "invalid template_id: ", "; expected a UUID"),
        (json!({ "template_id": template, "preset_id": "large" }), "invalid preset_id: ", "; expected a UUID"),
        (
            json!({ "template_id": template, "templates": 1 }),
            "invalid templates: unknown field `templates`, expected one of",
            "`preset_id`",
        ),
    ] {
        let reply = call(&world.toolbox(), Tool::CreateWorkspace, arguments).await;
        assert!(error(&reply).starts_with(start) && error(&reply).ends_with(end), "{reply:?}");
    }
}

#[tokio::test]
async fn a_template_that_chats_may_not_use_is_refused_and_an_empty_list_allows_all() {
    let world = World::new().await;
    let allows = |ids: Vec<TemplateId>| world.toolbox().allowed_templates(Arc::new(move || ids.clone()));
    let refused = "template not available for chat workspaces; use list_templates to find allowed templates";
    assert_eq!(error(&create(&allows(vec![id(2).into()])).await), refused);
    for allowed in [vec![], vec![id(1).into()]] {
        let (reply, _) = world
            .built(&allows(allowed), Tool::CreateWorkspace, json!({ "template_id": id(1) }), Ending::Fails("boom"))
            .await;
        assert!(!reply.is_error(), "{reply:?}");
    }
}

#[tokio::test]
async fn a_workspace_is_created_built_and_bound_and_its_agent_awaited() {
    let mut world = World::new().await;
    let dials = Dials::after(2);
    let toolbox = world.toolbox().connector(dials.clone());
    let (reply, job) =
        world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["b-coderd-chat", "a"])).await;
    let build = world.newest_build().await;
    assert_golden("created", &reply, build);
    assert_eq!(world.counts().await, "1 1 1");
    let workspace = world.one("SELECT id FROM workspaces").await;
    assert_eq!(world.binding().await, format!("{workspace} {build}"));
    // After the binding, and when it is ready.
    let told = world.told.lock().expect("no panic").clone();
    assert_eq!(told.iter().filter_map(|chat| chat.binding.build_id).map(|id| id.0).collect::<Vec<_>>(), [build, build]);
    let stored = "SELECT concat_ws(' ', w.owner_id, w.organization_id, w.template_id, b.template_version_id, b.transition,
                      b.build_number, b.initiator_id, j.initiator_id, j.file_id, j.tags)
                  FROM workspaces w JOIN workspace_builds b ON b.workspace_id = w.id JOIN provisioner_jobs j ON j.id = b.job_id";
    let one = id(1);
    let expected = format!("{one} {one} {one} {one} start 1 {one} {one} {} {{\"scope\": \"organization\"}}", id(0));
    assert_eq!(world.one(stored).await, expected);
    assert_eq!(job.organization_id, OrganizationId(one));
    let chosen = "SELECT id FROM workspace_agents WHERE name = 'b-coderd-chat'";
    let chosen = WorkspaceAgentId(world.one(chosen).await.parse().expect("an id"));
    assert_eq!(dials.dialed(), [chosen; 3]);
}

#[tokio::test]
async fn two_agents_for_chats_are_an_error_of_the_selection_and_none_is_dialed() {
    let mut world = World::new().await;
    let dials = Dials::after(0);
    let names = &["a-coderd-chat", "b-coderd-chat"];
    let toolbox = world.toolbox().connector(dials.clone());
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(names)).await;
    assert_golden("created with a selection error", &reply, world.newest_build().await);
    assert!(dials.dialed().is_empty());
}

#[tokio::test]
async fn a_build_without_agents_is_a_workspace_all_the_same() {
    let mut world = World::new().await;
    let (reply, _) = world.built(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Succeeds(&[])).await;
    assert_golden("created without an agent", &reply, world.newest_build().await);
}

#[tokio::test]
async fn an_agent_that_cannot_be_reached_is_not_ready_and_the_last_error_says_why() {
    let mut world = World::new().await;
    let toolbox = world.toolbox().connector(Dials::after(usize::MAX));
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    assert_golden("created with an agent that is not ready", &reply, world.newest_build().await);
}

/// A connector that never answers.
struct Silence;

impl Connector for Silence {
    fn connect(&self, _: WorkspaceAgentId) -> BoxFuture<'_, Result<Box<dyn Send>, ForeignError>> {
        std::future::pending().boxed()
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up() {
    let world = World::new().await;
    let toolbox = world.toolbox().connector(Arc::new(Silence));
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    assert_eq!(keys(&reply)["agent_error"], "no answer within 50ms");
}

/// A workspace that starts, whose agent is there and stands like this.
async fn with_agent(state: &str) -> World {
    World::after(&format!("SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main', '{state}'), alive(0)")).await
}

#[tokio::test]
async fn start_up_scripts_that_fail_are_reported_with_the_state_of_the_agent() {
    for state in ["start_timeout", "start_error", "shutting_down", "shutdown_timeout", "shutdown_error", "off"] {
        let reply = keys(&create(&with_agent(state).await.toolbox()).await);
        assert_eq!(
            (&reply["startup_scripts"], &reply["lifecycle_state"]),
            (&json!("startup_scripts_failed"), &json!(state))
        );
    }
}

#[tokio::test]
async fn start_up_scripts_are_waited_for_and_their_timeout_and_a_cancellation_are_told_apart() {
    let mut world = with_agent("created").await;
    let toolbox = world.toolbox();
    let waiting = create(&toolbox);
    tokio::pin!(waiting);
    for state in ["starting", "ready"] {
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "before {state}");
        world.rows.run(&format!("UPDATE workspace_agents SET lifecycle_state = '{state}'")).await;
    }
    assert_eq!(keys(&waiting.await).get("startup_scripts"), None);

    world.rows.run("UPDATE workspace_agents SET lifecycle_state = 'starting'").await;
    let impatient = Settings { startup_timeout: Duration::from_millis(50), ..SETTINGS };
    let reply = create(&world.toolbox().settings(impatient)).await;
    assert_eq!(keys(&reply)["startup_scripts"], "startup_scripts_timeout");

    let (cancel, toolbox) = (CancellationToken::new(), world.toolbox());
    let waiting = call_until(&toolbox, Tool::CreateWorkspace, template(1), &cancel);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    cancel.cancel();
    assert_eq!(keys(&waiting.await)["startup_scripts"], "startup_scripts_unknown");
}

#[tokio::test]
async fn no_time_to_wait_is_too_short_or_too_long() {
    let (none, ever) = (Duration::ZERO, Duration::MAX);
    let extreme = Settings {
        build_timeout: ever,
        agent_connect_timeout: ever,
        agent_retry_interval: none,
        agent_attempt_timeout: ever,
        startup_timeout: ever,
        startup_poll_interval: none,
        agent_inactive_timeout: ever,
        quota_timeout: ever,
    };
    let world = World::new().await;
    let toolbox = world.toolbox().settings(extreme).connector(Dials::after(2));
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    assert_eq!(keys(&reply)["created"], true);
    assert_eq!(keys(&create(&toolbox).await)["status"], "already_exists");
}

#[tokio::test]
async fn that_the_database_fails_now_and_then_does_not_end_the_wait_for_an_agent() {
    let mut world = with_agent("starting").await;
    let toolbox = world.toolbox();
    let waiting = create(&toolbox);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    world.rows.run("ALTER TABLE workspace_agents RENAME TO elsewhere").await;
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    world
        .rows
        .run("ALTER TABLE elsewhere RENAME TO workspace_agents; UPDATE workspace_agents SET lifecycle_state = 'ready'")
        .await;
    assert_eq!(keys(&waiting.await).get("startup_scripts"), None);
}

#[tokio::test]
async fn a_build_that_fails_leaves_the_chat_bound_and_the_next_call_makes_another_workspace() {
    let mut world = World::new().await;
    let toolbox = world.toolbox();
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Fails("boom")).await;
    let build = world.newest_build().await;
    assert_golden("create failed", &reply, build);
    assert!(world.binding().await.ends_with(&build.to_string()));
    assert_eq!(world.told(), 1);
    // The name is taken by now: the new one has another.
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    let name = keys(&reply)["workspace_name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("user1/dev-") && name.len() == "user1/dev-".len() + 4, "{name}");
    assert_eq!(world.counts().await, "2 2 2");
}

#[tokio::test]
async fn a_build_that_is_canceled_says_so() {
    let mut world = World::after("SELECT has(5, 'start', 'pending')").await;
    let (toolbox, mut conn) = (world.toolbox(), world.rows.database.connect().await);
    let (reply, ()) = tokio::join!(create(&toolbox), async {
        world.until_told().await;
        sqlx::raw_sql("SELECT stands(5, 'canceled')").execute(&mut conn).await.expect("canceled");
        world.watcher.announce(Change { job: id(5).into(), organization: id(1).into() });
    });
    assert_eq!(keys(&reply)["error"], "existing workspace build failed: build was canceled");
    assert_eq!(world.counts().await, "1 1 1");
}

#[tokio::test]
async fn a_refusal_keeps_its_detail_and_its_validations() {
    let world = World::new().await;
    let (toolbox, operations) = world.recorded(Answer::Refuse(refusal(400, Some("parameters"))));
    assert_golden("create refused", &create(&toolbox).await, id(0));
    assert_eq!(operations.creates().len(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_is_replaced_once_by_a_generated_one() {
    for (refused, calls) in
        [(refusal(409, Some("name")), 2), (refusal(409, Some("ttl_ms")), 1), (refusal(400, Some("name")), 1)]
    {
        let world = World::new().await;
        let (toolbox, operations) = world.recorded(Answer::Refuse(refused));
        assert!(keys(&create(&toolbox).await).get("error").is_some());
        let names: Vec<_> = operations.creates().into_iter().map(|new| new.name.to_string()).collect();
        assert_eq!(names.len(), calls);
        assert_eq!(names[0], "dev");
        assert!(names[1..].iter().all(|name| name.starts_with("dev-")), "{names:?}");
    }
    let world = World::new().await;
    let (toolbox, _) = world.recorded(Answer::RefuseOnce(refusal(409, Some("name"))));
    let (reply, _) = world.built(&toolbox, Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    assert!(keys(&reply)["workspace_name"].as_str().is_some_and(|name| name.starts_with("user1/dev-")), "{reply:?}");
}

#[tokio::test]
async fn a_name_that_is_missing_or_not_valid_is_generated() {
    for (name, expected) in [
        (json!(null), "template1-"),
        (json!(" "), "template1-"),
        (json!("My box!"), "my-box-"),
        (json!("new"), "new-"),
        (json!(" create "), "create-"),
    ] {
        let world = World::new().await;
        let (toolbox, operations) = world.recorded(Answer::Refuse(refusal(400, None)));
        let _ = call(&toolbox, Tool::CreateWorkspace, json!({ "template_id": id(1), "name": name })).await;
        let made = operations.creates()[0].name.to_string();
        assert!(made.starts_with(expected) && made.len() == expected.len() + 4, "{made}");
    }
    let world = World::new().await;
    let (toolbox, operations) = world.recorded(Answer::Refuse(refusal(400, None)));
    let _ = call(&toolbox, Tool::CreateWorkspace, json!({ "template_id": id(1), "name": "  A-1 " })).await;
    assert_eq!(operations.creates()[0].name.as_str(), "A-1");
}

#[tokio::test]
async fn the_site_says_how_long_workspaces_of_chats_live_or_else_their_template() {
    let week = 7 * 24 * 3_600_000_000_000_i64;
    for (sql, expected) in [
        ("INSERT INTO site_configs VALUES ('agents_workspace_ttl', '2h')", 7_200_000_000_000),
        ("INSERT INTO site_configs VALUES ('agents_workspace_ttl', '0s')", week),
        ("INSERT INTO site_configs VALUES ('agents_workspace_ttl', 'two hours')", week),
        ("INSERT INTO site_configs VALUES ('agents_workspace_ttl', '3000000h')", week),
        ("ALTER TABLE site_configs RENAME TO gone", week),
        ("SELECT", week),
        (
            "INSERT INTO site_configs VALUES ('agents_workspace_ttl', '2h'); UPDATE templates SET allow_user_autostop = false",
            week,
        ),
    ] {
        let mut world = World::after(sql).await;
        let (reply, _) =
            world.built(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
        assert_eq!(keys(&reply)["created"], true, "{sql}");
        assert_eq!(world.one(TTL).await, expected.to_string(), "{sql}");
    }
    let world = World::after("INSERT INTO site_configs VALUES ('agents_workspace_ttl', '1.0000005h')").await;
    let (toolbox, operations) = world.recorded(Answer::Refuse(refusal(400, None)));
    let _ = create(&toolbox).await;
    // Whole milliseconds.
    assert_eq!(operations.creates()[0].ttl, Some(Duration::from_millis(3_600_001)));
}

#[tokio::test]
async fn a_template_of_another_organization_is_refused_where_the_owner_may_know_of_it() {
    let setup = "SELECT add_organization(2);
                 UPDATE templates SET organization_id = u(2), group_acl = jsonb_build_object(u(2), everyone())";
    let mut world = World::after(setup).await;
    let (toolbox, operations) = world.recorded(Answer::Database);
    let unknown = format!("look up template: template not found: {}", id(1));
    assert_eq!(error(&create(&toolbox).await), unknown);
    world.rows.run("SELECT add_member(2, 1)").await;
    let other = "template belongs to a different organization than this chat; use list_templates to find templates in the \
                 correct organization";
    assert_eq!(error(&create(&toolbox).await), other);
    assert!(operations.creates().is_empty());
    let reply = call(&toolbox, Tool::CreateWorkspace, json!({ "template_id": id(404) })).await;
    assert_eq!(error(&reply), format!("look up template: template not found: {}", id(404)));
}

#[tokio::test]
async fn a_template_whose_agents_somebody_starts_by_hand_is_refused() {
    let mut world = World::after("UPDATE template_versions SET has_external_agent = true").await;
    assert!(error(&create(&world.toolbox()).await).starts_with("template has external agents"));
    assert_eq!(world.counts().await, "0 0 0");
}

#[tokio::test]
async fn what_the_database_refuses_is_said_in_fields() {
    for (sql, arguments, error, field) in [
        ("UPDATE templates SET deleted = true", template(1), "The template \"template1\" was deleted.", None),
        (
            "UPDATE templates SET deprecated = 'Use another.'",
            template(1),
            "The template \"template1\" is deprecated: no new workspaces can be made from it.",
            None,
        ),
        ("SELECT stands(90, 'running')", template(1), "The template id is not valid.", Some("template_id")),
        ("SELECT stands(90, 'failed')", template(1), "The template id is not valid.", Some("template_id")),
        (
            "UPDATE template_versions SET archived = true",
            template(1),
            "The template id is not valid.",
            Some("template_id"),
        ),
        (
            "UPDATE templates SET active_version_id = u(404)",
            template(1),
            "The template id is not valid.",
            Some("template_id"),
        ),
        (
            "SELECT add_version(2, 1), add_preset(2, 2)",
            json!({ "template_id": id(1), "preset_id": id(2) }),
            "The preset id is not valid.",
            Some("preset_id"),
        ),
        (
            "SELECT",
            json!({ "template_id": id(1), "parameters": { "a": "\0" } }),
            "The parameters is not valid.",
            Some("parameters"),
        ),
    ] {
        let mut world = World::after(sql).await;
        let reply = keys(&call(&world.toolbox(), Tool::CreateWorkspace, arguments).await);
        assert_eq!(reply["error"], error, "{sql}");
        assert_eq!(reply["validations"][0]["field"].as_str(), field, "{sql}");
        assert_eq!((world.counts().await.as_str(), world.binding().await.as_str()), ("0 0 0", ""), "{sql}");
    }
    let world = World::after("UPDATE templates SET deprecated = 'Use another.'").await;
    assert_eq!(keys(&create(&world.toolbox()).await)["detail"], "Use another.");
}

#[tokio::test]
async fn a_preset_and_parameters_reach_the_build() {
    for parameters in [json!({}), json!({ "size": "xl", "region": "eu" })] {
        let mut world = World::new().await;
        let (toolbox, operations) = world.recorded(Answer::Database);
        let arguments = json!({ "template_id": id(1), "preset_id": format!(" {} ", id(1)), "parameters": parameters });
        let _ = world.built(&toolbox, Tool::CreateWorkspace, arguments, Ending::Succeeds(&[])).await;
        assert_eq!(operations.creates()[0].preset, Some(PresetId(id(1))));
        assert_eq!(world.one("SELECT template_version_preset_id FROM workspace_builds").await, id(1).to_string());
        let names = "SELECT string_agg(p ->> 'name' || '=' || (p ->> 'value'), ' ')
                     FROM provisioner_jobs, jsonb_array_elements(input -> 'rich_parameter_values') AS p";
        assert_eq!(world.one(names).await, if parameters == json!({}) { "-" } else { "region=eu size=xl" });
    }
}

#[tokio::test]
async fn a_version_for_the_daemons_of_one_user_is_built_by_those_of_the_owner() {
    let mut world =
        World::after(r#"UPDATE provisioner_jobs SET tags = '{"scope": "user", "owner": "somebody"}'"#).await;
    let toolbox = world.toolbox();
    let waiting = create(&toolbox);
    tokio::pin!(waiting);
    while world.counts().await != "1 1 1" {
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    }
    let tags = "SELECT tags FROM provisioner_jobs WHERE type = 'workspace_build'";
    assert_eq!(world.one(tags).await, format!("{{\"owner\": \"{}\", \"scope\": \"user\"}}", id(1)));
}

#[tokio::test]
async fn roles_that_cannot_be_loaded_are_an_error() {
    let mut world = World::after("UPDATE users SET status = 'suspended'").await;
    let expected = "user1, who owns this chat, is suspended: nobody can act for this user; activate the user, or use \
                    another chat";
    assert_eq!(error(&create(&world.toolbox()).await), expected);
    world.rows.run("UPDATE users SET status = 'active', deleted = true").await;
    assert!(error(&create(&world.toolbox()).await).starts_with("user1, who owns this chat, is deleted: "));
    assert_eq!(world.counts().await, "0 0 0");
}
