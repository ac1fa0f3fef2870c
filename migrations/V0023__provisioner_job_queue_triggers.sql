-- What:     jobs that enter and leave the queue are recorded.
-- Locks:    SHARE ROW EXCLUSIVE on provisioner_jobs, for four entries in the catalog: writers wait so long, readers do not.
-- Old code: sees nothing.

CREATE TRIGGER record_provisioner_job_queue_insert
AFTER INSERT ON provisioner_jobs
FOR EACH ROW WHEN (new.started_at IS NULL AND new.completed_at IS NULL)
EXECUTE FUNCTION record_provisioner_job_queue_change();

CREATE TRIGGER record_provisioner_job_queue_update
AFTER UPDATE ON provisioner_jobs
FOR EACH ROW WHEN (
    (old.started_at IS NULL AND old.completed_at IS NULL) OR (new.started_at IS NULL AND new.completed_at IS NULL)
)
EXECUTE FUNCTION record_provisioner_job_queue_change();

CREATE TRIGGER record_provisioner_job_queue_delete
AFTER DELETE ON provisioner_jobs
FOR EACH ROW WHEN (old.started_at IS NULL AND old.completed_at IS NULL)
EXECUTE FUNCTION record_provisioner_job_queue_change();

CREATE TRIGGER record_provisioner_job_queue_truncate
BEFORE TRUNCATE ON provisioner_jobs
FOR EACH STATEMENT
EXECUTE FUNCTION record_provisioner_job_queue_truncate();
