-- A daemon reports that it still works on a job (domain: worker messages). $1 the job; of the permit: $2 the organization, $3
-- the daemon; $4 the time. A row that is in scope always comes back: no row can only mean that there is none.
WITH decided AS (
    SELECT
        id,
        CASE
            WHEN worker_id IS NULL THEN 'not_running_yet'
            WHEN worker_id <> $3 THEN 'other_owner'
            WHEN completed_at IS NOT NULL THEN 'ended'
            ELSE 'done'
        END AS outcome
    FROM provisioner_jobs
    WHERE id = $1 AND organization_id = $2
    FOR NO KEY UPDATE
)

UPDATE provisioner_jobs AS j
-- Never backwards: a clock that was set back must not make a living job look hung.
SET updated_at = CASE WHEN d.outcome = 'done' THEN greatest(j.updated_at, $4) ELSE j.updated_at END
FROM decided AS d
WHERE j.id = d.id
RETURNING d.outcome AS "outcome!", j.canceled_at IS NOT NULL AS "cancel_requested!"
