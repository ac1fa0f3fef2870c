-- The log lines of a job with an id above $3, oldest first (domain: job logs). $1 the job; of the permit: $2 the organization,
-- $4 the only owner or null for all, $5 imports too. One row of nulls for a job without such lines; no row when there is no
-- job.
SELECT
    l.id AS "id?",
    l.created_at AS "created_at?",
    l.source AS "source?",
    l.level AS "level?",
    l.stage AS "stage?",
    l.output AS "output?"
FROM provisioner_jobs AS j
LEFT JOIN workspace_builds AS b ON b.job_id = j.id
LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
LEFT JOIN provisioner_job_logs AS l ON l.job_id = j.id AND l.id > $3
WHERE j.id = $1
    AND j.organization_id = $2
    AND (
        $4::uuid IS NULL
        OR w.owner_id = $4
        OR j.type = 'template_version_dry_run' AND j.initiator_id = $4
        OR j.type = 'template_version_import' AND $5::boolean
    )
ORDER BY l.id
