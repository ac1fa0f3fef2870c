-- Sets the overflow flag of the agent $3 in the organization $1, of the owner $2 when it is not null, to $4.
UPDATE workspace_agents AS a
SET logs_overflowed = $4
FROM workspace_resources AS r
INNER JOIN workspace_builds AS b ON b.job_id = r.job_id
INNER JOIN workspaces AS w ON w.id = b.workspace_id
WHERE a.id = $3 AND r.id = a.resource_id AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
