-- What the user $1 consumes in the organization $2, and may consume (domain 7.1), in credits.
SELECT
    (
        -- Only the newest build of a workspace counts, whatever became of it.
        SELECT coalesce(sum(latest.daily_cost), 0)
        FROM workspaces AS w
        CROSS JOIN LATERAL (
            SELECT b.daily_cost
            FROM workspace_builds AS b
            WHERE b.workspace_id = w.id
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS latest
        WHERE w.owner_id = $1 AND w.organization_id = $2 AND w.deleted = false
    )::bigint AS "credits_consumed!",
    (
        SELECT coalesce(sum(g.quota_allowance), 0)
        FROM groups AS g
        WHERE g.organization_id = $2
            AND EXISTS (SELECT 1 FROM group_members_expanded AS m WHERE m.group_id = g.id AND m.user_id = $1)
    )::bigint AS "budget!"
