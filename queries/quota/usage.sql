-- What the user $1 consumes in the organization $2, and may consume (domain 7.1), in credits.
SELECT
    quota_consumed($1, $2) AS "credits_consumed!",
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
