-- The presets of the organization $1 that want prebuilt workspaces now, or still hold some: what these do, and how many
-- prebuilds of the preset failed since $2.
WITH unclaimed AS (
    SELECT
        preset.id AS preset_id,
        latest.transition = 'start' AND latest.job_status = 'succeeded' AS is_running,
        latest.transition = 'start' AND latest.job_status = 'running' AS is_starting,
        latest.transition = 'start' AND latest.job_status = 'pending' AS is_waiting,
        agents.ready,
        latest.created_at,
        latest.daily_cost
    -- An array, so that the planner expects few, as in running.sql.
    FROM unnest(ARRAY(
        SELECT id FROM workspaces
        WHERE owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND organization_id = $1 AND deleted = false
    )) AS owned (id)
    CROSS JOIN LATERAL (
        SELECT b.transition, b.job_id, b.daily_cost, j.job_status, j.created_at
        FROM workspace_builds AS b
        INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
        WHERE b.workspace_id = owned.id
        ORDER BY b.build_number DESC
        LIMIT 1
    ) AS latest
    CROSS JOIN LATERAL (
        SELECT b.template_version_preset_id AS id
        FROM workspace_builds AS b
        WHERE b.workspace_id = owned.id AND b.template_version_preset_id IS NOT NULL
        ORDER BY b.build_number DESC
        LIMIT 1
    ) AS preset
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_and(a.lifecycle_state = 'ready'), false) AS ready
        FROM workspace_resources AS r
        INNER JOIN workspace_agents AS a ON a.resource_id = r.id
        WHERE r.job_id = latest.job_id AND a.deleted = false
    ) AS agents
),

held AS (
    SELECT
        preset_id,
        count(*) FILTER (WHERE is_running) AS running,
        count(*) FILTER (WHERE is_running AND ready) AS eligible,
        count(*) FILTER (WHERE is_starting) AS starting,
        count(*) FILTER (WHERE is_waiting) AS waiting,
        min(created_at) FILTER (WHERE is_waiting) AS waiting_since,
        sum(daily_cost) AS credits
    FROM unclaimed
    GROUP BY preset_id
)

SELECT
    t.id AS template_id,
    t.name AS template_name,
    p.id AS "preset_id!: crate::model::PresetId",
    p.name AS preset_name,
    t.active_version_id = v.id AND t.deleted = false AS "is_active!",
    CASE WHEN t.active_version_id = v.id AND t.deleted = false THEN coalesce(p.desired_instances, 0) ELSE 0 END AS "wanted!",
    p.prebuild_status AS status,
    coalesce(held.running, 0) AS "running!",
    coalesce(held.eligible, 0) AS "eligible!",
    coalesce(held.starting, 0) AS "starting!",
    coalesce(held.waiting, 0) AS "waiting!",
    held.waiting_since AS "waiting_since?: Timestamp",
    coalesce(held.credits, 0)::bigint AS "credits!",
    failed.count AS "failed!",
    failed.since_success AS "failures!",
    failed.last AS "last_failed_at?: Timestamp"
FROM template_version_presets AS p
INNER JOIN template_versions AS v ON v.id = p.template_version_id
INNER JOIN templates AS t ON t.id = v.template_id
LEFT JOIN held ON held.preset_id = p.id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE ended.job_status = 'failed') AS count,
        count(*) FILTER (WHERE ended.job_status = 'failed' AND ended.successes = 0) AS since_success,
        max(ended.completed_at) FILTER (WHERE ended.job_status = 'failed' AND ended.successes = 0) AS last
    FROM (
        SELECT
            j.job_status,
            j.completed_at,
            count(*) FILTER (WHERE j.job_status = 'succeeded') OVER (ORDER BY b.created_at DESC, b.id DESC) AS successes
        FROM workspace_builds AS b
        INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
        WHERE b.template_version_preset_id = p.id
            AND b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
            AND b.build_number = 1
            AND b.transition = 'start'
            AND b.created_at >= $2
            AND j.completed_at IS NOT NULL
    ) AS ended
) AS failed
WHERE t.organization_id = $1
    AND (held.preset_id IS NOT NULL OR (p.desired_instances IS NOT NULL AND t.active_version_id = v.id AND t.deleted = false))
ORDER BY t.name, t.id, p.name, p.id
