-- What says how long jobs of the organization $1 take: the newest $3 of those that were created at $2 or later and that
-- daemons have carried out, those that run, and the first $3 of those that wait (domain: expected wait).
WITH ended AS (
    SELECT
        id,
        created_at,
        started_at,
        completed_at,
        initiator_id,
        provisioner,
        tags,
        type AS job_type,
        worker_id
    FROM provisioner_jobs
    WHERE organization_id = $1 AND created_at >= $2 AND started_at IS NOT NULL AND completed_at IS NOT NULL
    ORDER BY created_at DESC, id DESC
    LIMIT $3
),

running AS (
    SELECT
        id,
        created_at,
        started_at,
        completed_at,
        initiator_id,
        provisioner,
        tags,
        type AS job_type,
        worker_id
    FROM provisioner_jobs
    WHERE organization_id = $1 AND started_at IS NOT NULL AND completed_at IS NULL
),

waiting AS (
    SELECT
        id,
        created_at,
        started_at,
        completed_at,
        initiator_id,
        provisioner,
        tags,
        type AS job_type,
        worker_id
    FROM provisioner_jobs
    WHERE organization_id = $1 AND started_at IS NULL AND completed_at IS NULL
    ORDER BY initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', created_at, id
    LIMIT $3
),

jobs AS (
    SELECT * FROM ended
    UNION ALL
    SELECT * FROM running
    UNION ALL
    SELECT * FROM waiting
)

SELECT
    j.id AS "id!",
    j.created_at AS "created_at!",
    j.started_at AS "started_at?",
    j.completed_at AS "completed_at?",
    j.initiator_id AS "initiator_id!",
    j.provisioner AS "provisioner!",
    j.tags AS "tags!",
    j.job_type AS "job_type!",
    b.transition AS "transition?",
    v.template_id AS "template_id?: Uuid",
    w.provisioners AS "worker_provisioners?",
    w.tags AS "worker_tags?"
FROM jobs AS j
-- Behind the fence, one look into an index for each job: the planner does not know how few they are.
LEFT JOIN LATERAL (
    SELECT transition, template_version_id
    FROM workspace_builds
    WHERE job_id = j.id
    OFFSET 0
) AS b ON true
LEFT JOIN template_versions AS v ON v.id = b.template_version_id
LEFT JOIN provisioner_daemons AS w ON w.id = j.worker_id AND j.completed_at IS NULL
