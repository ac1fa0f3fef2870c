-- The source of the job $1 that the daemon $3 of the organization $2 carries out.
SELECT f.id, f.hash, f.created_at, f.created_by, f.mimetype, f.data
FROM provisioner_jobs AS j
INNER JOIN files AS f ON f.id = j.file_id
WHERE j.id = $1 AND j.organization_id = $2 AND j.worker_id = $3 AND j.completed_at IS NULL
