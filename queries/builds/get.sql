-- The build $3 in the organization $1, of the owner $2 when it is not null.
SELECT
    b.id,
    b.created_at,
    b.updated_at,
    b.workspace_id,
    b.template_version_id,
    b.build_number,
    b.transition,
    b.initiator_id,
    b.job_id,
    j.job_status,
    j.error AS job_error,
    j.error_code AS job_error_code,
    b.deadline,
    b.max_deadline,
    b.reason,
    b.daily_cost,
    b.template_version_preset_id,
    b.has_external_agent
FROM workspace_builds AS b
INNER JOIN workspaces AS w ON w.id = b.workspace_id
INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
WHERE w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2) AND b.id = $3
