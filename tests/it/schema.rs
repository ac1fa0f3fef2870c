//! What the migrations build, as sentences. The facts of the base are compared with a catalog in `coder_catalog`, those of
//! all versions with `src/migrate/schema.jsonl`.

use std::fmt::Write as _;

use coderdb::{
    migrate,
    sqlx::{self, AssertSqlSafe, PgConnection},
};

use crate::support::{self, Database};

struct Schema {
    conn: PgConnection,
    _database: Database,
}

impl Schema {
    async fn new() -> Self {
        let database = support::database().await;
        Self { conn: database.connect().await, _database: database }
    }

    /// With `golden/rows.sql`: one organization, user, template, version, preset, workspace, build, resource and agent,
    /// each with the id `u(1)`, and functions to add more.
    async fn with_rows() -> Self {
        let mut this = Self::new().await;
        this.run(include_str!("golden/rows.sql")).await;
        this
    }

    async fn run(&mut self, sql: &str) {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await {
            panic!("{sql}\n{error}");
        }
    }

    /// One line per row, with a space between the values; `-` is null.
    async fn rows(&mut self, query: &str) -> Vec<String> {
        let lines = format!(
            "SELECT (SELECT coalesce(string_agg(coalesce(value, '-'), ' '), '') FROM json_each_text(row_to_json(q))) \
             FROM ({query}) AS q"
        );
        match sqlx::query_scalar(AssertSqlSafe(lines)).fetch_all(&mut self.conn).await {
            Ok(rows) => rows,
            Err(error) => panic!("{query}\n{error}"),
        }
    }

    async fn row(&mut self, query: &str) -> String {
        self.rows(query).await.join("\n")
    }

    /// What a statement comes to, without doing it: `ok`, or the SQLSTATE and the constraint (or else the message).
    async fn outcome(&mut self, sql: &str) -> String {
        self.run("BEGIN").await;
        let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await;
        self.run("ROLLBACK").await;
        let Err(error) = result else { return "ok".to_owned() };
        let error = error.as_database_error().expect("an answer of the server");
        let code = error.code().expect("a SQLSTATE");
        format!("{code} {}", error.constraint().unwrap_or_else(|| error.message()))
    }

