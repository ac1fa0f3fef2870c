-- Whose jobs wait and run in the organization $1, by 'initiator', 'template' or 'tags' ($2): how many wait at $3, how many
-- run, how many of those created at $4 or later have started, and how long those that wait and those that started waited
-- (domain: shares of the queue).
WITH jobs AS (
    SELECT
        id,
        initiator_id,
        tags,
        'waiting' AS state,
        -- A moment may be infinite, and an interval may not.
        extract(EPOCH FROM $3::timestamptz) - extract(EPOCH FROM created_at) AS waited
    FROM provisioner_jobs
    WHERE organization_id = $1 AND started_at IS NULL AND completed_at IS NULL
    UNION ALL
    SELECT id, initiator_id, tags, 'running', NULL
    FROM provisioner_jobs
    WHERE organization_id = $1 AND started_at IS NOT NULL AND completed_at IS NULL
    UNION ALL
    SELECT id, initiator_id, tags, 'started', extract(EPOCH FROM started_at) - extract(EPOCH FROM created_at)
    FROM provisioner_jobs
    WHERE organization_id = $1 AND created_at >= $4 AND started_at IS NOT NULL
),

keyed AS (
    SELECT
        CASE $2::text
            WHEN 'initiator' THEN j.initiator_id
            WHEN 'template' THEN v.template_id
        END AS id,
        CASE $2::text WHEN 'tags' THEN coalesce(j.tags, 'null') END AS tags,
        j.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AS is_prebuild,
        j.state,
        greatest(j.waited, 0)::double precision AS waited
    FROM jobs AS j
    -- Behind the fence, one look into an index for each job, and none where the templates are not asked for.
    LEFT JOIN LATERAL (
        SELECT template_version_id
        FROM workspace_builds
        WHERE job_id = j.id AND $2::text = 'template'
        OFFSET 0
    ) AS b ON true
    -- A build may name a version of another organization.
    LEFT JOIN template_versions AS v ON v.id = b.template_version_id AND v.organization_id = $1
),

shares AS (
    SELECT
        id,
        tags,
        count(*) FILTER (WHERE state = 'waiting') AS waiting,
        count(*) FILTER (WHERE state = 'waiting' AND is_prebuild) AS waiting_prebuilds,
        count(*) FILTER (WHERE state = 'running') AS running,
        count(*) FILTER (WHERE state = 'started') AS started,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) FILTER (WHERE state = 'waiting') AS waiting_for,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) FILTER (WHERE state = 'started') AS started_after
    FROM keyed
    GROUP BY id, tags
)

SELECT
    s.id AS "id?",
    CASE $2::text
        WHEN 'initiator' THEN (SELECT u.username FROM users AS u WHERE u.id = s.id)
        WHEN 'template' THEN (SELECT t.name FROM templates AS t WHERE t.id = s.id AND t.organization_id = $1)
    END AS "name?: Text",
    s.tags AS "tags?",
    s.waiting AS "waiting!",
    s.waiting_prebuilds AS "waiting_prebuilds!",
    s.running AS "running!",
    s.started AS "started!",
    s.waiting_for AS "waiting_for?: Vec<f64>",
    s.started_after AS "started_after?: Vec<f64>"
FROM shares AS s
