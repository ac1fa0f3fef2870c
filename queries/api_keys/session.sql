-- The API key $1 with its user, and the user's roles as actors/load.sql has them: a row per organization that the user
-- is a member of, at least one row.
SELECT
    k.hashed_secret,
    k.user_id,
    k.last_used,
    k.expires_at,
    k.scopes::text[] AS "scopes!: Vec<Text>",
    k.allow_list,
    -- A session from an identity provider ends when the link to it is removed.
    (
        k.login_type::text NOT IN ('github', 'oidc')
        OR EXISTS (SELECT FROM user_links AS l WHERE l.user_id = k.user_id AND l.login_type = k.login_type)
    ) AS "is_linked!",
    k.login_type::text = 'oauth2_provider_app' AS "is_for_an_audience!",
    u.deleted,
    u.status::text AS "status!: Text",
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
FROM api_keys AS k
INNER JOIN users AS u ON u.id = k.user_id
LEFT JOIN organization_members AS m ON m.user_id = u.id
LEFT JOIN organizations AS o ON o.id = m.organization_id AND o.deleted = false
WHERE k.id = $1
