-- Who consumes or may consume something in the organization $1 (domain 7.1), in credits, in the order of their names in lower
-- case, and of their ids, because deleted users may share a name: at most $4 of those behind the name $2 and id $3, all if null.
WITH page AS MATERIALIZED (
    SELECT u.id, u.username, u.deleted, o.user_id IS NOT NULL AND u.deleted = false AS is_member
    FROM (
        SELECT user_id FROM organization_members WHERE organization_id = $1
        UNION
        SELECT m.user_id
        FROM groups AS g
        INNER JOIN group_members AS m ON m.group_id = g.id
        WHERE g.organization_id = $1 AND g.quota_allowance <> 0
        UNION
        -- Whoever left or was deleted consumes what the workspaces cost that are still there.
        SELECT owner_id FROM workspaces WHERE organization_id = $1 AND deleted = false
    ) AS people (user_id)
    INNER JOIN users AS u ON u.id = people.user_id
    LEFT JOIN organization_members AS o ON o.organization_id = $1 AND o.user_id = u.id
    WHERE (lower(u.username), u.id) > (lower($2), $3::uuid)
        AND (
            (u.deleted = false AND o.user_id IS NOT NULL)
            OR (u.deleted = false AND EXISTS (
                SELECT 1
                FROM groups AS g
                INNER JOIN group_members AS m ON m.group_id = g.id
                WHERE g.organization_id = $1 AND g.quota_allowance <> 0 AND m.user_id = u.id
            ))
            OR EXISTS (
                SELECT 1
                FROM workspaces AS w
                CROSS JOIN LATERAL (
                    SELECT b.daily_cost
                    FROM workspace_builds AS b
                    WHERE b.workspace_id = w.id
                    ORDER BY b.build_number DESC
                    LIMIT 1
                ) AS latest
                WHERE w.owner_id = u.id AND w.organization_id = $1 AND w.deleted = false AND latest.daily_cost <> 0
            )
        )
    ORDER BY lower(u.username), u.id
    LIMIT $4
)

SELECT
    page.id,
    page.username,
    page.deleted,
    page.is_member AS "is_member!",
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
        WHERE w.owner_id = page.id AND w.organization_id = $1 AND w.deleted = false
    )::bigint AS "credits_consumed!",
    (
        SELECT coalesce(sum(g.quota_allowance), 0)
        FROM groups AS g
        WHERE g.organization_id = $1
            AND EXISTS (SELECT 1 FROM group_members_expanded AS m WHERE m.group_id = g.id AND m.user_id = page.id)
    )::bigint AS "budget!"
FROM page
ORDER BY lower(page.username), page.id
