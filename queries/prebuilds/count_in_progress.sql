-- How many prebuild jobs of active versions wait or run in the organization $1, per preset and transition.
SELECT
    t.id AS template_id,
    b.template_version_id AS "template_version_id!: crate::model::TemplateVersionId",
    b.transition,
    b.template_version_preset_id AS "preset_id?: crate::model::PresetId",
    count(*) AS "count!"
FROM provisioner_jobs AS j
INNER JOIN workspace_builds AS b ON b.job_id = j.id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
INNER JOIN templates AS t ON t.id = w.template_id AND t.active_version_id = b.template_version_id
WHERE j.job_status IN ('pending', 'running')
    AND b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
    AND w.organization_id = $1
    AND w.deleted = false
    -- A build that another one follows says nothing of its workspace any more.
    AND NOT EXISTS (
        SELECT 1 FROM workspace_builds AS later
        WHERE later.workspace_id = b.workspace_id AND later.build_number > b.build_number
    )
GROUP BY t.id, b.template_version_id, b.transition, b.template_version_preset_id
ORDER BY t.id, b.template_version_preset_id, b.transition
