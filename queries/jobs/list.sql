-- The jobs in $1 with everything that the per-organization list shows (domain 5.4), newest first.
-- $1 is an array of ids: one id for `get`; for `list`, the page that the filters select, in the same statement.
WITH page AS MATERIALIZED (
    SELECT
        *,
        provisioner_job_input_uuid(input, 'template_version_id') AS input_template_version_id,
        provisioner_job_input_uuid(input, 'workspace_build_id') AS input_workspace_build_id
    FROM provisioner_jobs
    WHERE id = ANY ($1::uuid[])
),

queued AS MATERIALIZED (
    SELECT
        coalesce(array_agg(provisioner_job_queue_key(initiator_id, created_at, id) ORDER BY id), '{}') AS keys,
        coalesce(array_agg(id ORDER BY id), '{}') AS ids
    FROM page
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
),

-- The last position is of nobody: it is the size of the queue.
queue AS MATERIALIZED (
    SELECT u.id, u.position
    FROM queued AS q
    CROSS JOIN LATERAL unnest(q.ids, provisioner_job_queue_positions(NULL, q.keys, q.ids)) AS u (id, position)
),

-- Who could take them, found once for all that ask for the same: a page of a long queue asks for few things.
waiting AS MATERIALIZED (
    SELECT kind.organization_id, kind.provisioner, kind.tags, workers.ids
    FROM (SELECT DISTINCT organization_id, provisioner, tags FROM page WHERE started_at IS NULL) AS kind
    CROSS JOIN LATERAL (
        SELECT array_agg(d.id ORDER BY d.created_at, d.id) AS ids
        FROM provisioner_daemons AS d
        WHERE d.organization_id = kind.organization_id
            AND kind.provisioner = ANY (d.provisioners)
            AND provisioner_tagset_contains(d.tags, kind.tags)
    ) AS workers
)

SELECT
    j.id,
    j.created_at,
    j.updated_at,
    j.started_at,
    j.canceled_at,
    j.completed_at,
    j.error,
    j.organization_id,
    j.initiator_id,
    j.provisioner,
    j.storage_method,
    j.type AS job_type,
    j.input,
    j.input_template_version_id,
    j.input_workspace_build_id,
    j.worker_id,
    j.file_id,
    j.tags,
    j.error_code,
    j.trace_metadata,
    j.job_status,
    j.logs_length,
    j.logs_overflowed,
    coalesce(queue.position, 0) AS "queue_position!",
    (SELECT position FROM queue WHERE id IS NULL) AS "queue_size!",
    coalesce(waiting.ids, '{}') AS "available_workers!",
    coalesce(v.name, '') AS "template_version_name!",
    t.id AS "template_id?",
    coalesce(t.name, '') AS "template_name!",
    coalesce(t.display_name, '') AS "template_display_name!",
    coalesce(t.icon, '') AS "template_icon!",
    w.id AS "workspace_id?",
    coalesce(w.name, '') AS "workspace_name!",
    coalesce(worker.name, '') AS "worker_name!",
    b.transition AS "workspace_build_transition?"
FROM page AS j
LEFT JOIN queue ON queue.id = j.id
LEFT JOIN workspace_builds AS b ON b.id = j.input_workspace_build_id
-- The organization is compared in every join: an input may name anything, and must not leak another's names.
LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
LEFT JOIN template_versions AS v
    ON v.id = CASE
        WHEN j.input ? 'template_version_id' THEN j.input_template_version_id
        ELSE b.template_version_id
    END
    AND v.organization_id = j.organization_id
LEFT JOIN templates AS t ON t.id = v.template_id AND t.organization_id = j.organization_id
LEFT JOIN provisioner_daemons AS worker ON worker.id = j.worker_id
LEFT JOIN waiting
    ON j.started_at IS NULL
    AND waiting.organization_id = j.organization_id
    AND waiting.provisioner = j.provisioner
    AND waiting.tags = j.tags
ORDER BY j.created_at DESC, j.id DESC
