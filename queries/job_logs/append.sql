-- A daemon appends log lines to its job, within the cap (domain: log cap). $1 the job; of the permit: $2 the
-- organization, $3 the daemon; $4 to $8 the lines, one array per column; $9 the last line of logs that overflow, $10
-- the cap in bytes. The walk is on this side because it must see the counter under the lock that also guards the write.
WITH locked AS (
    SELECT
        id,
        logs_length,
        CASE
            WHEN worker_id IS NULL THEN 'not_running_yet'
            WHEN worker_id <> $3 THEN 'other_owner'
            WHEN completed_at IS NOT NULL THEN 'ended'
            WHEN logs_overflowed THEN 'dropped'
            ELSE 'open'
        END AS state
    FROM provisioner_jobs
    WHERE id = $1 AND organization_id = $2
    FOR NO KEY UPDATE
),

walked AS (
    SELECT
        line.n,
        line.created_at,
        line.source,
        line.level,
        line.stage,
        line.output,
        -- Room for the last line is kept at each step, so that it always fits.
        locked.logs_length + sum(octet_length(line.output)) OVER (ORDER BY line.n) + octet_length($9::text)
        > $10::integer AS overflows
    FROM locked
    CROSS JOIN unnest($4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[])
        WITH ORDINALITY AS line (created_at, source, level, stage, output, n)
    WHERE locked.state = 'open'
),

-- A running total never shrinks: what comes after the first line that overflows overflows, too.
kept AS (
    SELECT
        n,
        created_at,
        source,
        CASE WHEN overflows THEN 'warn' ELSE level END AS level,
        stage,
        CASE WHEN overflows THEN $9 ELSE output END AS output,
        overflows
    FROM walked
    WHERE NOT overflows OR n = (SELECT min(first.n) FROM walked AS first WHERE first.overflows)
),

decided AS (
    SELECT
        locked.id,
        total.bytes,
        CASE
            WHEN locked.state <> 'open' THEN locked.state
            -- A writer that kept no room for the last line has filled the counter: max_provisioner_logs_length.
            WHEN locked.logs_length + total.bytes > $10 THEN 'refused'
            WHEN total.overflows THEN 'overflowed'
            ELSE 'appended'
        END AS outcome
    FROM locked
    CROSS JOIN (
        SELECT coalesce(sum(octet_length(output)), 0) AS bytes, coalesce(bool_or(overflows), false) AS overflows
        FROM kept
    ) AS total
),

inserted AS (
    INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
    SELECT d.id, k.created_at, k.source::log_source, k.level::log_level, k.stage::varchar(128), k.output::varchar(1024)
    FROM decided AS d
    CROSS JOIN kept AS k
    WHERE d.outcome IN ('appended', 'overflowed')
    ORDER BY k.n
    RETURNING id
),

counted AS (
    UPDATE provisioner_jobs AS j
    SET
        logs_length = j.logs_length + CASE WHEN d.outcome = 'refused' THEN 0 ELSE d.bytes END,
        logs_overflowed = d.outcome IN ('overflowed', 'refused')
    FROM decided AS d
    WHERE j.id = d.id AND (d.outcome IN ('overflowed', 'refused') OR d.outcome = 'appended' AND d.bytes > 0)
)

SELECT
    decided.outcome AS "outcome!",
    (SELECT min(inserted.id) FROM inserted) AS "first_id?",
    (SELECT count(*) FROM inserted) AS "lines!"
FROM decided
