-- What the members of the organization $1 consume and may consume there (domain 7.1), in credits, in the order of their
-- names in lower case: at most $3 of those behind the name $2, all if null.
SELECT
    u.id,
    u.username,
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
        WHERE w.owner_id = u.id AND w.organization_id = $1 AND w.deleted = false
    )::bigint AS "credits_consumed!",
    (
        SELECT coalesce(sum(g.quota_allowance), 0)
        FROM groups AS g
        WHERE g.organization_id = $1
            AND EXISTS (SELECT 1 FROM group_members_expanded AS m WHERE m.group_id = g.id AND m.user_id = u.id)
    )::bigint AS "budget!"
FROM users AS u
WHERE u.deleted = false
    AND lower(u.username) > lower($2)
    AND EXISTS (SELECT 1 FROM organization_members AS o WHERE o.organization_id = $1 AND o.user_id = u.id)
ORDER BY lower(u.username)
LIMIT $3
