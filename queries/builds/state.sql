-- The provisioner state of the build $2 in the organization $1.
SELECT b.provisioner_state
FROM workspace_builds AS b
INNER JOIN workspaces AS w ON w.id = b.workspace_id
WHERE b.id = $2 AND w.organization_id = $1
