-- Asks for jobs to be canceled (domain 8.6, 10.4). $1 the jobs, $2 the time, $3 the expected status or null; of the permit:
-- $4 the organization, $5 the only owner or null for all, $6 imports too, $7 builds that their template does not let
-- users cancel too. Locks, decides and writes; a row that is in scope always comes back.
WITH decided AS (
    SELECT
        j.id,
        CASE
            WHEN j.type = 'workspace_build'
                AND NOT coalesce(t.allow_user_cancel_workspace_jobs, false)
                AND NOT $7::boolean
                AND $3::text IS DISTINCT FROM 'pending' THEN 'not_allowed'
            WHEN j.completed_at IS NOT NULL THEN 'already_finished'
            WHEN j.canceled_at IS NOT NULL THEN 'already_canceled'
            WHEN j.job_status::text <> $3 THEN 'not_in_expected_state'
            -- Nobody works on it, so nobody would ever complete it.
            WHEN j.worker_id IS NULL THEN 'canceled'
            ELSE 'canceling'
        END AS outcome
    FROM provisioner_jobs AS j
    LEFT JOIN workspace_builds AS b ON b.job_id = j.id
    LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
    LEFT JOIN templates AS t ON t.id = w.template_id AND t.organization_id = j.organization_id
    WHERE j.id = ANY ($1::uuid[])
        AND j.organization_id = $4
        AND CASE j.type
            WHEN 'template_version_import' THEN $6
            WHEN 'workspace_build' THEN $5::uuid IS NULL OR w.owner_id = $5
            ELSE $5::uuid IS NULL OR j.initiator_id = $5
        END
    -- All in one order, so that two batches never wait for each other.
    ORDER BY j.id
    FOR UPDATE OF j
)

UPDATE provisioner_jobs AS j
SET
    canceled_at = CASE WHEN d.outcome IN ('canceled', 'canceling') THEN $2 ELSE j.canceled_at END,
    completed_at = CASE WHEN d.outcome = 'canceled' THEN $2 ELSE j.completed_at END
FROM decided AS d
WHERE j.id = d.id
RETURNING
    d.outcome AS "outcome!",
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
