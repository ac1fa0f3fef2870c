-- The chat $1, of the owner $2, who is a member of its organization, unless that is null; locked.
SELECT c.id, c.owner_id, c.organization_id, c.workspace_id, c.build_id, c.agent_id, c.updated_at
FROM chats AS c
WHERE c.id = $1 AND ($2::uuid IS NULL OR c.owner_id = $2 AND EXISTS (
    SELECT 1
    FROM organization_members AS m
    INNER JOIN organizations AS o ON o.id = m.organization_id AND o.deleted = false
    WHERE m.organization_id = c.organization_id AND m.user_id = $2
))
FOR NO KEY UPDATE OF c
