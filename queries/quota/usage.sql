-- What the user $1 consumes in the organization $2, and may consume (domain: quota), in credits.
SELECT
    (
        -- Only the newest build of a workspace counts, whatever became of it.
        SELECT coalesce(sum(latest.daily_cost), 0)
        -- An array, so that the planner expects few: for an owner of very many it would compile the statement.
        FROM unnest(ARRAY(
            SELECT id FROM workspaces WHERE owner_id = $1 AND organization_id = $2 AND deleted = false
        )) AS owned (workspace_id)
        CROSS JOIN LATERAL (
            SELECT b.daily_cost
            FROM workspace_builds AS b
            WHERE b.workspace_id = owned.workspace_id
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS latest
    )::bigint AS "credits_consumed!",
    (
        -- Members as group_members_expanded has them, without reading all of them.
        SELECT coalesce(sum(g.quota_allowance), 0)
        FROM groups AS g
        WHERE g.organization_id = $2
            AND EXISTS (SELECT 1 FROM users AS u WHERE u.id = $1 AND u.deleted = false)
            AND (
                EXISTS (SELECT 1 FROM group_members AS m WHERE m.group_id = g.id AND m.user_id = $1)
                OR EXISTS (SELECT 1 FROM organization_members AS m WHERE m.organization_id = g.id AND m.user_id = $1)
            )
    )::bigint AS "budget!"
