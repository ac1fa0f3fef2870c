-- How many stale pending prebuild jobs each preset has in the organization $1 (domain: prebuilds).
SELECT b.template_version_preset_id AS "preset_id!: crate::model::PresetId", count(*) AS "count!"
FROM workspace_prebuild_builds AS b
INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
INNER JOIN templates AS t ON t.id = w.template_id
WHERE w.organization_id = $1
    AND b.template_version_preset_id IS NOT NULL
    AND b.transition = 'start'
    AND b.build_number = 1
    AND b.template_version_id <> t.active_version_id
    AND j.job_status = 'pending'
    AND j.worker_id IS NULL
    AND j.canceled_at IS NULL
    AND j.completed_at IS NULL
    -- What was claimed or deleted in the meantime is not canceled, so it does not count.
    AND w.owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
    AND w.deleted = false
GROUP BY b.template_version_preset_id
ORDER BY b.template_version_preset_id
