-- coderdb: no-transaction
-- What:     the queue, in its order: people's jobs before those of the prebuilds user, then the oldest.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_queue_idx
    ON provisioner_jobs ((initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'), created_at, id)
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL;
