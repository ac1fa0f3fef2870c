-- What:     counts the jobs that waited before their changes were recorded.
-- Locks:    none that writers or readers wait for.
-- Old code: sees nothing.

SELECT provisioner_job_queue_recount();