    /// `outcome` over a table of statement and expected beginning.
    async fn outcomes(&mut self, cases: &[(&str, &str)]) {
        let mut wrong = String::new();
        for (sql, expected) in cases {
            let outcome = self.outcome(sql).await;
            let right = if *expected == "ok" { outcome == "ok" } else { outcome.starts_with(expected) };
            if !right {
                writeln!(wrong, "{sql}\n  - {expected}\n  + {outcome}").expect("memory");
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

// Facts ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_job_names_its_initiator_worker_and_file_without_foreign_keys() {
    let mut schema = Schema::with_rows().await;
    schema
        .outcomes(&[
            ("UPDATE provisioner_jobs SET initiator_id = u(99), worker_id = u(99), file_id = u(99)", "ok"),
            ("UPDATE workspace_builds SET initiator_id = u(99)", "ok"),
            ("UPDATE template_versions SET job_id = u(99)", "ok"),
            ("UPDATE provisioner_jobs SET organization_id = u(99)", "23503 provisioner_jobs_organization_id_fkey"),
        ])
        .await;
}

#[tokio::test]
async fn a_tagset_is_any_jsonb_and_only_agent_logs_are_unlogged() {
    let mut schema = Schema::new().await;
    let domain = "SELECT typbasetype::regtype, typnotnull, (SELECT count(*) FROM pg_constraint WHERE contypid = t.oid) \
                  FROM pg_type AS t WHERE typname = 'tagset'";
    assert_eq!(schema.row(domain).await, "jsonb false 0");
    let unlogged = "SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'";
    assert_eq!(schema.row(unlogged).await, "workspace_agent_logs");
}

#[tokio::test]
async fn the_log_columns_of_a_job_say_what_they_are() {
    let mut schema = Schema::new().await;
    let comments = "SELECT col_description(attrelid, attnum) FROM pg_attribute \
                    WHERE attrelid = 'provisioner_jobs'::regclass AND attname LIKE 'logs\\_%' ORDER BY attnum";
    let comments = schema.rows(comments).await;
    assert!(comments[0].starts_with("Total length of the logs"), "{comments:?}");
    assert!(comments[1].starts_with("Whether the logs overflowed"), "{comments:?}");
}

// Jobs ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_status_of_a_job_is_the_decision_list_over_its_four_columns() {
    let mut schema = Schema::with_rows().await;
    schema.run("DELETE FROM provisioner_jobs").await;
    let (mut setup, mut expected) = (String::new(), Vec::new());
    for bits in 0..8 {
        let [completed, canceled, started] = [4, 2, 1].map(|bit| bits & bit != 0);
        for error in ["NULL", "''", "'broken'"] {
            let status = match (completed, canceled, started) {
                _ if error == "'broken'" => "failed",
                (true, true, _) => "canceled",
                (true, false, _) => "succeeded",
                (false, true, _) => "canceling",
                (false, false, false) => "pending",
                (false, false, true) => "running",
            };
            let n = expected.len();
            let time = |set| if set { "at_second(1)" } else { "NULL" };
            write!(
                setup,
                "SELECT add_job({n}); UPDATE provisioner_jobs \
                 SET completed_at = {}, canceled_at = {}, started_at = {}, \
                 error = {error} WHERE id = u({n});",
                time(completed),
                time(canceled),
                time(started),
            )
            .expect("memory");
            expected.push(format!("{completed} {canceled} {started} {error} {status}"));
        }
    }
    assert_eq!(expected.len(), 24, "16 combinations, and those without an error once more with an empty one");
    schema.run(&setup).await;
    let actual = schema
        .rows(
            "SELECT completed_at IS NOT NULL AS c, canceled_at IS NOT NULL AS x, started_at IS NOT NULL AS s, \
             quote_nullable(error) AS e, job_status FROM provisioner_jobs ORDER BY id",
        )
        .await;
    assert_eq!(actual, expected);
    schema
        .outcomes(&[
            ("UPDATE provisioner_jobs SET job_status = 'unknown'", "428C9"),
            ("SELECT 'unknown'::provisioner_job_status", "ok"),
        ])
        .await;
}

#[tokio::test]
async fn a_new_job_is_pending_with_the_default_tags_and_no_logs() {
    let mut schema = Schema::with_rows().await;
    let job = "SELECT job_status, tags::text, logs_length, logs_overflowed, error_code FROM provisioner_jobs";
    assert_eq!(schema.row(job).await, r#"pending {"scope": "organization"} 0 false -"#);
}

#[tokio::test]
async fn a_daemon_takes_a_job_by_containment_except_that_untagged_jobs_need_untagged_daemons() {
    const UNTAGGED: &str = r#"'{"scope": "organization", "owner": ""}'"#;
    const ON_PREM: &str = r#"'{"scope": "organization", "owner": "", "env": "on-prem"}'"#;
    const CHICAGO: &str = r#"'{"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"}'"#;
    const SCOPE: &str = r#"'{"scope": "organization"}'"#;
    const ALICE: &str = r#"'{"scope": "user", "owner": "aaa"}'"#;
    const BOB: &str = r#"'{"scope": "user", "owner": "bbb"}'"#;
    let mut schema = Schema::new().await;
    let cases = [
        (UNTAGGED, UNTAGGED, "true"),
        (UNTAGGED, r#"'{"owner":"",   "scope":"organization"}'"#, "true"),
        (ON_PREM, UNTAGGED, "false"),
        (ON_PREM, ON_PREM, "true"),
        (CHICAGO, ON_PREM, "true"),
        (ON_PREM, CHICAGO, "false"),
        (UNTAGGED, ON_PREM, "false"),
        (ALICE, ALICE, "true"),
        (ALICE, BOB, "false"),
        (ALICE, UNTAGGED, "false"),
        (UNTAGGED, "'{}'", "true"),
        (CHICAGO, "'{}'", "true"),
        ("'{}'", "'{}'", "true"),
        // The default of provisioner_jobs.tags has no owner, so it is not the special case.
        (UNTAGGED, SCOPE, "true"),
        (CHICAGO, SCOPE, "true"),
        (ALICE, SCOPE, "false"),
        (SCOPE, UNTAGGED, "false"),
        (CHICAGO, r#"'{"scope": "organization", "owner": null}'"#, "false"),
        (CHICAGO, "'null'", "false"),
        ("NULL", ALICE, "-"),
        ("NULL", UNTAGGED, "-"),
        ("NULL", "'{}'", "-"),
        (UNTAGGED, "NULL", "-"),
        ("NULL", "NULL", "-"),
    ];
    for (daemon, job, expected) in cases {
        let actual = schema.row(&format!("SELECT provisioner_tagset_contains({daemon}, {job})")).await;
        assert_eq!(actual, expected, "daemon {daemon}, job {job}");
    }
}

// Checks and uniqueness -----------------------------------------------------------------------------------------------

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

// Deletions -----------------------------------------------------------------------------------------------------------

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

// Views ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn group_members_are_the_explicit_ones_and_everyone_of_the_organization_once_each_and_never_the_deleted() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_organization(2);
             SELECT add_user(2), add_user(3), add_user(4), add_user(5);
             UPDATE users SET deleted = true WHERE id = u(3);
             UPDATE users SET status = 'suspended' WHERE id = u(4);
             UPDATE users SET status = 'dormant' WHERE id = u(5);
             SELECT add_member(1, n) FROM generate_series(1, 4) AS n;
             SELECT add_member(2, 1);
             SELECT add_group(1, 1, 'Everyone'), add_group(10, 1, 'devs');
             INSERT INTO group_members (group_id, user_id)
             VALUES (u(1), u(1)), (u(10), u(2)), (u(10), u(3)), (u(10), u(5))",
        )
        .await;
    let members = "SELECT group_name, user_username, user_status, group_id = organization_id AS implied, \
                   user_id = u(right(user_username, 1)::integer) AS id \
                   FROM group_members_expanded ORDER BY 1, 2";
    let expected = [
        "Everyone user1 active true true",
        "Everyone user2 active true true",
        "Everyone user4 suspended true true",
        "devs user2 active false true",
        "devs user5 dormant false true",
    ];
    let mut actual = schema.rows(members).await;
    actual.sort();
    assert_eq!(actual, expected);
    // Only now does the second organization have the group that its members are implied to be in.
    schema.run("SELECT add_group(2, 2, 'Everyone')").await;
    assert_eq!(
        schema.row("SELECT user_username FROM group_members_expanded WHERE organization_id = u(2)").await,
        "user1"
    );
}

#[tokio::test]
async fn the_latest_build_of_each_living_workspace_is_the_one_with_the_highest_number() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_build(3, 1, 3, preset => u(1)), add_build(2, 1, 2);
             UPDATE workspace_builds SET created_at = at_second(-1), transition = 'stop' WHERE id = u(3);
             UPDATE provisioner_jobs SET canceled_at = at_second(5) WHERE id = u(3);
             SELECT add_workspace(2), add_workspace(3), add_build(4, 3, 1);
             UPDATE workspaces SET deleted = true WHERE id = u(3)",
        )
        .await;
    assert_eq!(
        schema.row("SELECT count(*), count(id), count(workspace_id) FROM workspace_latest_builds").await,
        "2 1 1",
        "a workspace without a build is a row of nulls"
    );
    let latest = "SELECT id = u(3), workspace_id = u(1), template_version_id = u(1), job_id = u(3), \
                  template_version_preset_id = u(1), transition, \
                  extract(EPOCH FROM created_at - at_second(0))::integer, \
                  job_status FROM workspace_latest_builds WHERE id IS NOT NULL";
    // Columns without names of their own would be one key.
    let latest = format!("SELECT concat_ws(' ', a, b, c, d, e, f, g, h) FROM ({latest}) AS q (a, b, c, d, e, f, g, h)");
    assert_eq!(schema.rows(&latest).await, ["t t t t t stop -1 canceling"]);
}

#[tokio::test]
async fn prebuilds_are_the_workspaces_of_the_prebuilds_user_and_ready_when_all_their_agents_are() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_preset(2, 1), add_preset(3, 1);
             SELECT add_workspace(n, prebuilds()), add_build(n, n, 1, prebuilds(), u(1)), add_resource(n, n)
             FROM generate_series(11, 15) AS n;
             -- 11: all are ready; 12: one is not; 13: that one is deleted; 14: none; 15: only those of an older build.
             SELECT add_agent(n * 10, n, 'a', 'ready') FROM unnest(ARRAY[11, 12, 13, 15]) AS n;
             SELECT add_resource(111, 11), add_agent(111, 111, 'b', 'ready');
             SELECT add_resource(121, 12), add_agent(121, 121, 'b', 'starting');
             SELECT add_resource(131, 13), add_agent(131, 131, 'b', 'starting', true);
             SELECT add_build(151, 15, 2, prebuilds(), u(2)), add_resource(151, 151), add_agent(151, 151, 'a');
             -- The newest build with a preset counts, also when a person started it.
             SELECT add_build(112, 11, 2, u(1), u(3)), add_resource(112, 112), add_agent(112, 112, 'a', 'ready');
             SELECT add_build(122, 12, 2, prebuilds()), add_resource(122, 122), add_agent(122, 122, 'a', 'ready');
             SELECT add_agent(123, 122, 'b', 'off');
             -- 16 has no build, 17 is deleted: neither is there.
             SELECT add_workspace(n, prebuilds()) FROM generate_series(16, 17) AS n;
             SELECT add_build(17, 17, 1, prebuilds(), u(1)); UPDATE workspaces SET deleted = true WHERE id = u(17)",
        )
        .await;
    let prebuilds = "SELECT name, template_id = u(1) AS t, created_at = at_second(right(name, 2)::integer) AS c, \
                     ready, \
                     right(current_preset_id::text, 1) AS preset FROM workspace_prebuilds ORDER BY name";
    let expected = [
        "workspace11 true true true 3",
        "workspace12 true true false 1",
        "workspace13 true true true 1",
        "workspace14 true true false 1",
        "workspace15 true true false 2",
    ];
    assert_eq!(schema.rows(prebuilds).await, expected);
    let builds = "SELECT workspace_id = u(15) AS w, template_version_id = u(1) AS v, transition, job_id = u(151) AS j, \
                  template_version_preset_id = u(2) AS p, build_number \
                  FROM workspace_prebuild_builds WHERE id = u(151)";
    assert_eq!(schema.row(builds).await, "true true start true true 2");
    assert_eq!(schema.row("SELECT count(*) FROM workspace_prebuild_builds WHERE id IN (u(1), u(112))").await, "0");
    schema.run("UPDATE workspaces SET owner_id = u(1) WHERE id = u(11)").await;
    assert_eq!(
        schema.row("SELECT count(*) FROM workspace_prebuilds").await,
        "4",
        "a claimed one is no longer a prebuild"
    );
}

