-- What the workspaces of the organization $1 consume (domain: quota), by their templates: what consumes most first.
SELECT
    t.id,
    t.name,
    t.deleted,
    consumed.workspaces AS "workspaces!",
    consumed.credits AS "credits_consumed!"
FROM (
    SELECT w.template_id, count(*) AS workspaces, coalesce(sum(latest.daily_cost), 0)::bigint AS credits
    FROM workspaces AS w
    LEFT JOIN LATERAL (
        SELECT b.daily_cost FROM workspace_builds AS b WHERE b.workspace_id = w.id ORDER BY b.build_number DESC LIMIT 1
    ) AS latest ON true
    WHERE w.organization_id = $1 AND w.deleted = false
    GROUP BY w.template_id
) AS consumed
INNER JOIN templates AS t ON t.id = consumed.template_id
ORDER BY consumed.credits DESC, t.id
