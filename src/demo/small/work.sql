-- Templates, workspaces, and the jobs between them. Every story here is one that somebody has to explain some day.
CREATE TEMPORARY TABLE demo_templates_small ON COMMIT DROP AS
SELECT
    template.*, '{"scope": "organization", "owner": ""}'::jsonb || more::jsonb AS tags,
    pg_temp.demo_id('0004', t) AS id
FROM (VALUES
    (1, 'docker', 'Docker Containers', '/icon/docker.svg', 'A container on a shared host.', '', 3, '{}', 10, 2),
    (2, 'kubernetes', 'Kubernetes', '/icon/k8s.png', 'A pod in the on-premises cluster.', '', 5, '{"env": "on-prem"}', 20, 4),
    (3, 'gpu-notebook', 'GPU Notebook', '/icon/jupyter.svg', 'A notebook with one GPU.', '', 7, '{"env": "cloud", "gpu": "true"}', 40, 8),
    (4, 'aws-linux', 'AWS EC2 (Linux)', '/icon/aws.svg', 'A virtual machine.', 'Use the kubernetes template instead.', 9, '{"env": "aws"}', 30, 5)
) AS template (t, name, display_name, icon, description, deprecated, active, more, running_cost, stopped_cost);

CREATE TEMPORARY TABLE demo_versions_small (v integer, t integer, name text, message text, archived boolean) ON COMMIT DROP;
INSERT INTO demo_versions_small VALUES
    (1, 1, 'v1.0', 'First version.', true),
    (2, 1, 'v2.1', 'Mount the cache volume.', false),
    (3, 1, 'v2.0', 'Base image with the new toolchain.', false),
    (4, 2, 'v1.0', 'First version.', false),
    (5, 2, 'v1.1', 'Request memory explicitly.', false),
    (6, 2, 'v1.2', 'Smaller prebuilt pool.', false),
    (7, 3, 'v1.0', 'First version.', false),
    (8, 3, 'v1.1', 'Pick the zone by variable.', false),
    (9, 4, 'v1.0', 'First version.', false);

CREATE TEMPORARY TABLE demo_workspaces_small (w integer, t integer, owner integer, name text, deleted boolean) ON COMMIT DROP;
INSERT INTO demo_workspaces_small VALUES
    (2, 2, 4, 'api', false),
    (3, 1, 4, 'web', false),
    (4, 4, 4, 'legacy-api', false),
    (5, 3, 5, 'train', false),
    (6, 3, 5, 'notebook', false),
    (7, 2, 5, 'etl', false),
    (8, 1, 6, 'sandbox', true),
    (9, 3, 8, 'analysis', false),
    (10, 2, 7, 'infra', false),
    (11, 1, 7, 'trial', false),
    (12, 1, 8, 'scratch', false);

