-- What the jobs left behind: resources, agents, logs, timings; and who asks about them.
CREATE TEMPORARY TABLE demo_done ON COMMIT DROP AS
SELECT
    source.*, job.id, started_at, completed_at, job.updated_at, template.t, template.name, running_cost, stopped_cost,
    -- What the quota commit was asked for; the rejected one recorded nothing.
    CASE WHEN n = 23 THEN running_cost ELSE daily_cost END AS cost, budget,
    CASE WHEN n = 23 THEN others ELSE others + daily_cost END AS consumed
FROM demo_jobs_small AS source
INNER JOIN provisioner_jobs AS job ON job.id = pg_temp.demo_id('0009', source.n)
INNER JOIN demo_versions_small USING (v)
INNER JOIN demo_templates_small AS template USING (t)
LEFT JOIN workspace_builds AS build ON build.job_id = job.id
LEFT JOIN workspaces AS workspace ON workspace.id = build.workspace_id
LEFT JOIN LATERAL (
    SELECT sum(quota_allowance) AS budget
    FROM groups
    WHERE id IN (SELECT group_id FROM group_members_expanded WHERE user_id = workspace.owner_id)
        AND organization_id = workspace.organization_id
) AS allowance ON true
-- What the owner's other workspaces cost at that moment.
LEFT JOIN LATERAL (
    SELECT coalesce(sum(latest.daily_cost), 0) AS others
    FROM workspaces AS other
    CROSS JOIN LATERAL (
        SELECT daily_cost
        FROM workspace_builds
        WHERE workspace_id = other.id AND created_at < build.created_at
        ORDER BY build_number DESC
        LIMIT 1
    ) AS latest
    WHERE other.owner_id = workspace.owner_id AND other.id <> workspace.id AND NOT other.deleted
) AS elsewhere ON true
WHERE started_at IS NOT NULL;

-- The volume outlives a stop, and what it costs is what a stopped workspace consumes.
INSERT INTO workspace_resources (id, created_at, job_id, transition, type, name, icon, daily_cost)
SELECT
    pg_temp.demo_id('000d', n * 10 + 1), completed_at, id, transition::workspace_transition,
    CASE t WHEN 1 THEN 'docker_volume' WHEN 2 THEN 'kubernetes_persistent_volume_claim' ELSE 'cloud_disk' END, 'home',
    '/icon/folder.svg', stopped_cost
FROM demo_done
WHERE type = 'build' AND state = 'succeeded' AND transition <> 'delete'
UNION ALL
SELECT
    pg_temp.demo_id('000d', n * 10 + 2), completed_at, id, 'start',
    CASE t WHEN 1 THEN 'docker_container' WHEN 2 THEN 'kubernetes_pod' ELSE 'cloud_instance' END, 'workspace',
    '/icon/container.svg', running_cost - stopped_cost
FROM demo_done
WHERE type = 'build' AND state = 'succeeded' AND transition = 'start';

INSERT INTO workspace_agents (
    id, created_at, updated_at, name, first_connected_at, last_connected_at, disconnected_at, resource_id, auth_token,
    architecture, operating_system, directory, version, connection_timeout_seconds, lifecycle_state,
    expanded_directory, logs_length, started_at, ready_at, subsystems, api_version
)
SELECT
    pg_temp.demo_id('000e', n), completed_at, completed_at, 'main', up, CASE WHEN latest THEN pg_temp.demo_at('-10 seconds') ELSE up + interval '9 hours' END,
    CASE WHEN NOT latest THEN up + interval '9 hours' END, pg_temp.demo_id('000d', n * 10 + 2), md5('agent token ' || n)::uuid, 'amd64', 'linux', '~/',
    'v2.33.0', 120, CASE WHEN latest THEN 'ready' ELSE 'off' END::workspace_agent_lifecycle_state, '/home/coder', 58, up, up + interval '6 seconds',
    CASE WHEN t = 2 THEN '{envbuilder}' ELSE '{}' END::workspace_agent_subsystem[], '2.8'
FROM demo_done
CROSS JOIN LATERAL (
    SELECT
        completed_at + interval '4 seconds' AS up,
        NOT EXISTS (SELECT 1 FROM demo_jobs_small AS later WHERE later.w = demo_done.w AND later.number > demo_done.number) AS latest
) AS agent
WHERE type = 'build' AND state = 'succeeded' AND transition = 'start';

