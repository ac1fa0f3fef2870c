//! Triggers.

use super::Schema;

#[tokio::test]
async fn an_organization_cannot_be_deleted_while_it_has_workspaces_templates_keys_groups_or_members() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_organization(2), add_user(2);
             SELECT add_group(2, 2, 'Everyone'), add_member(2, 1);
             UPDATE templates SET organization_id = u(2), deleted = true;
             UPDATE workspaces SET organization_id = u(2), deleted = true",
        )
        .await;
    let delete = "UPDATE organizations SET deleted = true WHERE id = u(2)";
    for (setup, expected) in [
        ("", "ok"),
        ("UPDATE templates SET deleted = false", "1 templates"),
        ("UPDATE workspaces SET deleted = false", "1 workspaces"),
        ("INSERT INTO provisioner_keys VALUES (u(1), now(), u(2), 'k', '', '{}')", "1 provisioner keys"),
        ("SELECT add_group(3, 2, 'devs')", "1 groups"),
        ("SELECT add_member(2, 2)", "1 members"),
        ("SELECT add_member(2, 2); UPDATE users SET deleted = true WHERE id = u(2)", "ok"),
        ("DELETE FROM groups; DELETE FROM organization_members", "ok"),
    ] {
        let outcome = schema.outcome(&format!("{setup}; {delete}")).await;
        let right =
            if expected == "ok" { outcome == "ok" } else { outcome.starts_with("P0001") && outcome.contains(expected) };
        assert!(right, "{setup}: expected {expected}, got {outcome}");
    }
    schema.run(delete).await;
    schema
        .outcomes(&[
            (
                "SELECT add_group(3, 2, 'devs'); \
                 UPDATE organizations SET name = 'other', deleted = true WHERE id = u(2)",
                "ok",
            ),
            ("UPDATE organizations SET description = 'with a template' WHERE id = u(1)", "ok"),
        ])
        .await;
}

#[tokio::test]
async fn a_new_organization_gets_its_three_system_roles() {
    let mut schema = Schema::with_rows().await;
    let roles = r#"SELECT name, is_system, organization_id = u(1) AS org FROM custom_roles ORDER BY name COLLATE "C""#;
    let expected =
        ["agents-access true true", "organization-member true true", "organization-service-account true true"];
    assert_eq!(schema.rows(roles).await, expected);
}

#[tokio::test]
async fn who_leaves_an_organization_leaves_its_groups_and_no_others() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_organization(2), add_user(2);
             SELECT add_group(10, 1, 'a'), add_group(11, 1, 'b'), add_group(20, 2, 'c');
             SELECT add_member(1, 1), add_member(1, 2), add_member(2, 1);
             INSERT INTO group_members (user_id, group_id)
             VALUES (u(1), u(10)), (u(1), u(11)), (u(1), u(20)), (u(2), u(10));
             DELETE FROM organization_members WHERE organization_id = u(1) AND user_id = u(1)",
        )
        .await;
    let left = "SELECT u.username, g.name FROM group_members INNER JOIN users AS u ON u.id = user_id \
                INNER JOIN groups AS g ON g.id = group_id ORDER BY 1, 2";
    assert_eq!(schema.rows(left).await, ["user1 c", "user2 a"]);
}

#[tokio::test]
async fn a_deleted_user_loses_api_keys_and_links_and_gets_no_new_ones() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_user(2);
             INSERT INTO api_keys (id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, login_type,
                 scopes, allow_list)
             SELECT 'key' || n, '', u(n), now(), now(), now(), now(), 'token', '{coder:all}', '{*:*}'
             FROM generate_series(1, 2) AS n;
             INSERT INTO user_links SELECT u(n), 'oidc' FROM generate_series(1, 2) AS n;
             UPDATE users SET name = 'still here' WHERE id = u(2);
             UPDATE users SET deleted = true WHERE id = u(1)",
        )
        .await;
    assert_eq!(schema.rows("SELECT user_id = u(2) AS two FROM api_keys").await, ["true"]);
    assert_eq!(schema.rows("SELECT user_id = u(2) AS two FROM user_links").await, ["true"]);
    schema
        .outcomes(&[
            (
                "INSERT INTO api_keys (id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, \
                 login_type, scopes, allow_list) \
                 SELECT 'key', '', u(1), now(), now(), now(), now(), 'token', '{coder:all}', '{*:*}'",
                "P0001",
            ),
            ("INSERT INTO user_links (user_id, login_type) VALUES (u(1), 'oidc')", "P0001"),
            ("UPDATE user_links SET user_id = u(1)", "P0001"),
        ])
        .await;
}

