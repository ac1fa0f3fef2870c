-- What:     proves that every stored job obeys max_provisioner_logs_length.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs while it is read: reads and writes go on.
-- Old code: sees nothing.

ALTER TABLE provisioner_jobs VALIDATE CONSTRAINT max_provisioner_logs_length;