#[tokio::test]
async fn job_stats_are_seconds_per_build_job_and_never_negative() {
    let mut schema = Schema::with_rows().await;
    schema
        .run(
            "SELECT add_build(2, 1, 2), add_build(3, 1, 3), add_job(4);
             UPDATE provisioner_jobs SET started_at = at_second(1.5), completed_at = at_second(10),
                 canceled_at = at_second(4),
                 worker_id = u(7), error_code = 'INSUFFICIENT_QUOTA', error = 'no' WHERE id = u(1);
             UPDATE provisioner_jobs SET started_at = at_second(-5), completed_at = at_second(-6),
                 canceled_at = at_second(-7)
             WHERE id = u(2);
             INSERT INTO provisioner_job_timings
             SELECT u(job), at_second(started), at_second(ended), stage::provisioner_job_timing_stage, '', '', ''
             FROM (VALUES
                 (1, 0, 1, 'init'), (1, 0.5, 3.25, 'init'), (1, 7, 9, 'apply'), (1, 20, 21, 'apply'),
                 (1, 5, 5, 'graph'),
                 (2, 9, 1, 'plan')
             ) AS v (job, started, ended, stage)",
        )
        .await;
    let stats = "SELECT right(job_id::text, 1) AS id, job_status, workspace_id = u(1) AS w, \
                 right(worker_id::text, 1) AS worker, error, error_code, updated_at = at_second(0) AS u, \
                 queued_secs, completion_secs, canceled_secs, \
                 init_secs, plan_secs, graph_secs, apply_secs \
                 FROM provisioner_job_stats ORDER BY 1";
    let expected = [
        "1 failed true 7 no INSUFFICIENT_QUOTA true 1.5 8.5 2.5 3.25 0 0 14",
        "2 canceled true - - - true 0 0 0 0 0 0 0",
        "3 pending true - - - true 0 0 0 0 0 0 0",
    ];
    assert_eq!(schema.rows(stats).await, expected);
}

