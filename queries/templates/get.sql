-- The template with the id $2 in the organization $1, also a deleted one: old jobs keep naming it. Its lists must let the
-- user $3 do $4 (`*` stands for everything), when that is not null: himself, one of his groups, or the group of the
-- organization, whose id is the organization's.
SELECT t.id, t.name, t.display_name, t.organization_id
FROM templates AS t
WHERE t.id = $2 AND t.organization_id = $1
    AND ($3::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM organization_members AS m
        LEFT JOIN group_members AS g ON g.user_id = m.user_id
        CROSS JOIN unnest(ARRAY[
            t.user_acl -> m.user_id::text, t.group_acl -> m.organization_id::text, t.group_acl -> g.group_id::text
        ]) AS list (actions)
        WHERE m.organization_id = t.organization_id AND m.user_id = $3
            AND (list.actions @> jsonb_build_array($4::text) OR list.actions @> '["*"]')
    ))