#[tokio::test]
async fn a_deleted_role_leaves_the_members_of_its_organization() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_organization(2), add_user(2);
             INSERT INTO custom_roles (name, display_name, organization_id)
             VALUES ('helper', '', u(1)), ('helper', '', u(2));
             SELECT add_member(1, 1), add_member(1, 2), add_member(2, 1);
             UPDATE organization_members SET roles = '{helper,other}';
             DELETE FROM custom_roles WHERE name = 'helper' AND organization_id = u(1)",
        )
        .await;
    let roles = "SELECT right(organization_id::text, 1) AS o, right(user_id::text, 1) AS u, roles::text \
                 FROM organization_members ORDER BY 1, 2";
    assert_eq!(schema.rows(roles).await, ["1 1 {other}", "1 2 {other}", "2 1 {helper,other}"]);
}

#[tokio::test]
async fn status_changes_and_deletions_of_users_are_recorded_once() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "UPDATE users SET status = 'suspended', updated_at = at_second(10) WHERE id = u(1);
             UPDATE users SET status = 'suspended', updated_at = at_second(11) WHERE id = u(1);
             UPDATE users SET name = 'x', updated_at = at_second(12) WHERE id = u(1);
             UPDATE users SET deleted = true, updated_at = at_second(13) WHERE id = u(1);
             UPDATE users SET deleted = true, updated_at = at_second(14) WHERE id = u(1)",
        )
        .await;
    let changes = "SELECT new_status, extract(EPOCH FROM changed_at - at_second(0))::integer AS s \
                   FROM user_status_changes WHERE user_id = u(1) ORDER BY changed_at";
    assert_eq!(schema.rows(changes).await, ["active 1", "suspended 10"]);
    let deletions =
        "SELECT extract(EPOCH FROM deleted_at - at_second(0))::integer AS s FROM user_deleted WHERE user_id = u(1)";
    assert_eq!(schema.rows(deletions).await, ["13"]);
}

#[tokio::test]
async fn the_next_start_is_cleared_when_the_schedule_or_dormancy_outdates_it() {
    let mut schema = Schema::with_rows().await;
    schema.run("UPDATE workspaces SET autostart_schedule = 'daily', next_start_at = at_second(100)").await;
    for (change, kept) in [
        ("UPDATE workspaces SET name = 'x', last_used_at = now()", true),
        ("UPDATE workspaces SET autostart_schedule = 'daily'", true),
        ("UPDATE workspaces SET autostart_schedule = 'weekly', next_start_at = at_second(200)", true),
        ("UPDATE workspaces SET autostart_schedule = 'weekly'", false),
        ("UPDATE workspaces SET autostart_schedule = NULL", false),
        ("UPDATE workspaces SET dormant_at = now()", false),
        ("UPDATE workspaces SET dormant_at = now(), next_start_at = at_second(200)", false),
        ("UPDATE templates SET allow_user_autostart = false, autostart_block_days_of_week = 3", true),
    ] {
        schema.run("BEGIN").await;
        schema.run(change).await;
        let actual = schema.row("SELECT next_start_at IS NOT NULL FROM workspaces").await;
        schema.run("ROLLBACK").await;
        assert_eq!(actual, kept.to_string(), "{change}");
    }
}

