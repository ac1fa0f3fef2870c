-- coderdb: no-transaction
-- What:     the jobs whose input names a build: from a workspace to its jobs.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY provisioner_jobs_workspace_build_idx
    ON provisioner_jobs (provisioner_job_input_uuid(input, 'workspace_build_id'));
