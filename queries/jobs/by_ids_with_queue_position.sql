-- The jobs in $1 of the organization $3 with their place among the jobs that the same daemons can take (domain 5.3), oldest first.
-- A daemon is online when it was seen at $2 or later. Neither its organization nor its provisioners count, only tags.
WITH requested AS (
    SELECT id, tags FROM provisioner_jobs WHERE id = ANY ($1) AND organization_id = $3
),

-- Tag sets, not daemons: a fleet has few of them, and every daemon with one set has the same queue.
online AS (
    SELECT DISTINCT tags FROM provisioner_daemons WHERE last_seen_at >= $2
),

relevant AS (
    -- A number for each, because sorting the queues by their tags takes longer than all the rest.
    SELECT o.tags, row_number() OVER () AS n
    FROM online AS o
    WHERE EXISTS (SELECT 1 FROM requested AS r WHERE provisioner_tagset_contains(o.tags, r.tags))
),

ranked AS (
    SELECT
        p.id,
        row_number() OVER (
            PARTITION BY o.n
            ORDER BY p.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', p.created_at, p.id
        ) AS position,
        count(*) OVER (PARTITION BY o.n) AS size
    FROM relevant AS o
    INNER JOIN provisioner_jobs AS p ON provisioner_tagset_contains(o.tags, p.tags)
    WHERE p.job_status = 'pending'
),

queue AS (
    SELECT ranked.id, min(ranked.position) AS position, max(ranked.size) AS size
    FROM ranked
    INNER JOIN requested ON requested.id = ranked.id
    GROUP BY ranked.id
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
    provisioner_job_input_uuid(j.input, 'template_version_id') AS input_template_version_id,
    provisioner_job_input_uuid(j.input, 'workspace_build_id') AS input_workspace_build_id,
    j.worker_id,
    j.file_id,
    j.tags,
    j.error_code,
    j.trace_metadata,
    j.job_status,
    j.logs_length,
    j.logs_overflowed,
    coalesce(queue.position, 0) AS "queue_position!",
    coalesce(queue.size, 0) AS "queue_size!"
FROM provisioner_jobs AS j
LEFT JOIN queue ON queue.id = j.id
WHERE j.id = ANY ($1) AND j.organization_id = $3
ORDER BY j.created_at, j.id
