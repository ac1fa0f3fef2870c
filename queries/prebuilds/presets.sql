-- The presets of the organization $1 that want prebuilt workspaces, of the template $2 when it is not null.
SELECT
    t.id AS template_id,
    t.name AS template_name,
    t.deleted AS template_deleted,
    t.deprecated <> '' AS "template_deprecated!",
    v.id AS "template_version_id!: crate::model::TemplateVersionId",
    v.name AS template_version_name,
    t.active_version_id = v.id AS "is_active_version!",
    p.id AS "preset_id!: crate::model::PresetId",
    p.name AS preset_name,
    p.desired_instances AS "desired_instances!",
    p.prebuild_status AS status
FROM template_version_presets AS p
INNER JOIN template_versions AS v ON v.id = p.template_version_id
INNER JOIN templates AS t ON t.id = v.template_id
WHERE t.organization_id = $1 AND ($2::uuid IS NULL OR t.id = $2) AND p.desired_instances IS NOT NULL
ORDER BY t.name, t.id, v.created_at, v.id, p.name, p.id
