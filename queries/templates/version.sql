-- The version $3 of the template $2 in the organization $1, and how its import stands, if the lists of the template let
-- the user $4 do $5 (as in get.sql).
SELECT v.id, v.name, v.archived, v.has_external_agent, j.job_status, j.tags
FROM template_versions AS v
INNER JOIN templates AS t ON t.id = v.template_id
INNER JOIN provisioner_jobs AS j ON j.id = v.job_id
WHERE v.id = $3 AND v.template_id = $2 AND v.organization_id = $1
    AND ($4::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM organization_members AS m
        LEFT JOIN group_members AS g ON g.user_id = m.user_id
        CROSS JOIN unnest(ARRAY[
            t.user_acl -> m.user_id::text, t.group_acl -> m.organization_id::text, t.group_acl -> g.group_id::text
        ]) AS list (actions)
        WHERE m.organization_id = t.organization_id AND m.user_id = $4
            AND (list.actions @> jsonb_build_array($5::text) OR list.actions @> '["*"]')
    ))
