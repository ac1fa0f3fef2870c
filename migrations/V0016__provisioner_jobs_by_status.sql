-- coderdb: no-transaction
-- What:     the newest jobs of each status, however many of another status are newer.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_status_idx
    ON provisioner_jobs (organization_id, job_status, created_at DESC, id DESC);
