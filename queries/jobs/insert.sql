-- A job about the version $11 enters the queue (domain: new jobs). $1 its id, $2 the time; of the permit: $3 the organization,
-- $4 the initiator; $5 provisioner and $6 source of an import, null for a dry run; $7 type; $8 input, $9 tags and $10 trace
-- metadata as JSON texts. What is planned is there, with its source, and the lists of its template let the user $12 read it
-- (as in templates/get.sql), when that is not null; what is imported may come after its job.
INSERT INTO provisioner_jobs AS j (
    id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type, input, tags,
    trace_metadata, logs_overflowed
)
SELECT
    $1, $2, $2, o.id, $4, coalesce(($5::text)::provisioner_type, imported.provisioner), 'file',
    coalesce(f.id, imported.file_id), ($7::text)::provisioner_job_type, ($8::text)::jsonb, ($9::text)::jsonb,
    ($10::text)::jsonb, false
FROM organizations AS o
LEFT JOIN template_versions AS v ON v.id = $11
LEFT JOIN templates AS t ON t.id = v.template_id
LEFT JOIN provisioner_jobs AS imported ON imported.id = v.job_id
LEFT JOIN files AS f ON f.id = $6::uuid AND f.created_by = $4
WHERE o.id = $3
    AND o.deleted = false
    AND CASE ($7::text)::provisioner_job_type
        WHEN 'template_version_import' THEN coalesce(v.organization_id = o.id, true) AND f.id IS NOT NULL
        ELSE v.organization_id = o.id AND imported.id IS NOT NULL AND ($12::uuid IS NULL OR EXISTS (
            SELECT 1
            FROM organization_members AS m
            LEFT JOIN group_members AS g ON g.user_id = m.user_id
            CROSS JOIN unnest(ARRAY[
                t.user_acl -> m.user_id::text, t.group_acl -> m.organization_id::text, t.group_acl -> g.group_id::text
            ]) AS list (actions)
            WHERE m.organization_id = t.organization_id AND m.user_id = $12
                AND (list.actions @> jsonb_build_array('read') OR list.actions @> '["*"]')
        ))
    END
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
    j.worker_id,
    j.file_id,
    j.tags,
    j.error_code,
    j.trace_metadata,
    j.job_status,
    j.logs_length,
    j.logs_overflowed
