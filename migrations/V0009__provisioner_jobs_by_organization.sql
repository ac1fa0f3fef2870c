-- coderdb: no-transaction
-- What:     the newest jobs of an organization, page by page, without reading its whole history.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_organization_id_created_at_id_idx
    ON provisioner_jobs (organization_id, created_at DESC, id DESC);
