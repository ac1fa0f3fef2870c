-- A job enters the queue (domain 5.5). $1 its id, $2 the time; of the permit: $3 the organization, $4 the initiator;
-- $5 provisioner, $6 storage method, $7 file, $8 type, $9 input, $10 tags and $11 trace metadata as JSON texts; $12 the
-- version that it is about. What is planned is there; what is imported may come after its job.
INSERT INTO provisioner_jobs AS j (
    id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type, input, tags,
    trace_metadata, logs_overflowed
)
SELECT
    $1, $2, $2, o.id, $4, ($5::text)::provisioner_type, ($6::text)::provisioner_storage_method, $7,
    ($8::text)::provisioner_job_type, ($9::text)::jsonb, ($10::text)::jsonb, ($11::text)::jsonb, false
FROM organizations AS o
LEFT JOIN template_versions AS v ON v.id = $12
WHERE o.id = $3
    AND o.deleted = false
    AND coalesce(v.organization_id = o.id, ($8::text)::provisioner_job_type = 'template_version_import')
RETURNING
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
    provisioner_job_input_uuid(j.input, 'template_version_id') AS input_template_version_id,
    provisioner_job_input_uuid(j.input, 'workspace_build_id') AS input_workspace_build_id,
    j.worker_id,
    j.file_id,
    j.tags,
    j.error_code,
    j.trace_metadata,
    j.job_status,
    j.logs_length,
    j.logs_overflowed
