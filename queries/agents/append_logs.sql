-- Appends lines to the logs of the agent $3 in the organization $1, of the owner $2 when it is not null: the outputs
-- $4 with the levels $5, from the source $6, at $7. A batch beyond the cap of 1 MiB is dropped, and sets the flag.
WITH agent AS (
    SELECT a.id
    FROM workspace_agents AS a
    INNER JOIN workspace_resources AS r ON r.id = a.resource_id
    INNER JOIN workspace_builds AS b ON b.job_id = r.job_id
    INNER JOIN workspaces AS w ON w.id = b.workspace_id
    WHERE a.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
),

line AS (
    SELECT l.output::varchar(1024) AS output, l.level::log_level AS level, l.n
    FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS l (output, level, n)
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
    SELECT counted.id, $7, line.output, line.level, $6
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
