-- coderdb: no-transaction
-- What:     the timings of one job, without reading those of all; deleting a job needs it too.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_job_timings: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_job_timings_job_id_idx ON provisioner_job_timings (job_id);
