-- How many prebuild jobs of active versions wait or run in the organization $1, per preset and transition.
SELECT
    t.id AS template_id,
    b.template_version_id AS "template_version_id!: crate::model::TemplateVersionId",
    b.transition AS "transition!: crate::model::Transition",
    b.template_version_preset_id AS "preset_id?: crate::model::PresetId",
    count(*) AS "count!"
FROM workspace_prebuild_builds AS b
INNER JOIN workspace_latest_builds AS latest ON latest.id = b.id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
INNER JOIN templates AS t ON t.id = w.template_id AND t.active_version_id = b.template_version_id
WHERE w.organization_id = $1 AND latest.job_status IN ('pending', 'running')
GROUP BY t.id, b.template_version_id, b.transition, b.template_version_preset_id
ORDER BY t.id, b.template_version_preset_id, b.transition
