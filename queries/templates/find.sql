-- The template $1, also a deleted one, in any of the organizations $2, or anywhere when that is null, or if its lists let
-- the user $3 do $4 (as in get.sql).
SELECT
    t.id,
    t.name,
    t.display_name,
    t.organization_id,
    t.deleted,
    t.deprecated,
    t.active_version_id,
    t.default_ttl,
    t.allow_user_autostop,
    t.require_active_version
FROM templates AS t
INNER JOIN organizations AS o ON o.id = t.organization_id AND o.deleted = false
WHERE t.id = $1
    AND ($2::uuid[] IS NULL OR t.organization_id = ANY ($2) OR EXISTS (
        SELECT 1
        FROM organization_members AS m
        LEFT JOIN group_members AS g ON g.user_id = m.user_id
        CROSS JOIN unnest(ARRAY[
            t.user_acl -> m.user_id::text, t.group_acl -> m.organization_id::text, t.group_acl -> g.group_id::text
        ]) AS list (actions)
        WHERE m.organization_id = t.organization_id AND m.user_id = $3
            AND (list.actions @> jsonb_build_array($4::text) OR list.actions @> '["*"]')
    ))
