-- The first $6 jobs that a daemon can take become its own (domain 5.1). $1 the time; of the permit: $2 the daemon, $3 the
-- organization; $4 its provisioners, $5 its tags.
WITH head AS MATERIALIZED (
    SELECT prebuild, created_at FROM provisioner_job_queue_head($3, ($4::text[])::provisioner_type[], $5::jsonb)
)

UPDATE provisioner_jobs AS j
SET started_at = $1, updated_at = $1, worker_id = $2
-- An array is looked for once, before the update: a subquery with a lock in a join could be run, and lock, again.
WHERE j.id = ANY (ARRAY(
    SELECT q.id
    FROM provisioner_jobs AS q
    WHERE q.started_at IS NULL
        AND q.completed_at IS NULL
        AND q.organization_id = $3
        AND q.provisioner = ANY (($4::text[])::provisioner_type[])
        AND provisioner_tagset_contains($5::jsonb, q.tags)
        -- Not before the first of them: an old transaction may keep entries of jobs that others took long ago.
        AND (q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', q.created_at)
        >= ((SELECT prebuild FROM head), (SELECT created_at FROM head))
    ORDER BY q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', q.created_at, q.id
    LIMIT $6
    FOR UPDATE SKIP LOCKED
))
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
