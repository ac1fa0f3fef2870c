-- Ends the job $1 for want of a sign of life (domain: reaping), all or nothing. $2 the time; what never started is due when it
-- is older than $3, after $4 minutes; what started when it is silent since before $5, for $6 minutes. No row when the
-- job is locked or gone.
WITH locked AS (
    SELECT id, organization_id, started_at, completed_at, updated_at
    FROM provisioner_jobs
    WHERE id = $1
    FOR UPDATE SKIP LOCKED
),

decided AS (
    SELECT
        id,
        organization_id,
        started_at IS NULL AS is_pending,
        CASE
            WHEN completed_at IS NOT NULL THEN 'already_completed'
            WHEN updated_at >= CASE WHEN started_at IS NULL THEN $3::timestamptz ELSE $5::timestamptz END THEN 'alive'
            ELSE 'reaped'
        END AS outcome
    FROM locked
),

doomed AS (
    SELECT
        id,
        format(
            'Coder: Build has been detected as %s for %s minutes',
            CASE WHEN is_pending THEN 'pending' ELSE 'hung' END,
            CASE WHEN is_pending THEN $4::bigint ELSE $6::bigint END
        ) AS detected
    FROM decided
    WHERE outcome = 'reaped'
),

-- These bypass the counter of the logs, so that a job that has used it up still says why it ended.
lines AS (
    INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
    SELECT
        doomed.id,
        $2::timestamptz + line.n * interval '1 millisecond',
        'provisioner_daemon',
        'error',
        coalesce(
            (SELECT l.stage FROM provisioner_job_logs AS l WHERE l.job_id = doomed.id ORDER BY l.id DESC LIMIT 1),
            'Unknown'
        ),
        line.output
    FROM doomed
    CROSS JOIN LATERAL (
        VALUES (0, ''), (1, repeat('=', 80)), (2, doomed.detected || ' and will be terminated.'), (3, repeat('=', 80)), (4, '')
    ) AS line (n, output)
    ORDER BY line.n
    RETURNING id
),

-- Without a state, whatever earlier builds have made could never be destroyed.
previous AS (
    SELECT
        b.id,
        (
            SELECT p.provisioner_state
            FROM workspace_builds AS p
            WHERE p.workspace_id = b.workspace_id AND p.build_number < b.build_number
            ORDER BY p.build_number DESC
            LIMIT 1
        ) AS state
    FROM doomed
    INNER JOIN workspace_builds AS b ON b.job_id = doomed.id
),

copied AS (
    UPDATE workspace_builds AS b
    SET provisioner_state = previous.state, updated_at = $2
    FROM previous
    WHERE b.id = previous.id
        AND coalesce(octet_length(b.provisioner_state), 0) = 0
        AND octet_length(previous.state) > 0
),

completed AS (
    UPDATE provisioner_jobs AS j
    SET
        started_at = coalesce(j.started_at, $2),
        updated_at = $2,
        completed_at = $2,
        error = doomed.detected || ' and has been terminated by the reaper.',
        error_code = NULL
    FROM doomed
    WHERE j.id = doomed.id
)

SELECT
    decided.organization_id,
    decided.is_pending AS "is_pending!",
    decided.outcome AS "outcome!",
    (SELECT min(lines.id) FROM lines) AS "first_log_id?"
FROM decided
