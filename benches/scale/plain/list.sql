-- The listing, as it is defined (domain: listings). $1 organization, $2 ids, $3 statuses, $4 tags, $5 initiator, $6 limit; and,
-- as the layer has them, $7 template, $8 workspace and $9 transition.
WITH pending AS (
    SELECT
        id,
        row_number() OVER (ORDER BY initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', created_at, id) AS position
    FROM provisioner_jobs
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
),

queue AS (
    SELECT count(*) AS size FROM pending
)

SELECT
    j.*,
    coalesce(pending.position, 0) AS queue_position,
    queue.size AS queue_size,
    (
        SELECT array_agg(d.id ORDER BY d.created_at, d.id)
        FROM provisioner_daemons AS d
        WHERE j.started_at IS NULL
            AND d.organization_id = j.organization_id
            AND j.provisioner = ANY (d.provisioners)
            AND provisioner_tagset_contains(d.tags, j.tags)
    ) AS available_workers,
    coalesce(v.name, '') AS template_version_name,
    t.id AS template_id,
    coalesce(t.name, '') AS template_name,
    coalesce(t.display_name, '') AS template_display_name,
    coalesce(t.icon, '') AS template_icon,
    w.id AS workspace_id,
    coalesce(w.name, '') AS workspace_name,
    coalesce(worker.name, '') AS worker_name,
    b.transition
FROM provisioner_jobs AS j
CROSS JOIN queue
LEFT JOIN pending ON pending.id = j.id
LEFT JOIN workspace_builds AS b
    ON b.id = CASE WHEN j.input ? 'workspace_build_id' THEN (j.input ->> 'workspace_build_id')::uuid END
LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
LEFT JOIN template_versions AS v
    ON v.id = CASE
        WHEN j.input ? 'template_version_id' THEN (j.input ->> 'template_version_id')::uuid
        ELSE b.template_version_id
    END
    AND v.organization_id = j.organization_id
LEFT JOIN templates AS t ON t.id = v.template_id AND t.organization_id = j.organization_id
LEFT JOIN provisioner_daemons AS worker ON worker.id = j.worker_id
WHERE j.organization_id = $1
    AND (cardinality($2::uuid[]) = 0 OR j.id = ANY ($2::uuid[]))
    AND (cardinality($3::text[]) = 0 OR j.job_status = ANY ($3::text[]::provisioner_job_status[]))
    AND ($4::jsonb = 'null' OR provisioner_tagset_contains(j.tags, $4::jsonb))
    AND ($5::uuid = '00000000-0000-0000-0000-000000000000' OR j.initiator_id = $5::uuid)
    AND ($7::uuid IS NULL OR t.id = $7::uuid)
    AND ($8::uuid IS NULL OR w.id = $8::uuid)
    AND ($9::text IS NULL OR b.transition = ($9::text)::workspace_transition)
ORDER BY j.created_at DESC, j.id DESC
LIMIT $6
