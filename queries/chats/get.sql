-- The chat $1, of the owner $2 unless that is null.
SELECT id, owner_id, organization_id, workspace_id, build_id, agent_id, updated_at
FROM chats
WHERE id = $1 AND ($2::uuid IS NULL OR owner_id = $2)
