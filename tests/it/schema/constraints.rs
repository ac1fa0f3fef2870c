//! Checks, unique indexes and lengths.

use super::Schema;

#[tokio::test]
async fn checks_hold_at_their_boundaries() {
    let mut schema = Schema::with_rows().await;
    schema
        .outcomes(&[
            ("UPDATE provisioner_jobs SET logs_length = 1048576", "ok"),
            ("UPDATE provisioner_jobs SET logs_length = 1048577", "23514 max_provisioner_logs_length"),
            ("UPDATE provisioner_jobs SET error_code = NULL", "ok"),
            ("UPDATE provisioner_jobs SET error_code = 'MISSING_TEMPLATE_PARAMETER'", "ok"),
            ("UPDATE provisioner_jobs SET error_code = 'REQUIRED_TEMPLATE_VARIABLES'", "ok"),
            ("UPDATE provisioner_jobs SET error_code = 'INSUFFICIENT_QUOTA'", "ok"),
            (
                "UPDATE provisioner_jobs SET error_code = 'insufficient_quota'",
                "23514 provisioner_jobs_error_code_check",
            ),
            ("UPDATE provisioner_jobs SET error_code = ''", "23514 provisioner_jobs_error_code_check"),
            ("UPDATE workspace_agents SET logs_length = 1048576", "ok"),
            ("UPDATE workspace_agents SET logs_length = 1048577", "23514 max_logs_length"),
            ("UPDATE workspace_agents SET subsystems = '{envbox,exectrace,envbuilder}'", "ok"),
            ("UPDATE workspace_agents SET subsystems = NULL", "ok"),
            ("UPDATE workspace_agents SET subsystems = '{envbox,none}'", "23514 subsystems_not_none"),
            ("UPDATE users SET email = ''", "23514 users_email_not_empty"),
            ("UPDATE users SET is_service_account = true, login_type = 'none'", "23514 users_email_not_empty"),
            ("UPDATE users SET email = '', is_service_account = true, login_type = 'none' WHERE id = u(1)", "ok"),
            (
                "UPDATE users SET email = '', is_service_account = true WHERE id = u(1)",
                "23514 users_service_account_login_type",
            ),
            ("UPDATE users SET login_type = 'none'", "ok"),
            ("UPDATE users SET username = '' WHERE id = u(1)", "23514 users_username_min_length"),
            ("UPDATE users SET username = 'x' WHERE id = u(1)", "ok"),
            ("UPDATE users SET hashed_one_time_passcode = 'x'", "23514 one_time_passcode_set"),
            ("UPDATE users SET one_time_passcode_expires_at = now()", "23514 one_time_passcode_set"),
            ("UPDATE users SET hashed_one_time_passcode = 'x', one_time_passcode_expires_at = now()", "ok"),
            ("UPDATE users SET chat_spend_limit_micros = 1", "ok"),
            ("UPDATE users SET chat_spend_limit_micros = 0", "23514 users_chat_spend_limit_micros_check"),
            (
                "INSERT INTO groups (id, name, organization_id, chat_spend_limit_micros) VALUES (u(1), 'g', u(1), 1)",
                "ok",
            ),
            (
                "INSERT INTO groups (id, name, organization_id, chat_spend_limit_micros) VALUES (u(1), 'g', u(1), 0)",
                "23514 groups_chat_spend_limit_micros_check",
            ),
            ("UPDATE workspaces SET user_acl = '[]'", "23514 user_acl_is_object"),
            ("UPDATE workspaces SET user_acl = 'null'", "23514 user_acl_is_object"),
            ("UPDATE workspaces SET group_acl = '\"x\"'", "23514 group_acl_is_object"),
            ("UPDATE workspaces SET user_acl = '{\"a\": 1}', group_acl = '{}'", "ok"),
            ("UPDATE workspace_builds SET deadline = at_second(1)", "ok"),
            ("UPDATE workspace_builds SET deadline = at_second(1), max_deadline = at_second(1)", "ok"),
            (
                "UPDATE workspace_builds SET deadline = at_second(1.000001), max_deadline = at_second(1)",
                "23514 workspace_builds_deadline_below_max_deadline",
            ),
            (
                "UPDATE workspace_builds SET max_deadline = at_second(1)",
                "23514 workspace_builds_deadline_below_max_deadline",
            ),
        ])
        .await;
}

