-- The roles of the user $1, a row per organization that the user is a member of, at least one row.
-- Whoever is deleted or suspended has none and is not found.
SELECT
    u.rbac_roles AS "site_roles!",
    o.id AS "organization_id?",
    m.roles AS "organization_roles?"
FROM users AS u
LEFT JOIN organization_members AS m ON m.user_id = u.id
LEFT JOIN organizations AS o ON o.id = m.organization_id AND o.deleted = false
WHERE u.id = $1 AND u.deleted = false AND u.status <> 'suspended'
