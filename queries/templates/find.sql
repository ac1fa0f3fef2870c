-- The template $1, also a deleted one, in any of the organizations $2, or anywhere when that is null.
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
WHERE t.id = $1 AND ($2::uuid[] IS NULL OR t.organization_id = ANY ($2))
