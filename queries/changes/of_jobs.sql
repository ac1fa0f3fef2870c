-- How the jobs $1 stand, and how far their logs go.
SELECT
    j.id,
    j.organization_id,
    j.job_status,
    j.error,
    j.error_code,
    (SELECT max(l.id) FROM provisioner_job_logs AS l WHERE l.job_id = j.id) AS last_log_id
FROM provisioner_jobs AS j
WHERE j.id = ANY ($1::uuid[])
