-- The finished jobs of the part of the past from $1 to $2 (0 is a year before the anchor, 1 an hour before it), with
-- their builds and versions, in the order of time: that is how they would lie on disk.
WITH chosen AS (
    -- The builds of a workspace are spread evenly, from the second version of its template on.
    SELECT
        first_import + (1 - first_import) * ((number - 1 + phase) / workspace.builds) AS at,
        w * 7919 + number * 104729 AS seed,
        w,
        t,
        number,
        NULL::bigint AS i,
        'workspace_build'::provisioner_job_type AS type
    FROM demo_scale
    CROSS JOIN demo_workspaces AS workspace
    CROSS JOIN LATERAL generate_series(
        ceil(greatest(0, ($1 - first_import) / (1 - first_import)) * workspace.builds - phase)::integer + 1,
        ceil(greatest(0, ($2 - first_import) / (1 - first_import)) * workspace.builds - phase)::integer
    ) AS number
    WHERE number > 0
    UNION ALL
    SELECT
        i::double precision / past_imports, i * 15485863, NULL, (i % templates)::integer, (i / templates)::integer + 1, i,
        'template_version_import'
    FROM demo_scale, generate_series(ceil($1 * past_imports)::bigint, ceil($2 * past_imports)::bigint - 1) AS i
    UNION ALL
    SELECT
        first_import + (1 - first_import) * ((i + 0.5::double precision) / past_dry_runs), i * 32452843 + 1, NULL,
        (i * 7 % templates)::integer, NULL, i, 'template_version_dry_run'
    FROM demo_scale, generate_series(
        ceil($1 * past_dry_runs)::bigint, ceil($2 * past_dry_runs)::bigint - 1
    ) AS i
),

batch AS MATERIALIZED (
    SELECT
        chosen.type,
        chosen.w,
        chosen.t,
        chosen.number,
        chosen.i,
        h,
        CASE chosen.type
            WHEN 'workspace_build' THEN md5('build job ' || chosen.w || ' ' || chosen.number)
            WHEN 'template_version_import' THEN md5('import job ' || chosen.i)
            ELSE md5('dry-run job ' || chosen.i)
        END::uuid AS job_id,
        CASE WHEN chosen.type = 'workspace_build' THEN md5('build ' || chosen.w || ' ' || chosen.number)::uuid END AS build_id,
        md5('version ' || chosen.t || ' ' || CASE
            WHEN chosen.type = 'template_version_import' THEN chosen.number
            -- The newest of the versions that never fail, up to the active one.
            ELSE least(
                active_version,
                floor(greatest(at * past_imports - chosen.t, 0) / templates)::integer / 7 * 7 + 1
            )
        END)::uuid AS version_id,
        CASE chosen.type
            WHEN 'workspace_build' THEN CASE
                -- Every third workspace began as a prebuilt one.
                WHEN chosen.number = 1 AND chosen.w % 3 = 0 THEN 'c42fdf75-3097-471c-8c33-fb52454d81c0'
                ELSE workspace.owner_id
            END
            WHEN 'template_version_import' THEN creator
            ELSE pg_temp.demo_id('0002', 10000 + first_user + h / 1024 % users)
        END AS initiator_id,
        CASE
            WHEN chosen.type <> 'workspace_build' THEN NULL
            WHEN workspace.deleted AND chosen.number = workspace.builds THEN 'delete'::workspace_transition
            WHEN chosen.number % 2 = 1 THEN 'start'
            ELSE 'stop'
        END AS transition,
        workspace.id AS workspace_id,
        chosen.created_at,
        chosen.created_at + (1 + h % 20) * interval '1 second' AS started_at,
        chosen.created_at + (21 + h % 20 + h / 32 % 400) * interval '1 second' AS completed_at,
        CASE
            WHEN chosen.type = 'template_version_import' AND chosen.number % 7 = 1 THEN 'succeeded'
            WHEN workspace.deleted AND chosen.number = workspace.builds THEN 'succeeded'
            WHEN h % 1000 < 70 THEN 'failed'
            WHEN h % 1000 < 110 THEN 'canceled'
            ELSE 'succeeded'
        END AS outcome,
        template.organization_id,
        template.creator,
        template.tags,
        template.file_id,
        template.cost,
        template.id AS template_id,
        template.workers[1 + h / 64 % cardinality(template.workers)] AS worker_id
    FROM demo_scale
    CROSS JOIN (
        SELECT chosen.*, pg_temp.demo_hash(seed) AS h, origin + at * history AS created_at
        FROM chosen, demo_scale
        -- A fence: otherwise both would be computed anew wherever they are used.
        OFFSET 0
    ) AS chosen
    INNER JOIN demo_templates AS template USING (t)
    INNER JOIN demo_organizations USING (o)
    LEFT JOIN demo_workspaces AS workspace ON workspace.w = chosen.w
    ORDER BY at, seed
),

jobs AS (
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, started_at, canceled_at, completed_at, error, error_code, organization_id,
        initiator_id, provisioner, storage_method, type, input, worker_id, file_id, tags, logs_length
    )
    SELECT
        job_id,
        created_at,
        completed_at,
        started_at,
        CASE WHEN outcome = 'canceled' THEN completed_at - interval '5 seconds' END,
        completed_at,
        CASE
            WHEN outcome <> 'failed' THEN NULL
            WHEN type = 'workspace_build' AND h % 4 = 0 AND transition = 'start' THEN 'insufficient quota'
            WHEN type = 'template_version_import' AND h % 4 = 0 THEN 'required template variables need values: region'
            WHEN h % 4 = 1 THEN 'terraform plan: exit status 1'
            WHEN h % 4 = 2 THEN 'Coder: Build has been detected as hung for 5 minutes and has been terminated by the reaper.'
            ELSE 'terraform apply: exit status 1'
        END,
        CASE
            WHEN outcome <> 'failed' OR h % 4 <> 0 THEN NULL
            WHEN type = 'workspace_build' AND transition = 'start' THEN 'INSUFFICIENT_QUOTA'
            WHEN type = 'template_version_import' THEN 'REQUIRED_TEMPLATE_VARIABLES'
        END,
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
        worker_id,
        file_id,
        tags,
        2000 + h % 30000
    FROM batch
),

versions AS (
    INSERT INTO template_versions (
        id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by
    )
    SELECT version_id, template_id, organization_id, created_at, completed_at, 'v' || number, '', job_id, creator
    FROM batch
    WHERE type = 'template_version_import'
),

builds AS (
    INSERT INTO workspace_builds (
        id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id,
        deadline, reason, daily_cost
    )
    SELECT
        build_id,
        created_at,
        completed_at,
        workspace_id,
        version_id,
        number,
        transition,
        initiator_id,
        job_id,
        CASE transition WHEN 'start' THEN completed_at + interval '8 hours' ELSE '0001-01-01 00:00:00+00' END,
        CASE
            WHEN w % 3 = 0 AND transition = 'start' THEN 'autostart'::build_reason
            WHEN transition = 'stop' THEN 'autostop'
            ELSE 'initiator'
        END,
        CASE WHEN outcome = 'succeeded' THEN CASE transition WHEN 'start' THEN cost WHEN 'stop' THEN 1 ELSE 0 END ELSE 0 END
    FROM batch
    WHERE type = 'workspace_build'
)

SELECT count(*) FROM batch