#[tokio::test]
async fn agent_names_are_unique_among_the_agents_of_one_build_the_deleted_included() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_resource(2, 1), add_agent(2, 2, 'other'), add_agent(3, 2, 'gone', deleted => true);
             SELECT add_build(2, 1, 2), add_resource(10, 2);
             SELECT add_job(20), add_resource(20, 20), add_agent(20, 20, 'main')",
        )
        .await;
    schema
        .outcomes(&[
            ("SELECT add_agent(9, 1, 'main')", "23505"),
            ("SELECT add_agent(9, 2, 'main')", "23505"),
            ("SELECT add_agent(9, 2, 'main', 'off')", "23505"),
            ("SELECT add_agent(9, 2, 'MAIN')", "ok"),
            ("SELECT add_agent(9, 2, 'main', deleted => true)", "23505"),
            ("SELECT add_agent(9, 2, 'gone')", "23505"),
            ("SELECT add_agent(9, 10, 'main')", "ok"),
            ("UPDATE workspace_agents SET name = 'main' WHERE id = u(2)", "23505"),
            ("UPDATE workspace_agents SET name = 'main' WHERE id = u(1)", "ok"),
            ("UPDATE workspace_agents SET lifecycle_state = 'ready', deleted = false", "ok"),
            ("UPDATE workspace_agents SET name = 'main' WHERE id = u(3)", "23505"),
            (
                "SELECT add_agent(9, 10, 'main'); UPDATE workspace_agents SET resource_id = u(2) WHERE id = u(9)",
                "23505",
            ),
            // A job without a build, say of a template import, may repeat a name.
            ("SELECT add_agent(9, 20, 'main')", "ok"),
        ])
        .await;
}

#[tokio::test]
async fn a_message_is_rejected_when_the_user_has_disabled_its_template() {
    let mut schema = Schema::with_rows().await;
    let names = "SELECT name FROM notification_templates WHERE id IN \
                 ('381df2a9-c0c0-4749-420f-80a9280c66f9', '2faeee0f-26cb-4e96-821c-85ccb9f71513') ORDER BY 1";
    assert_eq!(schema.rows(names).await, ["Workspace Autobuild Failed", "Workspace Manual Build Failed"]);
    schema
        .run(
            "SELECT add_user(2);
             CREATE FUNCTION enqueue(recipient integer) RETURNS void LANGUAGE sql AS $$
                 INSERT INTO notification_messages (id, notification_template_id, user_id, method, created_by, payload)
                 VALUES (u(1), '381df2a9-c0c0-4749-420f-80a9280c66f9', u(recipient), 'smtp', '', '{}')
             $$;
             INSERT INTO notification_preferences (user_id, notification_template_id, disabled)
             SELECT u(1), id, name LIKE '%Autobuild%' FROM notification_templates",
        )
        .await;
    schema
        .outcomes(&[
            ("SELECT enqueue(1)", "P0001"),
            ("SELECT enqueue(2)", "ok"),
            ("UPDATE notification_preferences SET disabled = NOT disabled; SELECT enqueue(1)", "ok"),
            ("UPDATE notification_templates SET enabled_by_default = false; SELECT enqueue(2)", "P0001"),
            (
                "SELECT enqueue(2); UPDATE notification_messages SET id = u(9), status = 'sent'; SELECT enqueue(2)",
                "23505 notification_messages_dedupe_hash_idx",
            ),
            ("SELECT enqueue(2); UPDATE notification_messages SET id = u(9), payload = '[]'; SELECT enqueue(2)", "ok"),
        ])
        .await;
}

#[tokio::test]
async fn the_prebuilds_user_exists_is_a_system_user_and_may_be_updated() {
    let mut schema = Schema::new().await;
    let user = "SELECT id, username, is_system, deleted, is_service_account FROM users";
    assert_eq!(schema.row(user).await, "c42fdf75-3097-471c-8c33-fb52454d81c0 prebuilds true false false");
    schema.outcomes(&[("UPDATE users SET avatar_url = 'x', updated_at = now() WHERE is_system", "ok")]).await;
}
