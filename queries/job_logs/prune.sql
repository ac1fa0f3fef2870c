-- Deletes at most $3 log lines of the ended jobs $2 of the organization $1 (domain: pruning).
WITH old AS (
    SELECT l.id
    FROM provisioner_jobs AS j
    INNER JOIN provisioner_job_logs AS l ON l.job_id = j.id
    WHERE j.id = ANY($2::uuid[]) AND j.organization_id = $1 AND j.completed_at IS NOT NULL
    LIMIT $3
),

deleted AS (
    DELETE FROM provisioner_job_logs AS l USING old WHERE l.id = old.id RETURNING l.id
)

-- Another session may delete the same lines at the same time, so that fewer were deleted than were found.
SELECT
    (SELECT count(*) FROM deleted) AS "deleted!",
    (SELECT count(*) FROM old) = $3 AS "is_full!"
