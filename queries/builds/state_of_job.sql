-- The provisioner state of the build that the daemon $3 of the organization $2 carries out with the job $1.
SELECT b.provisioner_state
FROM provisioner_jobs AS j
INNER JOIN workspace_builds AS b ON b.job_id = j.id
WHERE j.id = $1 AND j.organization_id = $2 AND j.worker_id = $3 AND j.completed_at IS NULL
