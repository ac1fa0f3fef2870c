-- The organizations with presets that want prebuilt workspaces, and what the prebuilds user has there (domain: prebuilds).
SELECT
    o.id,
    o.name,
    EXISTS (
        SELECT 1 FROM organization_members AS m WHERE m.organization_id = o.id AND m.user_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
    ) AS "is_member!",
    EXISTS (
        SELECT 1 FROM groups AS g WHERE g.organization_id = o.id AND g.name = 'coderprebuiltworkspaces'
    ) AS "has_group!",
    EXISTS (
        SELECT 1
        FROM groups AS g
        INNER JOIN group_members AS m ON m.group_id = g.id
        WHERE g.organization_id = o.id AND g.name = 'coderprebuiltworkspaces' AND m.user_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
    ) AS "is_in_group!"
FROM organizations AS o
WHERE o.deleted = false
    AND EXISTS (
        SELECT 1
        FROM templates AS t
        INNER JOIN template_versions AS v ON v.template_id = t.id
        INNER JOIN template_version_presets AS p ON p.template_version_id = v.id
        WHERE t.organization_id = o.id AND p.desired_instances IS NOT NULL
    )
ORDER BY o.name, o.id
