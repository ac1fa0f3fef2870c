-- Who consumes or may consume something in the organization $1 (domain: quota), in credits, in the order of their names
-- in lower case, and of their ids, because deleted users may share a name: at most $4 of those behind the name $2 and
-- id $3, all if null. What counts is the name that is stored with the id: as it was read, it may lack bytes that are no
-- UTF-8.
WITH page AS MATERIALIZED (
    SELECT u.id, u.username, u.deleted, u.consumed
    FROM (
        -- Users who are not deleted come out of the index of names.
        (
            SELECT u.id, u.username, u.deleted, quota.consumed
            FROM users AS u
            CROSS JOIN LATERAL (
                -- Only the newest build of a workspace counts, whatever became of it.
                SELECT coalesce(sum(latest.daily_cost), 0)::bigint AS consumed
                FROM workspaces AS w
                CROSS JOIN LATERAL (
                    SELECT b.daily_cost
                    FROM workspace_builds AS b
                    WHERE b.workspace_id = w.id
                    ORDER BY b.build_number DESC
                    LIMIT 1
                ) AS latest
                WHERE w.owner_id = u.id AND w.organization_id = $1 AND w.deleted = false
            ) AS quota
            WHERE u.deleted = false
                AND (lower(u.username), u.id) > (coalesce((SELECT lower(c.username) FROM users AS c WHERE c.id = $3), lower($2)), $3::uuid)
                AND (
                    EXISTS (SELECT 1 FROM organization_members AS m WHERE m.organization_id = $1 AND m.user_id = u.id)
                    OR EXISTS (
                        SELECT 1
                        FROM group_members AS m
                        INNER JOIN groups AS g ON g.id = m.group_id
                        WHERE m.user_id = u.id AND g.organization_id = $1 AND g.quota_allowance <> 0
                    )
                    OR quota.consumed <> 0
                )
            ORDER BY lower(u.username), u.id
            LIMIT $4
        )
        UNION ALL
        -- Deleted users consume the cost of their workspaces that still exist.
        (
            SELECT u.id, u.username, u.deleted, quota.consumed
            FROM users AS u
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(latest.daily_cost), 0)::bigint AS consumed
                FROM workspaces AS w
                CROSS JOIN LATERAL (
                    SELECT b.daily_cost
                    FROM workspace_builds AS b
                    WHERE b.workspace_id = w.id
                    ORDER BY b.build_number DESC
                    LIMIT 1
                ) AS latest
                WHERE w.owner_id = u.id AND w.organization_id = $1 AND w.deleted = false
            ) AS quota
            WHERE u.deleted = true
                AND (lower(u.username), u.id) > (coalesce((SELECT lower(c.username) FROM users AS c WHERE c.id = $3), lower($2)), $3::uuid)
                AND quota.consumed <> 0
            ORDER BY lower(u.username), u.id
            LIMIT $4
        )
    ) AS u
    ORDER BY lower(u.username), u.id
    LIMIT $4
)

SELECT
    page.id AS "id!",
    page.username AS "username!: Text",
    page.deleted AS "deleted!",
    page.deleted = false AND EXISTS (
        SELECT 1 FROM organization_members AS m WHERE m.organization_id = $1 AND m.user_id = page.id
    ) AS "is_member!",
    page.consumed AS "credits_consumed!",
    (
        SELECT coalesce(sum(g.quota_allowance), 0)
        FROM groups AS g
        WHERE g.organization_id = $1
            AND EXISTS (SELECT 1 FROM group_members_expanded AS m WHERE m.group_id = g.id AND m.user_id = page.id)
    )::bigint AS "budget!"
FROM page
ORDER BY lower(page.username), page.id
