-- Asks for jobs to be canceled (domain: canceling). $1 the jobs, $2 the time, or null to decide without locking or
-- writing anything, $3 the expected status or null; of the permit: $4 the organization, $5 the only owner or null for
-- all, $6 imports too, $7 builds that their template does not let users cancel too. A row that is in scope always comes
-- back.
WITH reached AS (
    SELECT j.id, coalesce(t.allow_user_cancel_workspace_jobs, false) AS is_allowed
    FROM provisioner_jobs AS j
    LEFT JOIN workspace_builds AS b ON b.job_id = j.id
    LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
    LEFT JOIN templates AS t ON t.id = w.template_id AND t.organization_id = j.organization_id
    WHERE j.id = ANY ($1::uuid[])
        AND j.organization_id = $4
        AND CASE j.type
            WHEN 'template_version_import' THEN $6
            WHEN 'workspace_build' THEN $5::uuid IS NULL OR w.owner_id = $5
            WHEN 'template_version_dry_run' THEN $5::uuid IS NULL OR j.initiator_id = $5
            ELSE $5::uuid IS NULL
        END
),

locked AS (
    SELECT j.*
    FROM provisioner_jobs AS j
    WHERE j.id = ANY (ARRAY(SELECT id FROM reached)) AND $2::timestamptz IS NOT NULL
    -- All in one order, so that two batches never wait for each other.
    ORDER BY j.id
    FOR UPDATE
),

decided AS (
    SELECT
        j.*,
        CASE
            WHEN j.type = 'workspace_build'
                AND NOT reached.is_allowed
                AND NOT $7::boolean
                AND $3::text IS DISTINCT FROM 'pending' THEN 'not_allowed'
            WHEN j.completed_at IS NOT NULL THEN 'already_finished'
            WHEN j.canceled_at IS NOT NULL THEN 'already_canceled'
            WHEN j.job_status::text <> $3 THEN 'not_in_expected_state'
            -- No daemon works on it, so none would complete it.
            WHEN j.worker_id IS NULL THEN 'canceled'
            ELSE 'canceling'
        END AS outcome
    FROM (
        SELECT * FROM locked
        UNION ALL
        SELECT j.* FROM provisioner_jobs AS j WHERE j.id = ANY (ARRAY(SELECT id FROM reached)) AND $2 IS NULL
    ) AS j
    INNER JOIN reached ON reached.id = j.id
),

canceled AS (
    UPDATE provisioner_jobs AS j
    SET
        canceled_at = $2,
        completed_at = CASE WHEN d.outcome = 'canceled' THEN $2 ELSE j.completed_at END
    FROM decided AS d
    WHERE j.id = d.id AND d.outcome IN ('canceled', 'canceling') AND $2::timestamptz IS NOT NULL
    RETURNING j.id, j.canceled_at, j.completed_at, j.job_status
)

SELECT
    d.outcome AS "outcome!",
    d.id AS "id!: JobId",
    d.created_at AS "created_at!",
    d.updated_at AS "updated_at!",
    d.started_at AS "started_at?",
    coalesce(c.canceled_at, d.canceled_at) AS "canceled_at?",
    coalesce(c.completed_at, d.completed_at) AS "completed_at?",
    d.error AS "error?: Text",
    d.organization_id AS "organization_id!: OrganizationId",
    d.initiator_id AS "initiator_id!: UserId",
    d.provisioner AS "provisioner!",
    d.storage_method AS "storage_method!",
    d.type AS "job_type!",
    d.input AS "input!: StoredInput",
    d.worker_id AS "worker_id?: DaemonId",
    d.file_id AS "file_id!: FileId",
    d.tags AS "tags!",
    d.error_code AS "error_code?: Text",
    d.trace_metadata AS "trace_metadata?",
    coalesce(c.job_status, d.job_status) AS "job_status!",
    d.logs_length AS "logs_length!",
    d.logs_overflowed AS "logs_overflowed!"
FROM decided AS d
LEFT JOIN canceled AS c ON c.id = d.id
