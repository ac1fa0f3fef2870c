-- Appends lines to the logs of the agent $1: the outputs $2 with the levels $3, from the source $4, at $5. A batch beyond
-- the cap of 1 MiB is dropped, and sets the flag.
WITH agent AS (
    SELECT id FROM workspace_agents WHERE id = $1 AND deleted = false
),

line AS (
    SELECT l.output::varchar(1024) AS output, l.level::log_level AS level, l.n
    FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS l (output, level, n)
),

batch AS (
    SELECT coalesce(sum(octet_length(output)), 0) AS bytes FROM line
),

-- Waits for whoever appends to the same agent, and then adds to what that one left.
counted AS (
    UPDATE workspace_agents AS a
    SET logs_length = CASE WHEN a.logs_length + batch.bytes <= 1048576 THEN a.logs_length + batch.bytes
                           ELSE a.logs_length END,
        logs_overflowed = a.logs_length + batch.bytes > 1048576
    FROM agent
    CROSS JOIN batch
    WHERE a.id = agent.id AND a.logs_overflowed = false
    RETURNING a.id, a.logs_overflowed
),

stored AS (
    INSERT INTO workspace_agent_logs (agent_id, created_at, output, level, log_source_id)
    SELECT counted.id, $5, line.output, line.level, $4
    FROM counted
    CROSS JOIN line
    WHERE counted.logs_overflowed = false
    ORDER BY line.n
    RETURNING workspace_agent_logs.id
)

SELECT
    coalesce((SELECT counted.logs_overflowed FROM counted), true) AS "overflowed!",
    (SELECT min(stored.id) FROM stored) AS "first_id?"
FROM agent
