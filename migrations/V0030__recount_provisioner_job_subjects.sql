-- What:     records what the jobs are about that are there already.
-- Locks:    none that writers or readers wait for. It reads every job and its build, in one transaction.
-- Old code: sees nothing.

SELECT provisioner_job_subjects_recount();
ANALYZE provisioner_job_subjects;
