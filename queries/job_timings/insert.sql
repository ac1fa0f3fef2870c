-- A daemon stores how long the steps of its job took (domain: timings). $1 the job; of the permit: $2 the organization, $3 the
-- daemon; $4 to $9 the timings, one array per column. Those that are there already are left out, so that a daemon may
-- ask again. No row when there is no such job.
WITH decided AS (
    SELECT
        id,
        CASE
            WHEN worker_id IS NULL THEN 'not_running_yet'
            WHEN worker_id <> $3 THEN 'other_owner'
            ELSE 'done'
        END AS outcome
    FROM provisioner_jobs
    WHERE id = $1 AND organization_id = $2
    FOR KEY SHARE
),

inserted AS (
    INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
    SELECT
        d.id, t.started_at, t.ended_at, t.stage::provisioner_job_timing_stage, t.source, t.action, t.resource
    FROM decided AS d
    CROSS JOIN unnest($4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[])
        AS t (started_at, ended_at, stage, source, action, resource)
    WHERE d.outcome = 'done'
        AND NOT EXISTS (
            SELECT 1
            FROM provisioner_job_timings AS known
            WHERE known.job_id = $1
                AND (known.started_at, known.ended_at, known.stage::text) = (t.started_at, t.ended_at, t.stage)
                AND (known.source, known.action, known.resource) = (t.source, t.action, t.resource)
        )
    RETURNING job_id
)

SELECT decided.outcome AS "outcome!", (SELECT count(*) FROM inserted) AS "inserted!"
FROM decided