#[tokio::test]
async fn the_display_views_add_names_and_drop_no_rows() {
    let mut schema = Schema::with_rows().await;
    schema
        .run("SELECT add_build(2, 1, 2, u(99)); UPDATE users SET name = 'Ann', avatar_url = 'pic' WHERE id = u(1)")
        .await;
    let builds = "SELECT build_number, quote_literal(initiator_by_username) AS username, \
                  quote_literal(initiator_by_name) AS name, \
                  quote_literal(initiator_by_avatar_url) AS pic FROM workspace_build_with_user ORDER BY 1";
    assert_eq!(schema.rows(builds).await, ["1 'user1' 'Ann' 'pic'", "2 '' '' ''"], "an initiator need not exist");
    assert_eq!(
        schema.row("SELECT name, created_by_username, organization_name FROM template_with_names").await,
        "template1 user1 org1"
    );
    assert_eq!(schema.row("SELECT name, created_by_username FROM template_version_with_user").await, "v1 user1");
    assert_eq!(
        schema.row("SELECT name, owner_username, organization_name, template_name FROM workspaces_expanded").await,
        "workspace1 user1 org1 template1"
    );
    schema
        .run(
            "SELECT add_group(7, 1, 'devs');
             UPDATE workspaces SET group_acl = jsonb_build_object(u(7), '[]', u(99), '[]', 'odd', '[]'),
                 user_acl = jsonb_build_object(u(1), '[]');
             INSERT INTO tasks (id, organization_id, owner_id, name, workspace_id, template_version_id, prompt,
                 created_at, deleted_at)
             VALUES (u(1), u(1), u(1), 'gone', u(1), u(1), '', now(), now()),
                    (u(2), u(1), u(1), 'task', u(1), u(1), '', now(), NULL)",
        )
        .await;
    assert_eq!(
        schema
            .row(
                "SELECT task_id = u(2) AS task, group_acl_display_info -> u(7)::text ->> 'name' AS g, \
                 (SELECT count(*) FROM jsonb_object_keys(group_acl_display_info)) AS n, \
                 user_acl_display_info -> u(1)::text ->> 'avatar_url' AS u FROM workspaces_expanded"
            )
            .await,
        "true devs 1 pic",
        "who is in no table has nothing to display"
    );
    assert_eq!(
        schema.row("SELECT username, name, avatar_url FROM visible_users WHERE id = u(1)").await,
        "user1 Ann pic"
    );
}

