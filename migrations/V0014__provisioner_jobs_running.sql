-- coderdb: no-transaction
-- What:     the jobs that were started and are not completed: the reaper no longer looks at the whole history.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_running_idx
    ON provisioner_jobs (started_at) WHERE started_at IS NOT NULL AND completed_at IS NULL;
