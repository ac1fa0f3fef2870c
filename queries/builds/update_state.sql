-- Stores the provisioner state $3 of the build $2 in the organization $1, at $4.
UPDATE workspace_builds AS b
SET provisioner_state = $3, updated_at = $4
FROM workspaces AS w
WHERE b.id = $2 AND w.id = b.workspace_id AND w.organization_id = $1
