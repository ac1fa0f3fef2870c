-- coderdb: no-transaction
-- What:     the indexes that deleting old jobs needs.
-- Locks:    SHARE UPDATE EXCLUSIVE on one table after the other: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.
--
-- Foreign keys look these columns up for each build and each agent that goes with a job. Few rows have a value there.

CREATE INDEX CONCURRENTLY chats_build_id_idx ON chats (build_id) WHERE build_id IS NOT NULL;
CREATE INDEX CONCURRENTLY workspace_agents_parent_id_idx ON workspace_agents (parent_id) WHERE parent_id IS NOT NULL;
