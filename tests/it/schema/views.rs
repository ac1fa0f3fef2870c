//! Views.

use super::Schema;

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
