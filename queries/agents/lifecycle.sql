-- The lifecycle of the agent $3 in the organization $1, of the owner $2 when it is not null.
SELECT a.lifecycle_state, a.started_at, a.ready_at
FROM workspace_agents AS a
INNER JOIN workspace_resources AS r ON r.id = a.resource_id
INNER JOIN workspace_builds AS b ON b.job_id = r.job_id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
WHERE a.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
