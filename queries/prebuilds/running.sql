-- The prebuilt workspaces of the organization $1 that run and are not claimed.
SELECT
    w.id,
    w.name,
    w.template_id,
    latest.template_version_id AS "template_version_id!: crate::model::TemplateVersionId",
    preset.id AS "current_preset_id?: crate::model::PresetId",
    agents.ready AS "ready!",
    w.created_at
-- An array, so that the planner expects few: in a storm most of them wait, and it would compile what runs for a
-- handful.
FROM unnest(ARRAY(
    SELECT id FROM workspaces
    WHERE owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND organization_id = $1 AND deleted = false
)) AS unclaimed (id)
INNER JOIN workspaces AS w ON w.id = unclaimed.id
-- Not the views: for one workspace they read the latest builds of all.
CROSS JOIN LATERAL (
    SELECT b.template_version_id, b.transition, b.job_id, j.job_status
    FROM workspace_builds AS b
    INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
    WHERE b.workspace_id = w.id
    ORDER BY b.build_number DESC
    LIMIT 1
) AS latest
LEFT JOIN LATERAL (
    SELECT b.template_version_preset_id AS id
    FROM workspace_builds AS b
    WHERE b.workspace_id = w.id AND b.template_version_preset_id IS NOT NULL
    ORDER BY b.build_number DESC
    LIMIT 1
) AS preset ON true
CROSS JOIN LATERAL (
    SELECT coalesce(bool_and(a.lifecycle_state = 'ready'), false) AS ready
    FROM workspace_resources AS r
    INNER JOIN workspace_agents AS a ON a.resource_id = r.id
    WHERE r.job_id = latest.job_id AND a.deleted = false
) AS agents
WHERE latest.transition = 'start'
    AND latest.job_status = 'succeeded'
ORDER BY w.created_at, w.id
