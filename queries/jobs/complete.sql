-- A daemon ends a job, with or without an error (domain: ending a job). $1 the job; of the permit: $2 the organization,
-- $3 the daemon; $4 the time, $5 the error or null, $6 its code or null, $7 the state that its build left, null for
-- what is there. A row that is in scope always comes back.
WITH decided AS (
    SELECT
        id,
        CASE
            WHEN worker_id IS NULL THEN 'not_running_yet'
            WHEN worker_id <> $3 THEN 'other_owner'
            WHEN completed_at IS NOT NULL THEN 'already_completed'
            ELSE 'done'
        END AS outcome,
        $5::text IS NULL AND canceled_at IS NULL AS succeeds
    FROM provisioner_jobs
    WHERE id = $1 AND organization_id = $2
    FOR UPDATE
),

build AS (
    SELECT b.id, b.job_id, b.reason, b.transition, b.workspace_id, w.owner_id, d.succeeds
    FROM decided AS d
    INNER JOIN workspace_builds AS b ON b.job_id = d.id
    INNER JOIN workspaces AS w ON w.id = b.workspace_id
    WHERE d.outcome = 'done'
),

-- The job was taken away from its daemon, which built something nevertheless: without its state that could not be
-- destroyed. A newer build goes on from the state that it found.
late AS (
    UPDATE workspace_builds AS b
    SET updated_at = $4, provisioner_state = $7
    FROM decided AS d
    WHERE d.outcome = 'already_completed'
        AND b.job_id = d.id
        AND $7::bytea IS NOT NULL
        AND NOT EXISTS (
            SELECT 1 FROM workspace_builds AS newer
            WHERE newer.workspace_id = b.workspace_id AND newer.build_number > b.build_number
        )
    RETURNING b.id
),

-- A prebuilt workspace does not stop by itself before it is claimed.
built AS (
    UPDATE workspace_builds AS b
    SET
        updated_at = $4,
        provisioner_state = coalesce($7::bytea, b.provisioner_state),
        deadline = CASE WHEN p.is_prebuild THEN '0001-01-01 00:00:00+00' ELSE b.deadline END,
        max_deadline = CASE WHEN p.is_prebuild THEN '0001-01-01 00:00:00+00' ELSE b.max_deadline END
    FROM (SELECT id, owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AS is_prebuild FROM build) AS p
    WHERE b.id = p.id AND (p.is_prebuild OR $7::bytea IS NOT NULL)
),

-- Nothing is left of what the build was to delete.
gone AS (
    UPDATE workspaces AS w
    SET deleted = true, updated_at = $4
    FROM build
    WHERE w.id = build.workspace_id AND build.transition = 'delete' AND build.succeeds
)

UPDATE provisioner_jobs AS j
SET
    updated_at = CASE WHEN d.outcome = 'done' THEN $4 ELSE j.updated_at END,
    completed_at = CASE WHEN d.outcome = 'done' THEN $4 ELSE j.completed_at END,
    error = CASE WHEN d.outcome = 'done' THEN $5 ELSE j.error END,
    error_code = CASE WHEN d.outcome = 'done' THEN $6 ELSE j.error_code END
FROM decided AS d
LEFT JOIN build ON build.job_id = d.id
WHERE j.id = d.id
RETURNING
    d.outcome AS "outcome!",
    EXISTS (SELECT FROM late) AS "state_kept!",
    build.id AS "build_id?",
    build.workspace_id AS "workspace_id?",
    build.owner_id AS "owner_id?",
    build.reason AS "reason?",
    build.transition AS "transition?",
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
