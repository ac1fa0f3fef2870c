-- What became of all prebuilds of the organization $1, per template and name of the preset.
SELECT
    t.id AS template_id,
    t.name AS template_name,
    p.name AS preset_name,
    count(*) AS "created!",
    count(*) FILTER (WHERE j.job_status = 'failed') AS "failed!",
    count(*) FILTER (WHERE w.owner_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0') AS "claimed!"
FROM workspace_builds AS b
INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
INNER JOIN templates AS t ON t.id = w.template_id
INNER JOIN template_version_presets AS p ON p.id = b.template_version_preset_id
WHERE b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
    AND b.build_number = 1
    AND b.transition = 'start'
    AND w.organization_id = $1
GROUP BY t.id, t.name, p.name
ORDER BY t.name, t.id, p.name
