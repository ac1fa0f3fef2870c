-- The log lines of the agent $3 with an id above $4, oldest first, in the organization $1, of the owner $2 when it is not
-- null. One row of nulls for an agent without such lines; no row when there is no agent.
SELECT
    l.id AS "id?",
    l.created_at AS "created_at?",
    l.level AS "level?",
    l.output AS "output?",
    l.log_source_id AS "log_source_id?"
FROM workspace_agents AS a
INNER JOIN workspace_resources AS r ON r.id = a.resource_id
INNER JOIN workspace_builds AS b ON b.job_id = r.job_id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
LEFT JOIN workspace_agent_logs AS l ON l.agent_id = a.id AND l.id > $4
WHERE a.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
ORDER BY l.id
