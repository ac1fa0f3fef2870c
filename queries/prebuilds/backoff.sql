-- The presets of active versions in the organization $1 whose newest prebuilds failed: how many since the last one that
-- succeeded, and when. Only what started at $2 or later counts; what was canceled counts as neither.
SELECT p.id AS preset_id, failed.count AS "failures!", failed.last AS "last_failed_at!"
FROM templates AS t
INNER JOIN template_version_presets AS p ON p.template_version_id = t.active_version_id
LEFT JOIN LATERAL (
    SELECT b.created_at, b.id
    FROM workspace_builds AS b
    INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
    WHERE b.template_version_preset_id = p.id
        AND b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
        AND b.build_number = 1
        AND b.transition = 'start'
        AND b.created_at >= $2
        AND j.job_status = 'succeeded'
    ORDER BY b.created_at DESC, b.id DESC
    LIMIT 1
) AS success ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS count, max(j.completed_at) AS last
    FROM workspace_builds AS b
    INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
    WHERE b.template_version_preset_id = p.id
        AND b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
        AND b.build_number = 1
        AND b.transition = 'start'
        AND b.created_at >= $2
        AND (success.id IS NULL OR (b.created_at, b.id) > (success.created_at, success.id))
        AND j.job_status = 'failed'
        AND j.completed_at IS NOT NULL
) AS failed
WHERE t.organization_id = $1 AND t.deleted = false AND p.desired_instances IS NOT NULL AND failed.count > 0
ORDER BY p.id