-- w and number are of the build, v is the version; run counts seconds; a worker without a row has been removed.
CREATE TEMPORARY TABLE demo_jobs_small (
    n integer, type text, v integer, w integer, number integer, transition text, reason text, initiator integer,
    created text, state text, run integer, worker integer, error text, error_code text
) ON COMMIT DROP;
INSERT INTO demo_jobs_small VALUES
    (1, 'import', 9, NULL, NULL, NULL, NULL, 10, '-80 days', 'succeeded', 41, 9, NULL, NULL),
    (2, 'import', 1, NULL, NULL, NULL, NULL, 10, '-60 days', 'succeeded', 18, 1, NULL, NULL),
    (3, 'import', 4, NULL, NULL, NULL, NULL, 2, '-32 days', 'succeeded', 25, 2, NULL, NULL),
    (4, 'import', 7, NULL, NULL, NULL, NULL, 2, '-30 days', 'succeeded', 33, 4, NULL, NULL),
    (5, 'build', 1, 8, 1, 'start', 'initiator', 6, '-28 days', 'succeeded', 36, 1, NULL, NULL),
    (6, 'build', 9, 4, 1, 'start', 'dashboard', 4, '-26 days', 'succeeded', 95, 9, NULL, NULL),
    (7, 'build', 9, 4, 2, 'stop', 'autostop', 4, '-614 hours', 'succeeded', 52, 9, NULL, NULL),
    (8, 'import', 3, NULL, NULL, NULL, NULL, 2, '-21 days', 'succeeded', 19, 1, NULL, NULL),
    (9, 'build', 1, 8, 2, 'delete', 'initiator', 1, '-20 days', 'succeeded', 14, 1, NULL, NULL),
    (10, 'build', 3, 3, 1, 'start', 'cli', 4, '-6 days', 'succeeded', 31, 5, NULL, NULL),
    (11, 'build', 3, 3, 2, 'stop', 'autostop', 4, '-134 hours', 'succeeded', 12, 5, NULL, NULL),
    (12, 'build', 4, 2, 1, 'start', 'dashboard', 4, '-2 days', 'succeeded', 58, 2, NULL, NULL),
    (13, 'build', 4, 2, 2, 'stop', 'autostop', 4, '-38 hours', 'succeeded', 20, 3, NULL, NULL),
    (14, 'build', 7, 5, 1, 'start', 'dashboard', 5, '-26 hours', 'succeeded', 210, 4, NULL, NULL),
    (15, 'dry-run', 3, NULL, NULL, NULL, NULL, 2, '-1 day', 'succeeded', 9, 1, NULL, NULL),
    (16, 'import', 8, NULL, NULL, NULL, NULL, 2, '-23 hours', 'failed', 6, 4,
     'required template variables need values: zone', 'REQUIRED_TEMPLATE_VARIABLES'),
    (17, 'build', 4, 7, 1, 'start', 'cli', 5, '-22 hours', 'succeeded', 61, 2, NULL, NULL),
    (18, 'import', 5, NULL, NULL, NULL, NULL, 2, '-3 hours', 'succeeded', 24, 2, NULL, NULL),
    (19, 'build', 5, 2, 3, 'start', 'autostart', 4, '-1 hour', 'succeeded', 55, 3, NULL, NULL),
    (20, 'build', 3, 11, 1, 'start', 'dashboard', 7, '-50 minutes', 'canceled', NULL, NULL, NULL, NULL),
    (21, 'dry-run', 5, NULL, NULL, NULL, NULL, 2, '-45 minutes', 'canceled', 8, 2, NULL, NULL),
    (22, 'build', 3, 12, 1, 'start', 'dashboard', 8, '-40 minutes', 'failed', 44, 1,
     'terraform apply: creating volume: insufficient quota in zone b', NULL),
    (23, 'build', 7, 6, 1, 'start', 'dashboard', 5, '-20 minutes', 'failed', 17, 4,
     'insufficient quota', 'INSUFFICIENT_QUOTA'),
    (24, 'build', 9, 4, 3, 'start', 'dashboard', 4, '-850 seconds', 'pending', NULL, NULL, NULL, NULL),
    (25, 'build', 5, 10, 1, 'start', 'cli', 7, '-6 minutes', 'canceling', NULL, 2, NULL, NULL),
    (26, 'build', 7, 9, 1, 'start', 'vscode_connection', 8, '-4 minutes', 'running', NULL, 4, NULL, NULL),
    (27, 'import', 2, NULL, NULL, NULL, NULL, 2, '-90 seconds', 'running', NULL, 1, NULL, NULL),
    (28, 'import', 6, NULL, NULL, NULL, NULL, 2, '-60 seconds', 'pending', NULL, NULL, NULL, NULL),
    (29, 'dry-run', 3, NULL, NULL, NULL, NULL, 2, '-30 seconds', 'pending', NULL, NULL, NULL, NULL);

