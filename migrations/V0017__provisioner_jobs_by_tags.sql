-- coderdb: no-transaction
-- What:     which tag sets the jobs of an organization have, and the newest jobs of each. A hash, because tags can be too
--           long for an index.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_tags_idx
    ON provisioner_jobs (organization_id, jsonb_hash_extended(tags, 0), job_status, created_at DESC, id DESC);
