-- Creates the workspace $1 for the owner $2, a member of the organization $3, from the template $4 of that organization.
-- $5 is its name, $6 the autostart schedule, $7 the nanoseconds after which it stops by itself, $8 now. The lists of the
-- template must let the user $9 use it (as in templates/get.sql), when that is not null.
INSERT INTO workspaces (
    id, created_at, updated_at, owner_id, organization_id, template_id, name, autostart_schedule, ttl, last_used_at
)
SELECT $1, $8, $8, u.id, t.organization_id, t.id, $5, $6::text, $7::bigint, $8
FROM templates AS t
INNER JOIN organizations AS o ON o.id = t.organization_id AND o.deleted = false
INNER JOIN organization_members AS m ON m.organization_id = t.organization_id
INNER JOIN users AS u ON u.id = m.user_id AND u.id = $2 AND u.deleted = false AND u.status <> 'suspended'
WHERE t.id = $4 AND t.organization_id = $3 AND t.deleted = false
    AND ($9::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM organization_members AS reader
        LEFT JOIN group_members AS g ON g.user_id = reader.user_id
        CROSS JOIN unnest(ARRAY[
            t.user_acl -> reader.user_id::text, t.group_acl -> reader.organization_id::text, t.group_acl -> g.group_id::text
        ]) AS list (actions)
        WHERE reader.organization_id = t.organization_id AND reader.user_id = $9
            AND (list.actions @> jsonb_build_array('use') OR list.actions @> '["*"]')
    ))
RETURNING id