-- The flood: a preset wanted more prebuilt workspaces than the daemons can build, and most are of the version before.
INSERT INTO demo_workspaces_small
SELECT 100 + p, 2, NULL, 'prebuild-' || left(md5('demo prebuild ' || p), 8), false FROM generate_series(0, 12) AS p;
INSERT INTO demo_jobs_small
SELECT
    30 + p, 'build', CASE WHEN p <= 8 THEN 4 ELSE 5 END, 100 + p, 1, 'start', 'initiator', NULL,
    CASE WHEN p = 0 THEN '-4 hours' ELSE (-1000 + p * 20) || ' seconds' END,
    CASE WHEN p = 0 THEN 'succeeded' ELSE 'pending' END, CASE WHEN p = 0 THEN 49 END, CASE WHEN p = 0 THEN 2 END, NULL, NULL
FROM generate_series(0, 12) AS p;

INSERT INTO files (hash, created_at, created_by, mimetype, data, id)
SELECT
    encode(sha256(data), 'hex'), pg_temp.demo_at(created), pg_temp.demo_id('0002', initiator), 'application/x-tar', data,
    pg_temp.demo_id('000c', v)
FROM demo_jobs_small
-- A tar archive without a member is zeros; the length sets one version's apart from another's.
CROSS JOIN LATERAL decode(repeat('00', 1024 + 512 * v), 'hex') AS data
WHERE type = 'import';

INSERT INTO templates (
    id, created_at, updated_at, organization_id, name, provisioner, active_version_id, description, created_by, icon,
    display_name, deprecated, group_acl
)
SELECT
    template.id, pg_temp.demo_at(created), pg_temp.demo_at(created), pg_temp.demo_id('0001', 1), template.name,
    'terraform', pg_temp.demo_id('0005', active), description, pg_temp.demo_id('0002', initiator), icon, display_name,
    deprecated,
    -- Everyone in the organization.
    jsonb_build_object(pg_temp.demo_id('0001', 1), '["read", "use"]'::jsonb)
FROM demo_templates_small AS template
INNER JOIN demo_jobs_small AS job ON job.type = 'import' AND job.v = active;

INSERT INTO provisioner_jobs (
    id, created_at, updated_at, started_at, canceled_at, completed_at, error, error_code, organization_id, initiator_id,
    provisioner, storage_method, type, input, worker_id, file_id, tags, trace_metadata, logs_overflowed
)
SELECT
    pg_temp.demo_id('0009', n),
    queued,
    CASE state WHEN 'pending' THEN queued WHEN 'running' THEN pg_temp.demo_at('-5 seconds') ELSE coalesce(ended, pg_temp.demo_at('-5 seconds')) END,
    CASE WHEN worker IS NOT NULL THEN queued + interval '2 seconds' END,
    CASE
        WHEN state = 'canceling' THEN pg_temp.demo_at('-20 seconds')
        -- Nobody worked on it, so the request was the end.
        WHEN state = 'canceled' AND worker IS NULL THEN ended
        WHEN state = 'canceled' THEN ended - interval '3 seconds'
    END,
    CASE WHEN state IN ('succeeded', 'failed', 'canceled') THEN ended END,
    error,
    error_code,
    pg_temp.demo_id('0001', 1),
    coalesce(pg_temp.demo_id('0002', initiator), 'c42fdf75-3097-471c-8c33-fb52454d81c0'),
    'terraform',
    'file',
    CASE type
        WHEN 'build' THEN 'workspace_build'
        WHEN 'import' THEN 'template_version_import'
        ELSE 'template_version_dry_run'
    END::provisioner_job_type,
    CASE type
        WHEN 'build' THEN jsonb_build_object('workspace_build_id', pg_temp.demo_id('0008', n))
        WHEN 'import' THEN jsonb_build_object('template_version_id', pg_temp.demo_id('0005', v), 'user_variable_values', '[]'::jsonb)
        ELSE jsonb_build_object(
            'template_version_id', pg_temp.demo_id('0005', v), 'workspace_name', 'try', 'rich_parameter_values', '[]'::jsonb
        )
    END,
    pg_temp.demo_id('000a', worker),
    pg_temp.demo_id('000c', v),
    template.tags,
    jsonb_build_object('traceparent', '00-' || md5('trace ' || n) || '-' || left(md5('span ' || n), 16) || '-01'),
    n = 14
