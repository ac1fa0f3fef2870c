-- The roles of the user $1, a row per organization that the user is a member of, at least one row.
-- A user who is deleted or suspended has none and is not found.
SELECT
    u.rbac_roles AS "site_roles!",
    o.id AS "organization_id?",
    m.roles AS "organization_roles?",
    -- A role of the organization may be held under its name, or with the id of the organization behind that.
    (
        SELECT jsonb_agg(r.org_permissions)
        FROM custom_roles AS r
        WHERE r.organization_id = o.id
            AND r.name = ANY (ARRAY(
                SELECT held.name
                FROM (SELECT role, split_part(role, ':', 1) AS name FROM unnest(m.roles) AS role) AS held
                WHERE held.role IN (held.name, held.name || ':' || o.id)
            ))
    ) AS "custom_roles?: StoredJson"
FROM users AS u
LEFT JOIN organization_members AS m ON m.user_id = u.id
LEFT JOIN organizations AS o ON o.id = m.organization_id AND o.deleted = false
WHERE u.id = $1 AND u.deleted = false AND u.status <> 'suspended'
