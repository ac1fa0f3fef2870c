-- Overwrites which build $3 and which agent $4 the chat $1 works with, once they are known; null clears.
-- The chat is of the owner $2, who is a member of its organization, unless that is null. Both belong to its
-- organization and owner.
UPDATE chats AS c SET build_id = $3, agent_id = $4, updated_at = now()
WHERE c.id = $1
    AND ($2::uuid IS NULL OR c.owner_id = $2 AND EXISTS (
        SELECT 1
        FROM organization_members AS m
        INNER JOIN organizations AS o ON o.id = m.organization_id AND o.deleted = false
        WHERE m.organization_id = c.organization_id AND m.user_id = $2
    ))
    AND ($3::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM workspace_builds AS b
        INNER JOIN workspaces AS w ON w.id = b.workspace_id
        WHERE b.id = $3 AND w.organization_id = c.organization_id AND w.owner_id = c.owner_id
    ))
    AND ($4::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM workspace_agents AS a
        INNER JOIN workspace_resources AS r ON r.id = a.resource_id
        INNER JOIN workspace_builds AS b ON b.job_id = r.job_id
        INNER JOIN workspaces AS w ON w.id = b.workspace_id
        WHERE a.id = $4 AND w.organization_id = c.organization_id AND w.owner_id = c.owner_id
    ))
RETURNING c.id, c.owner_id, c.organization_id, c.workspace_id, c.build_id, c.agent_id, c.updated_at
