-- The timings of a job, by start (domain: timings). $1 the job; of the permit: $2 the organization, $3 the only owner or null
-- for all, $4 imports too. One row of nulls for a job without timings; no row when there is no job.
SELECT
    t.started_at AS "started_at?",
    t.ended_at AS "ended_at?",
    t.stage AS "stage?",
    t.source AS "source?",
    t.action AS "action?",
    t.resource AS "resource?"
FROM provisioner_jobs AS j
LEFT JOIN workspace_builds AS b ON b.job_id = j.id
LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
LEFT JOIN provisioner_job_timings AS t ON t.job_id = j.id
WHERE j.id = $1
    AND j.organization_id = $2
    AND (
        $3::uuid IS NULL
        OR w.owner_id = $3
        OR j.type = 'template_version_dry_run' AND j.initiator_id = $3
        OR j.type = 'template_version_import' AND $4::boolean
    )
ORDER BY t.started_at, t.ended_at
