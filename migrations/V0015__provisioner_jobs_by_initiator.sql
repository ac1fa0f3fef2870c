-- coderdb: no-transaction
-- What:     the newest jobs that one user asked for, of each status.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_initiator_idx
    ON provisioner_jobs (organization_id, initiator_id, job_status, created_at DESC, id DESC);
