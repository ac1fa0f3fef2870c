-- What the user $1 consumes and may consume in the organization $2 (domain: quota), and what starts of the template $3 there,
-- with a preset of the name $4 if there is one, have committed of late (domain: quota check): of the newest $5 jobs of the
-- organization, the costs of the newest $6 successful starts; and of each prebuilt workspace that can be claimed.
SELECT
    preset.id IS NOT NULL AS "has_preset!",
    (
        SELECT coalesce(sum(latest.daily_cost), 0)
        FROM unnest(ARRAY(
            SELECT id FROM workspaces WHERE owner_id = $1 AND organization_id = $2 AND deleted = false
        )) AS owned (workspace_id)
        CROSS JOIN LATERAL (
            SELECT b.daily_cost
            FROM workspace_builds AS b
            WHERE b.workspace_id = owned.workspace_id
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS latest
    )::bigint AS "credits_consumed!",
    (
        SELECT coalesce(sum(g.quota_allowance), 0)
        FROM groups AS g
        WHERE g.organization_id = $2
            AND EXISTS (SELECT 1 FROM users AS u WHERE u.id = $1 AND u.deleted = false)
            AND (
                EXISTS (SELECT 1 FROM group_members AS m WHERE m.group_id = g.id AND m.user_id = $1)
                OR EXISTS (SELECT 1 FROM organization_members AS m WHERE m.organization_id = g.id AND m.user_id = $1)
            )
    )::bigint AS "budget!",
    ARRAY(
        SELECT started.daily_cost
        FROM (
            SELECT j.id, j.job_status, j.created_at
            FROM provisioner_jobs AS j
            WHERE j.organization_id = $2
            ORDER BY j.created_at DESC, j.id DESC
            LIMIT $5
        ) AS newest
        -- No index has the builds of a template. One look per job, newest first, ends with the last sample.
        CROSS JOIN LATERAL (
            SELECT b.daily_cost
            FROM workspace_builds AS b
            INNER JOIN template_versions AS v ON v.id = b.template_version_id
            WHERE b.job_id = newest.id
                AND b.transition = 'start'
                AND v.template_id = t.id
                AND (
                    $4::text IS NULL
                    OR EXISTS (
                        SELECT 1 FROM template_version_presets AS p
                        WHERE p.id = b.template_version_preset_id AND p.name = $4
                    )
                )
            LIMIT 1
        ) AS started
        WHERE newest.job_status = 'succeeded'
        ORDER BY newest.created_at DESC, newest.id DESC
        LIMIT $6
    ) AS "costs!",
    ARRAY(
        SELECT latest.daily_cost
        FROM unnest(ARRAY(
            SELECT w.id FROM workspaces AS w
            WHERE w.owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
                AND w.organization_id = $2
                AND w.template_id = t.id
                AND w.deleted = false
                AND preset.id IS NOT NULL
        )) AS unclaimed (id)
        CROSS JOIN LATERAL (
            SELECT b.daily_cost, b.template_version_id, b.transition, b.job_id, j.job_status
            FROM workspace_builds AS b
            INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
            WHERE b.workspace_id = unclaimed.id
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS latest
        CROSS JOIN LATERAL (
            SELECT b.template_version_preset_id AS id
            FROM workspace_builds AS b
            WHERE b.workspace_id = unclaimed.id AND b.template_version_preset_id IS NOT NULL
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS current
        CROSS JOIN LATERAL (
            SELECT coalesce(bool_and(a.lifecycle_state = 'ready'), false) AS ready
            FROM workspace_resources AS r
            INNER JOIN workspace_agents AS a ON a.resource_id = r.id
            WHERE r.job_id = latest.job_id AND a.deleted = false
        ) AS agents
        WHERE latest.transition = 'start'
            AND latest.job_status = 'succeeded'
            AND latest.template_version_id = t.active_version_id
            AND current.id = preset.id
            AND agents.ready
    ) AS "claims!"
FROM templates AS t
LEFT JOIN template_version_presets AS preset ON preset.template_version_id = t.active_version_id AND preset.name = $4
WHERE t.id = $3 AND t.organization_id = $2 AND t.deleted = false
