-- The prebuilt workspaces of the organization $1 that run and that nobody has claimed.
SELECT
    w.id,
    w.name,
    w.template_id,
    b.template_version_id AS "template_version_id!: crate::model::TemplateVersionId",
    p.current_preset_id AS "current_preset_id?: crate::model::PresetId",
    p.ready AS "ready!",
    w.created_at
FROM workspaces AS w
INNER JOIN workspace_prebuilds AS p ON p.id = w.id
INNER JOIN workspace_latest_builds AS b ON b.workspace_id = w.id
WHERE w.organization_id = $1 AND w.deleted = false AND b.transition = 'start' AND b.job_status = 'succeeded'
ORDER BY w.created_at, w.id