FROM demo_jobs_small AS job
INNER JOIN demo_versions_small AS version USING (v)
INNER JOIN demo_templates_small AS template USING (t)
CROSS JOIN LATERAL (
    SELECT
        pg_temp.demo_at(created) AS queued,
        pg_temp.demo_at(created) + CASE
            WHEN run IS NOT NULL THEN (2 + run) * interval '1 second'
            WHEN state = 'canceled' THEN interval '40 seconds'
        END AS ended
) AS moment;

INSERT INTO template_versions (
    id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by, message, archived
)
SELECT
    pg_temp.demo_id('0005', v), template.id, job.organization_id, job.created_at, job.updated_at, version.name,
    '# ' || display_name || E'\n\n' || description || E'\n', job.id, job.initiator_id, message, archived
FROM demo_versions_small AS version
INNER JOIN demo_templates_small AS template USING (t)
INNER JOIN demo_jobs_small AS source USING (v)
INNER JOIN provisioner_jobs AS job ON job.id = pg_temp.demo_id('0009', source.n)
WHERE source.type = 'import';

INSERT INTO template_version_presets (
    id, template_version_id, name, created_at, desired_instances, is_default, description
)
SELECT
    pg_temp.demo_id('0006', n), pg_temp.demo_id('0005', v), name, pg_temp.demo_at(created), wanted, wanted IS NULL, description
FROM (VALUES
    (1, 4, 'large', '-32 days', 9, '8 cores, ready within seconds.'),
    (2, 5, 'large', '-3 hours', 5, '8 cores, ready within seconds.'),
    (3, 5, 'small', '-3 hours', NULL, '2 cores, built when you ask for it.')
) AS preset (n, v, name, created, wanted, description);

INSERT INTO workspaces (
    id, created_at, updated_at, owner_id, organization_id, template_id, deleted, name, autostart_schedule, ttl,
    last_used_at, favorite
)
SELECT
    pg_temp.demo_id('0007', w), first.created_at, first.updated_at,
    coalesce(pg_temp.demo_id('0002', owner), 'c42fdf75-3097-471c-8c33-fb52454d81c0'), first.organization_id,
    pg_temp.demo_id('0004', t), deleted, name, CASE WHEN w = 2 THEN 'CRON_TZ=UTC 0 8 * * 1-5' END, 36000000000000,
    first.updated_at, w = 2
FROM demo_workspaces_small AS workspace
INNER JOIN demo_jobs_small AS job USING (w)
INNER JOIN provisioner_jobs AS first ON first.id = pg_temp.demo_id('0009', job.n)
WHERE job.number = 1;

INSERT INTO workspace_builds (
    id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, provisioner_state,
    job_id, deadline, reason, daily_cost, template_version_preset_id
)
SELECT
    pg_temp.demo_id('0008', n), job.created_at, job.updated_at, pg_temp.demo_id('0007', w), pg_temp.demo_id('0005', v),
    number, transition::workspace_transition, job.initiator_id,
    CASE WHEN state = 'succeeded' THEN convert_to('{"version": 4, "serial": ' || number || '}', 'UTF8') END, job.id,
    CASE
        WHEN state = 'succeeded' AND transition = 'start' AND owner IS NOT NULL THEN job.completed_at + interval '10 hours'
        ELSE '0001-01-01 00:00:00+00'
    END,
    reason::build_reason,
    -- Heidi's failed after its quota was committed; Erin's never got it.
    CASE
        WHEN transition = 'start' AND (state = 'succeeded' OR n IN (22, 26)) THEN running_cost
        WHEN transition = 'stop' AND state = 'succeeded' THEN stopped_cost
        ELSE 0
    END,
    CASE WHEN owner IS NULL THEN pg_temp.demo_id('0006', v - 3) END
FROM demo_jobs_small AS source
INNER JOIN demo_workspaces_small AS workspace USING (w)
INNER JOIN demo_templates_small AS template USING (t)
INNER JOIN provisioner_jobs AS job ON job.id = pg_temp.demo_id('0009', n);
