-- The jobs of the organization $1 that wait, run or are being canceled, unless they are those that $2 is the digest of:
-- then one row of nulls but for the digest.
WITH active AS MATERIALIZED (
    SELECT j.id, j.job_status
    FROM provisioner_jobs AS j
    WHERE j.job_status IN ('pending', 'running', 'canceling') AND j.organization_id = $1
),

digest AS (
    SELECT coalesce(sum(hashtextextended(id::text || job_status::text, 0)), 0)::text AS digest FROM active
)

SELECT
    digest.digest AS "digest!",
    active.id AS "id?",
    active.job_status AS "job_status?"
FROM digest
LEFT JOIN active ON digest.digest IS DISTINCT FROM $2::text
