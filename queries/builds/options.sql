-- What the job of the build $3 in the organization $1, of the owner $2 when it is not null, was given: its input without
-- the keys that name its target.
SELECT
    CASE jsonb_typeof(j.input::jsonb)
        WHEN 'object' THEN j.input::jsonb - '{workspace_build_id,template_version_id}'::text[]
        ELSE '{}'
    END AS "options!"
FROM workspace_builds AS b
INNER JOIN workspaces AS w ON w.id = b.workspace_id
INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
WHERE b.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
