-- What the owner $1 consumes in the organization $2 (domain: quota).
SELECT coalesce(sum(latest.daily_cost), 0)::bigint
FROM (
    SELECT DISTINCT ON (b.workspace_id) b.daily_cost
    FROM workspaces AS w
    INNER JOIN workspace_builds AS b ON b.workspace_id = w.id
    WHERE w.owner_id = $1 AND w.organization_id = $2 AND w.deleted = false
    ORDER BY b.workspace_id, b.build_number DESC
) AS latest
