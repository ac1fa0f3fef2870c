-- Deletes the daemons of all organizations that were last seen before $1, or were never seen and are older than that.
DELETE FROM provisioner_daemons WHERE coalesce(last_seen_at, created_at) < $1
