-- The job $1 of the organization $2, locked until the transaction ends; waits for its lock (domain: listings).
SELECT
    j.id,
    j.created_at,
    j.updated_at,
    j.started_at,
    j.canceled_at,
    j.completed_at,
    j.error,
    j.organization_id,
    j.initiator_id,
    j.provisioner,
    j.storage_method,
    j.type AS job_type,
    j.input,
    j.worker_id,
    j.file_id,
    j.tags,
    j.error_code,
    j.trace_metadata,
    j.job_status,
    j.logs_length,
    j.logs_overflowed
FROM provisioner_jobs AS j
WHERE j.id = $1 AND j.organization_id = $2
FOR UPDATE
