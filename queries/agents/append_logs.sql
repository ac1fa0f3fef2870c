-- An agent appends lines to its logs, within the cap (domain: log cap; last line of agent logs). $1 the agent; $2 and
-- $3 outputs and levels; $4 the source, $5 the time; $6 the last line of logs that overflow, $7 the cap in bytes. The
-- walk is on this side because it must see the counter under the lock that also guards the write.
WITH locked AS (
    SELECT id, logs_length, logs_overflowed
    FROM workspace_agents
    WHERE id = $1 AND deleted = false
    FOR NO KEY UPDATE
),

walked AS (
    SELECT
        line.n,
        line.output,
        line.level,
        -- Room for the last line is kept at each step, so that it always fits.
        locked.logs_length + sum(octet_length(line.output)) OVER (ORDER BY line.n) + octet_length($6::text)
        > $7::integer AS overflows
    FROM locked
    CROSS JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY AS line (output, level, n)
    WHERE locked.logs_overflowed = false
),

-- A running total never shrinks: what comes after the first line that overflows overflows, too.
kept AS (
    SELECT
        n,
        CASE WHEN overflows THEN $6 ELSE output END AS output,
        CASE WHEN overflows THEN 'warn' ELSE level END AS level,
        overflows
    FROM walked
    WHERE NOT overflows OR n = (SELECT min(first.n) FROM walked AS first WHERE first.overflows)
),

decided AS (
    SELECT
        locked.id,
        total.bytes,
        CASE
            WHEN locked.logs_overflowed THEN 'dropped'
            -- A writer that kept no room for the last line has filled the counter: max_logs_length.
            WHEN locked.logs_length + total.bytes > $7 THEN 'refused'
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
    INSERT INTO workspace_agent_logs (agent_id, created_at, output, level, log_source_id)
    SELECT d.id, $5, k.output::varchar(1024), k.level::log_level, $4
    FROM decided AS d
    CROSS JOIN kept AS k
    WHERE d.outcome IN ('appended', 'overflowed')
    ORDER BY k.n
    RETURNING id
),

counted AS (
    UPDATE workspace_agents AS a
    SET
        logs_length = a.logs_length + CASE WHEN d.outcome = 'refused' THEN 0 ELSE d.bytes END,
        logs_overflowed = d.outcome IN ('overflowed', 'refused')
    FROM decided AS d
    WHERE a.id = d.id AND (d.outcome IN ('overflowed', 'refused') OR d.outcome = 'appended' AND d.bytes > 0)
)

SELECT
    decided.outcome AS "outcome!",
    (SELECT min(inserted.id) FROM inserted) AS "first_id?",
    (SELECT count(*) FROM inserted) AS "lines!"
FROM decided
