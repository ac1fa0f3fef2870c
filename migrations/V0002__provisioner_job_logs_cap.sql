-- What:     the logs of a provisioner job are capped at 1 MiB: a counter, an overflow flag, a named CHECK.
-- Locks:    ACCESS EXCLUSIVE on provisioner_jobs, for the catalog only: constant defaults rewrite nothing, and
--           NOT VALID reads nothing.
-- Old code: goes on; it neither counts nor overflows.

ALTER TABLE provisioner_jobs
    ADD COLUMN logs_length integer DEFAULT 0 NOT NULL,
    ADD COLUMN logs_overflowed boolean DEFAULT false NOT NULL,
    ADD CONSTRAINT max_provisioner_logs_length CHECK (logs_length <= 1048576) NOT VALID;

COMMENT ON COLUMN provisioner_jobs.logs_length IS 'Total length of the logs, in bytes of output; at most 1 MiB.';
COMMENT ON COLUMN provisioner_jobs.logs_overflowed IS 'Whether the logs overflowed: output beyond the cap was dropped.';
