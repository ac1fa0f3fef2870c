-- The unfinished jobs: one build per busy daemon, and everything that waits. The queue filled up within half an hour,
-- because a job that waits for longer is reaped.
WITH chosen AS (
    SELECT
        'workspace_build'::provisioner_job_type AS type,
        w * 7919 AS seed,
        workspace.t,
        workspace.id AS workspace_id,
        workspace.builds + 1 AS number,
        NULL::bigint AS i,
        active_version AS version,
        owner_id AS initiator_id,
        daemon_id,
        false AS prebuilt
    FROM demo_workspaces AS workspace INNER JOIN demo_templates USING (t)
    WHERE waits OR daemon_id IS NOT NULL
    UNION ALL
    SELECT
        'workspace_build', p * 104729, prebuild.t, prebuild.id, 1, NULL, version,
        'c42fdf75-3097-471c-8c33-fb52454d81c0', NULL, true
    FROM demo_prebuilds AS prebuild
    UNION ALL
    SELECT
        'template_version_import', i * 15485863, (i % templates)::integer, NULL, (i / templates)::integer + 1, i,
        (i / templates)::integer + 1, creator, NULL, false
    FROM demo_scale
    CROSS JOIN generate_series(past_imports, imports - 1) AS i
    INNER JOIN demo_templates ON t = i % templates
    UNION ALL
    SELECT
        'template_version_dry_run', i * 32452843, (i * 7 % templates)::integer, NULL, NULL, i, active_version, creator,
        NULL, false
    FROM demo_scale
    CROSS JOIN generate_series(past_dry_runs, dry_runs - 1) AS i
    INNER JOIN demo_templates ON t = i * 7 % templates
),

batch AS MATERIALIZED (
    SELECT
        chosen.*,
        CASE
            WHEN daemon_id IS NOT NULL THEN anchor - (1 + h % 240) * interval '1 second' - interval '1 minute'
            ELSE anchor - h % 1800000 * interval '1 millisecond'
        END AS created_at,
        md5('open job ' || type || ' ' || coalesce(workspace_id::text, i::text) || ' ' || coalesce(number, 0))::uuid AS job_id,
        md5('open build ' || workspace_id || ' ' || number)::uuid AS build_id,
        md5('version ' || t || ' ' || version)::uuid AS version_id,
        CASE number % 2 WHEN 1 THEN 'start' ELSE 'stop' END::workspace_transition AS transition,
        template.organization_id,
        template.id AS template_id,
        template.creator,
        template.tags,
        template.file_id,
        anchor
    FROM demo_scale
    CROSS JOIN (SELECT *, pg_temp.demo_hash(seed) AS h FROM chosen) AS chosen
    INNER JOIN demo_templates AS template USING (t)
    ORDER BY created_at, job_id
),

jobs AS (
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, started_at, canceled_at, organization_id, initiator_id, provisioner, storage_method,
        type, input, worker_id, file_id, tags
    )
    SELECT
        job_id,
        created_at,
        CASE WHEN daemon_id IS NULL THEN created_at ELSE anchor END,
        CASE WHEN daemon_id IS NOT NULL THEN created_at + interval '2 seconds' END,
        -- Every ninth of those under way is being canceled.
        CASE WHEN daemon_id IS NOT NULL AND right(daemon_id::text, 1) = '3' THEN anchor - interval '10 seconds' END,
        organization_id,
        initiator_id,
        'terraform',
        'file',
        type,
        CASE type
            WHEN 'workspace_build' THEN jsonb_build_object('workspace_build_id', build_id)
            WHEN 'template_version_import' THEN jsonb_build_object('template_version_id', version_id)
            ELSE jsonb_build_object('template_version_id', version_id, 'workspace_name', 'try-' || i)
        END,
        daemon_id,
        file_id,
        tags
    FROM batch
),

versions AS (
    INSERT INTO template_versions (
        id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by
    )
    SELECT version_id, template_id, organization_id, created_at, created_at, 'v' || number, '', job_id, creator
    FROM batch
    WHERE type = 'template_version_import'
),

builds AS (
    INSERT INTO workspace_builds (
        id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id
    )
    SELECT build_id, created_at, created_at, workspace_id, version_id, number, transition, initiator_id, job_id
    FROM batch
    WHERE type = 'workspace_build'
)

SELECT count(*) FROM batch
