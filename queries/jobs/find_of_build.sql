-- The job that carries out the build $1, and whose organization's it is.
SELECT j.id, j.organization_id
FROM workspace_builds AS b
INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
WHERE b.id = $1
