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
    g.name,
    g.quota_allowance AS allowance,
    count(u.id) AS "members!",
    coalesce(sum(consumed.credits), 0)::bigint AS "credits_consumed!"
FROM groups AS g
-- All members at once: no index has those of one group.
LEFT JOIN (
    SELECT group_id, user_id FROM group_members
    UNION
    SELECT organization_id, user_id FROM organization_members WHERE organization_id = $1
) AS of_group ON of_group.group_id = g.id
LEFT JOIN users AS u ON u.id = of_group.user_id AND u.deleted = false
LEFT JOIN consumed ON consumed.owner_id = u.id
WHERE g.organization_id = $1
GROUP BY g.id
ORDER BY coalesce(sum(consumed.credits), 0) DESC, g.id