INSERT INTO workspace_agent_logs (agent_id, created_at, output, level)
SELECT agent.id, agent.started_at + line.ordinality * interval '1 second', line.output, 'info'
FROM workspace_agents AS agent
CROSS JOIN LATERAL unnest(ARRAY['Running the startup script', 'Cloning the dotfiles', 'Ready to connect']) WITH ORDINALITY AS line (output, ordinality)
WHERE agent.id BETWEEN pg_temp.demo_id('000e', 1) AND pg_temp.demo_id('000e', 999)
ORDER BY agent.id, line.ordinality;

-- Logs. A line belongs to every job for which its condition holds; place is the order in the job.
INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
SELECT
    done.id, done.started_at + least(line.place * interval '1 second', done.updated_at - done.started_at), line.source::log_source,
    line.level::log_level, line.stage, line.output
FROM demo_done AS done
CROSS JOIN LATERAL (
    SELECT place, source, level, stage, output
    FROM (VALUES
        (1, 'provisioner_daemon', 'info', 'Setting up', 'Adding README.md...', type = 'import'),
        (2, 'provisioner_daemon', 'info', 'Setting up', 'Unpacking the template ' || name || '...', type <> 'import'),
        (3, 'provisioner', 'debug', 'Planning Infrastructure', 'Initializing the backend...', true),
        (4, 'provisioner', 'debug', 'Planning Infrastructure', 'Terraform has been successfully initialized!', true),
        (5, 'provisioner', 'info', 'Planning Infrastructure', 'Plan: 2 to add, 0 to change, 0 to destroy.', transition = 'start'),
        (6, 'provisioner', 'info', 'Planning Infrastructure', 'Plan: 0 to add, 0 to change, 1 to destroy.', transition = 'stop'),
        (7, 'provisioner', 'info', 'Commit quota', 'Build cost       —   ' || cost, cost > 0),
        (8, 'provisioner', 'info', 'Commit quota', 'Budget           —   ' || budget, cost > 0),
        (9, 'provisioner', 'info', 'Commit quota', 'Credits consumed —   ' || consumed, cost > 0),
        (10, 'provisioner', 'warn', 'Commit quota', 'This build would exceed your quota. Failing.', n = 23),
        (11, 'provisioner', 'error', 'Detecting persistent resources', 'variable "zone" has no value', n = 16),
        (12, 'provisioner', 'info', 'Starting workspace', 'workspace: Creating...', transition = 'start' AND n <> 23),
        (13, 'provisioner', 'error', 'Starting workspace', 'Error: creating volume: insufficient quota in zone b', n = 22),
        (14, 'provisioner', 'info', 'Starting workspace', 'workspace: Creation complete', transition = 'start' AND state = 'succeeded'),
        (15, 'provisioner', 'info', 'Stopping workspace', 'workspace: Destruction complete', transition = 'stop'),
        (16, 'provisioner', 'info', 'Destroying workspace', 'Destroy complete! Resources: 2 destroyed.', transition = 'delete'),
        (2000, 'provisioner_daemon', 'info', 'Cleaning Up', 'Removed the work directory.', completed_at IS NOT NULL AND n NOT IN (14, 23))
    ) AS every (place, source, level, stage, output, applies)
    WHERE applies
    UNION ALL
    -- Chatty enough to reach the cap of 1 MiB; room for the last line is reserved.
    SELECT 20 + i, 'provisioner', 'info', 'Starting workspace', rpad('workspace: pulling layer ' || i || ' ', 1000, '#')
    FROM generate_series(1, 1048) AS i
    WHERE n = 14
    UNION ALL
    SELECT
        1999, 'provisioner', 'warn', 'Starting workspace',
        'Provisioner logs exceeded the max size of 1MB. Will not continue to write provisioner logs for workspace build.'
    WHERE n = 14
) AS line
ORDER BY done.n, line.place;

UPDATE provisioner_jobs AS job
SET logs_length = written.bytes
FROM (
    SELECT log.job_id, sum(octet_length(log.output)) AS bytes
    FROM provisioner_job_logs AS log
    INNER JOIN demo_done ON demo_done.id = log.job_id
    GROUP BY log.job_id
) AS written
WHERE written.job_id = job.id;

INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
SELECT
    id, started_at + (run * begins) * interval '1 second', started_at + (run * ends) * interval '1 second',
    stage::provisioner_job_timing_stage, 'terraform', action, resource
FROM demo_done
CROSS JOIN (VALUES
    ('init', 0, 0.25, 'initializing terraform', 'state file'),
    ('plan', 0.25, 0.4, 'create', 'home'),
    ('plan', 0.3, 0.45, 'create', 'workspace'),
    ('graph', 0.45, 0.5, 'building terraform dependency graph', 'state file'),
    ('apply', 0.5, 0.7, 'create', 'home'),
    ('apply', 0.65, 1, 'create', 'workspace')
) AS timing (stage, begins, ends, action, resource)
WHERE type = 'build' AND state = 'succeeded' AND transition = 'start';

INSERT INTO notification_messages (
    id, notification_template_id, user_id, method, status, created_by, payload, attempt_count, targets, created_at, updated_at
)
SELECT
    pg_temp.demo_id('0012', 1), template.id, pg_temp.demo_id('0002', 2), 'smtp', 'sent', 'provisionerdserver',
    '{"labels": {"name": "scratch", "template_name": "docker", "workspace_owner_username": "heidi"}}', 1,
    ARRAY[pg_temp.demo_id('0007', 12)], completed_at, completed_at + interval '2 seconds'
FROM notification_templates AS template, demo_done
WHERE template.name = 'Workspace Manual Build Failed' AND n = 22;

INSERT INTO chat_providers (id, provider, display_name, created_at, updated_at)
VALUES (pg_temp.demo_id('0013', 1), 'openai-compat', 'Example', pg_temp.demo_at('-10 days'), pg_temp.demo_at('-10 days'));

INSERT INTO chat_model_configs (
    id, provider, model, display_name, created_at, updated_at, context_limit, compression_threshold
)
VALUES (
    pg_temp.demo_id('0010', 1), 'openai-compat', 'assistant-1', 'Assistant', pg_temp.demo_at('-10 days'),
    pg_temp.demo_at('-10 days'), 200000, 80
);

INSERT INTO chats (
    id, owner_id, workspace_id, title, status, created_at, updated_at, last_model_config_id, labels, build_id, agent_id,
    organization_id, client_type
)
VALUES
    (
        pg_temp.demo_id('000f', 1), pg_temp.demo_id('0002', 4), pg_temp.demo_id('0007', 2), 'Why is the API test flaky?',
        'completed', pg_temp.demo_at('-55 minutes'), pg_temp.demo_at('-30 minutes'), pg_temp.demo_id('0010', 1), '{}',
        pg_temp.demo_id('0008', 19), pg_temp.demo_id('000e', 19), pg_temp.demo_id('0001', 1), 'ui'
    ),
    (
        -- Its workspace ran into the quota.
        pg_temp.demo_id('000f', 2), pg_temp.demo_id('0002', 5), pg_temp.demo_id('0007', 6), 'Start a notebook for the report',
        'waiting', pg_temp.demo_at('-21 minutes'), pg_temp.demo_at('-20 minutes'), pg_temp.demo_id('0010', 1), '{}',
        pg_temp.demo_id('0008', 23), NULL, pg_temp.demo_id('0001', 1), 'ui'
    );

INSERT INTO tasks (
    id, organization_id, owner_id, name, workspace_id, template_version_id, prompt, created_at, display_name
)
SELECT
    pg_temp.demo_id('0014', 1), w.organization_id, w.owner_id, 'flaky-test', w.id, b.template_version_id,
    'Why is the API test flaky?', pg_temp.demo_at('-55 minutes'), 'Flaky test'
FROM workspaces AS w INNER JOIN workspace_builds AS b ON b.workspace_id = w.id
WHERE b.id = pg_temp.demo_id('0008', 19);

INSERT INTO audit_logs (
    id, "time", user_id, organization_id, resource_type, resource_id, resource_target, action, diff, status_code,
    additional_fields, request_id, resource_icon
)
SELECT
    pg_temp.demo_id('0015', 1), created_at, created_by, organization_id, 'template', id, name, 'create', '{}', 201, '{}',
    pg_temp.demo_id('0016', 1), icon
FROM templates
WHERE organization_id = pg_temp.demo_id('0001', 1) AND name = 'docker';
