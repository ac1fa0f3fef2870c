-- The jobs in $1 of the organization $3 with their place among the jobs that the same daemons can take (domain 5.3), oldest first.
-- A daemon is online when it was seen at $2 or later. Neither its organization nor its provisioners count, only tags.
WITH requested AS MATERIALIZED (
    SELECT * FROM provisioner_jobs WHERE id = ANY ($1) AND organization_id = $3
),

-- Tag sets, not daemons: a fleet has few of them, and every daemon with one set has the same queue.
online AS (
    SELECT DISTINCT tags FROM provisioner_daemons WHERE last_seen_at >= $2
),

waiting AS (
    SELECT
        o.tags,
        array_agg(provisioner_job_queue_key(r.initiator_id, r.created_at, r.id) ORDER BY r.id) AS keys,
        array_agg(r.id ORDER BY r.id) AS ids
    FROM online AS o
    INNER JOIN requested AS r ON r.job_status = 'pending' AND provisioner_tagset_contains(o.tags, r.tags)
    GROUP BY o.tags
),

counted AS MATERIALIZED (
    SELECT ids, provisioner_job_queue_positions(tags, keys, ids) AS positions FROM waiting
),

queue AS (
    SELECT u.id, min(u.position) AS position, max(c.positions[cardinality(c.positions)]) AS size
    FROM counted AS c
    CROSS JOIN LATERAL unnest(c.ids, c.positions) AS u (id, position)
    WHERE u.id IS NOT NULL
    GROUP BY u.id
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
FROM requested AS j
LEFT JOIN queue ON queue.id = j.id
ORDER BY j.created_at, j.id
