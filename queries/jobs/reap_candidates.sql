-- Jobs without a sign of life (domain 5.5): never started since before $1, or started and silent since before $2. At most
-- $3, at random, so that one that cannot be reaped does not keep others from it.
SELECT id, organization_id, started_at IS NULL AS "is_pending!"
FROM provisioner_jobs
WHERE completed_at IS NULL
    AND (started_at IS NULL AND updated_at < $1 OR started_at IS NOT NULL AND updated_at < $2)
ORDER BY random()
LIMIT $3
