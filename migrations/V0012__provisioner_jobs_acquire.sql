-- coderdb: no-transaction
-- What:     the jobs that the daemons of one organization can take, in the order in which they take them.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_acquire_idx
    ON provisioner_jobs (organization_id, (initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'), created_at, id)
    WHERE started_at IS NULL AND completed_at IS NULL;