#[tokio::test]
async fn unique_indexes_fold_case_and_ignore_the_deleted() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_organization(2), add_user(2), add_workspace(2), add_template(2), add_version(2, 1);
             SELECT add_build(2, 2, 1), add_preset(2, 1), add_group(1, 1, 'Everyone');
             INSERT INTO group_members (user_id, group_id) VALUES (u(1), u(1));
             INSERT INTO provisioner_keys VALUES (u(1), now(), u(1), 'Key', '', '{}');
             INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, organization_id, key_id)
             VALUES (u(1), now(), 'd', '{echo}', '{\"owner\": \"Ann\"}', u(1), u(1)),
                    (u(2), now(), 'd', '{echo}', '{}', u(1), u(1));
             INSERT INTO files (hash, created_at, created_by, mimetype, data) VALUES ('h', now(), u(1), 'm', '');
             INSERT INTO licenses (uploaded_at, jwt, exp, uuid) VALUES (now(), 'jwt', now(), u(1));
             INSERT INTO site_configs VALUES ('k', 'v')",
        )
        .await;
    let daemon = "INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, organization_id, key_id) \
                  SELECT u(3), now(), ";
    let daemon = |rest: &str| format!("{daemon}{rest}");
    let taken = "23505 idx_provisioner_daemons_org_name_owner_key";
    schema
        .outcomes(&[
            ("UPDATE organizations SET name = 'ORG1' WHERE id = u(2)", "23505 idx_organization_name_lower"),
            (
                "UPDATE organizations SET deleted = true WHERE id = u(2); \
                 UPDATE organizations SET name = 'ORG2' WHERE id = u(1)",
                "ok",
            ),
            ("UPDATE organizations SET is_default = true WHERE id = u(1)", "ok"),
            ("UPDATE organizations SET is_default = true", "23505 organizations_single_default_org"),
            ("UPDATE users SET email = 'user1@example.com' WHERE id = u(2)", "23505 idx_users_email"),
            ("UPDATE users SET email = 'User1@example.com' WHERE id = u(2)", "23505 users_email_lower_idx"),
            (
                "UPDATE users SET email = '', is_service_account = true, login_type = 'none' WHERE id IN (u(1), u(2))",
                "ok",
            ),
            ("UPDATE users SET username = 'user1' WHERE id = u(2)", "23505 idx_users_username"),
            ("UPDATE users SET username = 'User1' WHERE id = u(2)", "23505 users_username_lower_idx"),
            ("UPDATE users SET deleted = true, username = 'User1', email = 'user1@example.com' WHERE id = u(2)", "ok"),
            (&daemon("'d', '{echo}', '{\"owner\": \"ANN\"}', u(1), u(1)"), taken),
            (&daemon("'d', '{echo}', '{\"owner\": \"\"}', u(1), u(1)"), taken),
            (&daemon("'d', '{echo}', '{\"owner\": \"Bob\"}', u(1), u(1)"), "ok"),
            (&daemon("'D', '{echo}', '{}', u(1), u(1)"), "ok"),
            (&daemon("'d', '{echo}', '{}', u(2), u(1)"), "ok"),
            (
                "INSERT INTO provisioner_keys VALUES (u(2), now(), u(1), 'kEY', '', '{}')",
                "23505 provisioner_keys_organization_id_name_idx",
            ),
            ("INSERT INTO provisioner_keys VALUES (u(2), now(), u(2), 'kEY', '', '{}')", "ok"),
            ("SELECT add_group(9, 1, 'Everyone')", "23505 groups_name_organization_id_key"),
            ("SELECT add_group(9, 1, 'everyone'), add_group(8, 2, 'Everyone')", "ok"),
            (
                "INSERT INTO group_members (user_id, group_id) VALUES (u(1), u(1))",
                "23505 group_members_user_id_group_id_key",
            ),
            (
                "INSERT INTO files (hash, created_at, created_by, mimetype, data) VALUES ('h', now(), u(1), 'm', '')",
                "23505 files_hash_created_by_key",
            ),
            (
                "INSERT INTO files (hash, created_at, created_by, mimetype, data) VALUES ('h', now(), u(2), 'm', '')",
                "ok",
            ),
            (
                "INSERT INTO licenses (uploaded_at, jwt, exp, uuid) VALUES (now(), 'jwt', now(), u(2))",
                "23505 licenses_jwt_key",
            ),
            ("INSERT INTO site_configs VALUES ('k', 'w')", "23505 site_configs_key_key"),
            ("UPDATE templates SET name = 'TEMPLATE1' WHERE id = u(2)", "23505 templates_organization_id_name_idx"),
            ("UPDATE templates SET name = 'TEMPLATE1', deleted = true WHERE id = u(2)", "ok"),
            (
                "UPDATE template_versions SET name = 'v1' WHERE id = u(2)",
                "23505 template_versions_template_id_name_key",
            ),
            ("UPDATE template_versions SET name = 'v1', template_id = NULL", "ok"),
            ("UPDATE template_version_presets SET name = 'preset1'", "23505 idx_unique_preset_name"),
            ("UPDATE template_version_presets SET is_default = true WHERE id = u(1)", "ok"),
            ("UPDATE template_version_presets SET is_default = true", "23505 idx_template_version_presets_default"),
            ("UPDATE workspaces SET name = 'WORKSPACE1' WHERE id = u(2)", "23505 workspaces_owner_id_lower_idx"),
            ("UPDATE workspaces SET name = 'WORKSPACE1', deleted = true WHERE id = u(2)", "ok"),
            ("UPDATE workspaces SET name = 'WORKSPACE1', owner_id = u(2) WHERE id = u(2)", "ok"),
            ("UPDATE workspace_builds SET workspace_id = u(1)", "23505 workspace_builds_workspace_id_build_number_key"),
            ("UPDATE workspace_builds SET job_id = u(1)", "23505 workspace_builds_job_id_key"),
        ])
        .await;
}

#[tokio::test]
async fn a_text_that_is_too_long_fails_on_assignment_and_is_cut_by_a_cast() {
    let mut schema = Schema::with_rows().await;
    schema.run("INSERT INTO provisioner_job_logs VALUES (u(1), now(), 'provisioner', 'info', '', '')").await;
    schema
        .outcomes(&[
            ("UPDATE provisioner_job_logs SET output = repeat('é', 1024)", "ok"),
            ("UPDATE provisioner_job_logs SET output = repeat('é', 1025)", "22001"),
            ("UPDATE provisioner_job_logs SET output = repeat('é', 1025)::varchar(1024)", "ok"),
            ("UPDATE provisioner_job_logs SET stage = repeat('x', 129)", "22001"),
            ("UPDATE provisioner_job_logs SET stage = repeat('x', 129)::varchar(128)", "ok"),
            ("UPDATE workspaces SET name = repeat('x', 65)", "22001"),
            ("UPDATE workspace_resources SET type = repeat('x', 193)", "22001"),
        ])
        .await;
    let cut = "SELECT length(line) FROM unnest(ARRAY[repeat('é', 5000), 'x']::varchar(1024)[]) AS line";
    assert_eq!(schema.rows(cut).await, ["1024", "1"]);
}
