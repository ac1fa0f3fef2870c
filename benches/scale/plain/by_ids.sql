-- Positions by tags, step by step as they are defined (domain: positions). $1 ids; a daemon is online when it was seen at $2 or
-- later.
WITH pending AS (
    SELECT id, created_at, initiator_id, tags FROM provisioner_jobs WHERE job_status = 'pending'
),

online AS (
    SELECT DISTINCT tags FROM provisioner_daemons WHERE last_seen_at IS NOT NULL AND last_seen_at >= $2
),

relevant AS (
    SELECT online.tags
    FROM online
    WHERE EXISTS (
        SELECT 1 FROM provisioner_jobs AS r WHERE r.id = ANY ($1::uuid[]) AND provisioner_tagset_contains(online.tags, r.tags)
    )
),

ranked AS (
    SELECT
        p.id,
        row_number() OVER (
            PARTITION BY relevant.tags
            ORDER BY p.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', p.created_at, p.id
        ) AS position,
        count(*) OVER (PARTITION BY relevant.tags) AS size
    FROM relevant
    INNER JOIN pending AS p ON provisioner_tagset_contains(relevant.tags, p.tags)
)

SELECT
    j.*,
    coalesce(min(ranked.position), 0) AS queue_position,
    coalesce(max(ranked.size), 0) AS queue_size
FROM provisioner_jobs AS j
LEFT JOIN ranked ON ranked.id = j.id
WHERE j.id = ANY ($1::uuid[])
GROUP BY j.id
ORDER BY j.created_at, j.id
