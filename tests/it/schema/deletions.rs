//! What goes along with what is deleted.

use super::Schema;

#[tokio::test]
async fn a_chat_outlives_its_workspace_build_and_agent() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "INSERT INTO chat_providers (provider) VALUES ('openai');
             INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold)
             VALUES (u(1), 'openai', '', 1, 0);
             INSERT INTO chats (id, owner_id, last_model_config_id, organization_id, workspace_id, build_id, agent_id)
             VALUES (u(1), u(1), u(1), u(1), u(1), u(1), u(1));
             INSERT INTO chats (id, owner_id, last_model_config_id, organization_id, parent_chat_id, root_chat_id)
             VALUES (u(2), u(1), u(1), u(1), u(1), u(1))",
        )
        .await;
    let defaults = "SELECT title, status, archived, mcp_server_ids::text, labels::text, pin_order, client_type \
                    FROM chats WHERE id = u(1)";
    assert_eq!(schema.row(defaults).await, "New Chat waiting false {} {} 0 api");
    let binding =
        "SELECT workspace_id IS NULL AS w, build_id IS NULL AS b, agent_id IS NULL AS a FROM chats WHERE id = u(1)";
    schema.run("DELETE FROM workspace_agents").await;
    assert_eq!(schema.row(binding).await, "false false true");
    schema.run("DELETE FROM workspace_builds").await;
    assert_eq!(schema.row(binding).await, "false true true");
    schema.run("DELETE FROM workspaces").await;
    assert_eq!(schema.row(binding).await, "true true true");
    schema.outcomes(&[("DELETE FROM chat_model_configs", "23503 chats_last_model_config_id_fkey")]).await;
    schema.run("DELETE FROM chats WHERE id = u(1)").await;
    assert_eq!(schema.row("SELECT parent_chat_id, root_chat_id FROM chats").await, "- -");
}

#[tokio::test]
async fn a_deleted_job_takes_its_build_logs_timings_resources_and_agents_along() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "INSERT INTO provisioner_job_logs VALUES (u(1), now(), 'provisioner', 'info', '', '');
             INSERT INTO provisioner_job_timings VALUES (u(1), now(), now(), 'plan', '', '', '');
             INSERT INTO workspace_agent_logs (agent_id, created_at, output) VALUES (u(1), now(), '');
             INSERT INTO workspace_agents (id, created_at, updated_at, name, resource_id, auth_token, architecture,
                 operating_system, parent_id)
             VALUES (u(2), now(), now(), 'child', u(1), u(2), '', '', u(1))",
        )
        .await;
    let log = "SELECT id, level, log_source_id = u(0) AS zero FROM workspace_agent_logs";
    assert_eq!(schema.row(log).await, "1 info true");
    // The SQLSTATE of a restriction is 23503 up to PostgreSQL 17, then 23001.
    for (delete, restriction) in [
        ("DELETE FROM user_status_changes; DELETE FROM users WHERE id = u(1)", "_fkey"),
        ("DELETE FROM templates", "workspaces_template_id_fkey"),
        ("DELETE FROM organizations", "workspaces_organization_id_fkey"),
    ] {
        let outcome = schema.outcome(delete).await;
        assert!(outcome.starts_with("23") && outcome.ends_with(restriction), "{delete}: {outcome}");
    }
    schema.run("DELETE FROM template_version_presets").await;
    assert_eq!(schema.row("SELECT template_version_preset_id FROM workspace_builds").await, "-");
    schema.run("DELETE FROM provisioner_jobs").await;
    for table in [
        "workspace_builds",
        "provisioner_job_logs",
        "provisioner_job_timings",
        "workspace_resources",
        "workspace_agents",
        "workspace_agent_logs",
    ] {
        assert_eq!(schema.row(&format!("SELECT count(*) FROM {table}")).await, "0", "{table}");
    }
}
