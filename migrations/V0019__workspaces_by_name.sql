-- coderdb: no-transaction
-- What:     the workspaces of an organization with a name, whoever owns them.
-- Locks:    SHARE UPDATE EXCLUSIVE on workspaces: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY workspaces_organization_id_lower_idx
    ON workspaces (organization_id, lower(name)) WHERE deleted = false;