// Triggers ------------------------------------------------------------------------------------------------------------

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

// Upgrades ------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn no_later_version_rewrites_the_jobs_table() {
    // Migrations need a session.
    let database = support::empty_database().await.with_sessions();
    let mut conn = database.connect().await;
    migrate::up(&mut conn, &migrate::MigrateOptions { target: Some(1), ..Default::default() }, |_| {})
        .await
        .expect("the base");
    let mut schema = Schema { conn, _database: database };
    schema.run(include_str!("golden/rows.sql")).await;
    let table = "SELECT pg_relation_filenode('provisioner_jobs')";
    let before = schema.row(table).await;
    schema.run("UPDATE provisioner_jobs SET error_code = 'REQUIRED_TEMPLATE_VARIABLES'").await;
    migrate::up(&mut schema.conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the rest");
    assert_eq!(schema.row(table).await, before);
    let job = "SELECT error_code, logs_length, logs_overflowed FROM provisioner_jobs";
    assert_eq!(schema.row(job).await, "REQUIRED_TEMPLATE_VARIABLES 0 false");
}

#[tokio::test]
async fn a_stored_error_code_that_no_version_knows_stops_the_upgrade_and_is_named() {
    // Migrations need a session.
    let database = support::empty_database().await.with_sessions();
    let mut conn = database.connect().await;
    migrate::up(&mut conn, &migrate::MigrateOptions { target: Some(3), ..Default::default() }, |_| {})
        .await
        .expect("the base");
    let mut schema = Schema { conn, _database: database };
    schema.run(include_str!("golden/rows.sql")).await;
    schema.run("SELECT add_job(2), add_job(3); UPDATE provisioner_jobs SET error_code = 'ODD' WHERE id <> u(2)").await;
    let error =
        migrate::up(&mut schema.conn, &migrate::MigrateOptions::default(), |_| {}).await.expect_err("an odd code");
    assert!(error.to_string().contains("does not know: 'ODD' in 2 rows"), "{error}");
    schema.run("UPDATE provisioner_jobs SET error_code = NULL WHERE error_code = 'ODD'").await;
    migrate::up(&mut schema.conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the rest");
    let unfinished = "SELECT (SELECT count(*) FROM pg_constraint WHERE NOT convalidated) AS c, \
                      (SELECT count(*) FROM pg_index WHERE NOT indisvalid) AS i";
    assert_eq!(schema.row(unfinished).await, "0 0");
}
