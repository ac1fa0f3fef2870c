-- The groups of the organization $1 (domain: groups), what each adds to the budget of a member, and what the workspaces there
-- of its members consume: what consumes most first. Who is in several groups counts in each.
WITH consumed AS MATERIALIZED (
    SELECT w.owner_id, sum(latest.daily_cost) AS credits
    FROM workspaces AS w
    CROSS JOIN LATERAL (
        SELECT b.daily_cost FROM workspace_builds AS b WHERE b.workspace_id = w.id ORDER BY b.build_number DESC LIMIT 1
    ) AS latest
    WHERE w.organization_id = $1 AND w.deleted = false
    GROUP BY w.owner_id
)

SELECT
    g.id,
    g.name AS "name: Text",
    g.quota_allowance AS allowance,
    members.count AS "members!",
    members.credits AS "credits_consumed!"
FROM groups AS g
CROSS JOIN LATERAL (
    SELECT count(*) AS count, coalesce(sum(consumed.credits), 0)::bigint AS credits
    FROM (
        SELECT m.user_id FROM group_members AS m WHERE m.group_id = g.id
        UNION
        SELECT m.user_id FROM organization_members AS m WHERE m.organization_id = g.id
    ) AS of_group
    INNER JOIN users AS u ON u.id = of_group.user_id AND u.deleted = false
    LEFT JOIN consumed ON consumed.owner_id = of_group.user_id
) AS members
WHERE g.organization_id = $1
ORDER BY members.credits DESC, g.id
