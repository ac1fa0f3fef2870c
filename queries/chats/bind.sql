-- Overwrites what the chat $1 works with: the workspace $3, the build $4 and the agent $5; null clears.
-- The chat is of the owner $2, who is a member of its organization, unless that is null. Everything bound belongs to the
-- organization and to the owner of the chat.
UPDATE chats AS c SET workspace_id = $3, build_id = $4, agent_id = $5, updated_at = now()
WHERE c.id = $1
    AND ($2::uuid IS NULL OR c.owner_id = $2 AND EXISTS (
        SELECT 1
        FROM organization_members AS m
        INNER JOIN organizations AS o ON o.id = m.organization_id AND o.deleted = false
        WHERE m.organization_id = c.organization_id AND m.user_id = $2
    ))
    AND ($3::uuid IS NULL OR EXISTS (
        SELECT 1 FROM workspaces AS w WHERE w.id = $3 AND w.organization_id = c.organization_id AND w.owner_id = c.owner_id
    ))
    AND ($4::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM workspace_builds AS b
        INNER JOIN workspaces AS w ON w.id = b.workspace_id
        WHERE b.id = $4 AND w.organization_id = c.organization_id AND w.owner_id = c.owner_id
    ))
    AND ($5::uuid IS NULL OR EXISTS (
        SELECT 1
        FROM workspace_agents AS a
        INNER JOIN workspace_resources AS r ON r.id = a.resource_id
        INNER JOIN workspace_builds AS b ON b.job_id = r.job_id
        INNER JOIN workspaces AS w ON w.id = b.workspace_id
        WHERE a.id = $5 AND w.organization_id = c.organization_id AND w.owner_id = c.owner_id
    ))
RETURNING c.id, c.owner_id, c.organization_id, c.workspace_id, c.build_id, c.agent_id, c.updated_at
