//! Who may make and start workspaces from a template: by its lists (`group_acl`, `user_acl`), or by a role.

use std::future;

use coderdb::tools::Tool;

use super::*;

/// User 1 is in group 10 of organization 1, and not in group 11; role `helper` is his in the cases that fill it.
const GROUPS: &str = "
SELECT add_user(2), add_group(10, 1, 'devs'), add_group(11, 1, 'ops');
INSERT INTO group_members (user_id, group_id) VALUES (u(1), u(10));
INSERT INTO custom_roles (name, display_name, organization_id) VALUES ('helper', '', u(1));
SELECT add_version(2, 1), add_job(92);
UPDATE provisioner_jobs SET type = 'template_version_import', started_at = at_second(0), completed_at = at_second(1)
WHERE id = u(92);
UPDATE template_versions SET job_id = u(92) WHERE id = u(2);
CREATE FUNCTION everybody(actions text) RETURNS void LANGUAGE sql AS $$
    UPDATE templates SET group_acl = jsonb_build_object(u(1), actions::jsonb)
$$;
CREATE FUNCTION the_group(n integer, actions text) RETURNS void LANGUAGE sql AS $$
    UPDATE templates SET group_acl = jsonb_build_object(u(n), actions::jsonb)
$$;
CREATE FUNCTION the_user(n integer, actions text) RETURNS void LANGUAGE sql AS $$
    UPDATE templates SET user_acl = jsonb_build_object(u(n), actions::jsonb)
$$;
CREATE FUNCTION helper(permissions text, held text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE custom_roles SET org_permissions = permissions::jsonb WHERE name = 'helper';
    UPDATE organization_members SET roles = held;
$$;
";

const RESET: &str = "
UPDATE templates SET group_acl = '{}', user_acl = '{}', require_active_version = false, active_version_id = u(1);
UPDATE users SET rbac_roles = '{}'; UPDATE organization_members SET roles = '{}';
UPDATE chats SET workspace_id = NULL, build_id = NULL, agent_id = NULL;
DELETE FROM workspaces; DELETE FROM provisioner_jobs WHERE type = 'workspace_build';
INSERT INTO group_members (user_id, group_id) VALUES (u(1), u(10)) ON CONFLICT DO NOTHING;
";

/// What is set up; and whether user 1 may create, start, and start in the active version.
const CASES: &[(&str, [bool; 3])] = &[
    (r#"SELECT everybody('["read", "use"]')"#, [true, true, true]),
    (r#"SELECT everybody('["*"]')"#, [true, true, true]),
    (r#"SELECT everybody('["read"]')"#, [false, true, false]),
    (r#"SELECT everybody('["use"]')"#, [true, false, false]),
    ("SELECT everybody('[]')", [false, false, false]),
    ("SELECT 1", [false, false, false]),
    (r#"SELECT the_group(10, '["read", "use"]')"#, [true, true, true]),
    (r#"SELECT the_group(10, '["*"]')"#, [true, true, true]),
    (r#"SELECT the_group(10, '["read"]')"#, [false, true, false]),
    // The group of others, one that he has left, and one that is gone.
    (r#"SELECT the_group(11, '["read", "use"]')"#, [false, false, false]),
    (r#"SELECT the_group(10, '["*"]'); DELETE FROM group_members"#, [false, false, false]),
    (
        r#"SELECT add_group(12, 1, 'gone'); SELECT the_group(12, '["*"]'); DELETE FROM groups WHERE id = u(12)"#,
        [false, false, false],
    ),
    (r#"SELECT the_user(1, '["read", "use"]')"#, [true, true, true]),
    (r#"SELECT the_user(1, '["*"]')"#, [true, true, true]),
    (r#"SELECT the_user(1, '["read"]')"#, [false, true, false]),
    (r#"SELECT the_user(2, '["read", "use"]')"#, [false, false, false]),
    // The rights of all lists add up.
    (r#"SELECT the_user(1, '["read"]'); SELECT the_group(10, '["use"]')"#, [true, true, true]),
    // Neither list has another form.
    (r#"SELECT the_user(1, '"use"'), the_group(10, '{"read": true, "use": true}')"#, [false, false, false]),
    (r#"SELECT the_user(1, '["USE", "read ", "admin"]')"#, [false, false, false]),
    // Roles.
    ("UPDATE users SET rbac_roles = '{owner}'", [true, true, true]),
    ("UPDATE users SET rbac_roles = '{template-admin}'", [true, true, true]),
    ("UPDATE users SET rbac_roles = '{auditor}'", [false, true, false]),
    ("UPDATE users SET rbac_roles = '{user-admin}'", [false, false, false]),
    ("SELECT helper('[]', '{organization-admin}')", [true, true, true]),
    ("SELECT helper('[]', '{organization-template-admin}')", [true, true, true]),
    ("SELECT helper('[]', '{organization-auditor}')", [false, true, false]),
    ("SELECT helper('[]', '{organization-user-admin}')", [false, false, false]),
    (r#"SELECT helper('[{"resource_type": "template", "action": "*"}]', '{helper}')"#, [true, true, true]),
    (r#"SELECT helper('[{"resource_type": "template", "action": "read"}]', '{helper}')"#, [false, true, false]),
    // A negation takes a role away, and not what the lists give.
    (
        r#"SELECT helper('[{"negate": true, "resource_type": "template", "action": "*"}]', '{helper, organization-admin}')"#,
        [false, false, false],
    ),
    (
        r#"SELECT helper('[{"negate": true, "resource_type": "template", "action": "*"}]', '{helper, organization-admin}');
           SELECT the_user(1, '["read", "use"]')"#,
        [true, true, true],
    ),
];

/// Calls the tool while a daemon carries out whatever comes.
async fn outcome(world: &World, tool: Tool, arguments: Value) -> Reply {
    let toolbox = world.toolbox();
    let daemon = async {
        world.daemon(Ending::Succeeds(&[])).await;
        future::pending().await
    };
    tokio::select! {
        reply = call(&toolbox, tool, arguments) => reply,
        reply = daemon => reply,
    }
}

#[tokio::test]
async fn a_template_is_used_and_started_from_by_those_whom_its_lists_or_a_role_let() {
    let mut world = World::after(GROUPS).await;
    let mut wrong = Vec::new();
    for (setup, may) in CASES {
        for (attempt, may) in ["create", "start", "update"].into_iter().zip(may) {
            world.rows.run(RESET).await;
            world.rows.run(setup).await;
            let (tool, arguments, context) = match attempt {
                "create" => (Tool::CreateWorkspace, template(1), "look up template"),
                _ => (Tool::StartWorkspace, json!({}), "start workspace"),
            };
            if attempt != "create" {
                world.rows.run("SELECT has(5, 'stop', 'succeeded')").await;
            }
            if attempt == "update" {
                let update = "UPDATE templates SET require_active_version = true, active_version_id = u(2)";
                world.rows.run(update).await;
            }
            let before = world.counts().await;
            let reply = outcome(&world, tool, arguments).await;
            let refused = format!("{context}: template not found: {}", id(1));
            let as_expected = match &reply {
                Reply::Structured(keys) => *may && (keys.contains_key("created") || keys.contains_key("started")),
                Reply::Error(text) => !may && *text == refused && world.counts().await == before,
            };
            if !as_expected {
                wrong.push(format!("{setup}: {attempt} should be {may}: {reply:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
