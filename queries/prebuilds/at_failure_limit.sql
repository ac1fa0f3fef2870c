-- The presets of active versions in the organization $1 whose $2 newest finished prebuilds all failed. What was canceled
-- counts as not finished.
SELECT p.id AS preset_id
FROM templates AS t
INNER JOIN template_version_presets AS p ON p.template_version_id = t.active_version_id
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE newest.job_status = 'failed') AS count
    FROM (
        SELECT j.job_status
        FROM workspace_builds AS b
        INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
        WHERE b.template_version_preset_id = p.id
            AND b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
            AND b.build_number = 1
            AND b.transition = 'start'
            AND j.job_status IN ('succeeded', 'failed')
            AND j.completed_at IS NOT NULL
        ORDER BY b.created_at DESC, b.id DESC
        LIMIT $2
    ) AS newest
) AS failed
WHERE t.organization_id = $1 AND t.deleted = false AND p.desired_instances IS NOT NULL AND failed.count = $2
ORDER BY p.id
