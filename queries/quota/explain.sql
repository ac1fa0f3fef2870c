-- What the numbers of usage.sql for the user $1 in the organization $2 are made of: a row per group with its allowance, and
-- per workspace with what its newest build has committed.
SELECT
    true AS "is_group!",
    g.id AS "id!",
    g.name AS "name!: Text",
    g.quota_allowance AS "credits!",
    NULL::integer AS "build_number?",
    NULL::workspace_transition AS "transition?",
    NULL::provisioner_job_status AS "job_status?",
    NULL::timestamptz AS "built_at?",
    NULL::integer AS "credits_before?"
FROM groups AS g
WHERE g.organization_id = $2
    AND EXISTS (SELECT 1 FROM users AS u WHERE u.id = $1 AND u.deleted = false)
    AND (
        EXISTS (SELECT 1 FROM group_members AS m WHERE m.group_id = g.id AND m.user_id = $1)
        OR EXISTS (SELECT 1 FROM organization_members AS m WHERE m.organization_id = g.id AND m.user_id = $1)
    )
UNION ALL
SELECT
    false, w.id, w.name, latest.daily_cost, latest.build_number, latest.transition, j.job_status, latest.created_at,
    before.daily_cost
FROM workspaces AS w
CROSS JOIN LATERAL (
    SELECT b.daily_cost, b.build_number, b.transition, b.created_at, b.job_id
    FROM workspace_builds AS b
    WHERE b.workspace_id = w.id
    ORDER BY b.build_number DESC
    LIMIT 1
) AS latest
LEFT JOIN LATERAL (
    SELECT b.daily_cost
    FROM workspace_builds AS b
    WHERE b.workspace_id = w.id AND b.build_number < latest.build_number
    ORDER BY b.build_number DESC
    LIMIT 1
) AS before ON true
LEFT JOIN provisioner_jobs AS j ON j.id = latest.job_id
WHERE w.owner_id = $1 AND w.organization_id = $2 AND w.deleted = false
