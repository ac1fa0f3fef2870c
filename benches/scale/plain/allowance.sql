-- What the user $1 may consume in the organization $2 (domain: quota).
SELECT coalesce(sum(g.quota_allowance), 0)::bigint
FROM groups AS g
WHERE g.organization_id = $2 AND g.id IN (SELECT m.group_id FROM group_members_expanded AS m WHERE m.user_id = $1)
