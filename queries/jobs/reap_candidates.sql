-- Jobs without a sign of life (domain: reaping): never started since before $1, or started and silent since before $2. At most
-- $3, at random, so that one that cannot be reaped does not keep others from it.
SELECT
    id AS "id!: crate::model::JobId",
    organization_id AS "organization_id!: crate::model::OrganizationId",
    is_pending AS "is_pending!"
-- Each half has an index of its own; an OR of both has none.
FROM (
    SELECT id, organization_id, true AS is_pending
    FROM provisioner_jobs
    WHERE started_at IS NULL AND completed_at IS NULL AND updated_at < $1
    UNION ALL
    SELECT id, organization_id, false AS is_pending
    FROM provisioner_jobs
    WHERE started_at IS NOT NULL AND completed_at IS NULL AND updated_at < $2
) AS stuck
ORDER BY random()
LIMIT $3
