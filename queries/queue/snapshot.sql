-- Everything that says which job waits where, and why (domain: claims; positions): what waits by its tags, the daemons by what
-- they can take, and the jobs that a daemon took and does not work on, each read once. A daemon is online when seen at $1 or
-- later.
WITH waiting AS (
    SELECT
        j.provisioner,
        j.tags,
        -- 42 bytes per job, which the function takes apart: an array per column costs twice as much to send.
        string_agg(
            uuid_send(j.id) || timestamptz_send(j.created_at) || uuid_send(j.organization_id) || int2send(j.flags), ''
        ) AS jobs
    FROM (
        SELECT
            id,
            created_at,
            organization_id,
            provisioner,
            (
                CASE initiator_id WHEN 'c42fdf75-3097-471c-8c33-fb52454d81c0' THEN 4 ELSE 0 END
                + CASE WHEN canceled_at IS NOT NULL THEN 3 WHEN error IS NULL THEN 0 WHEN error = '' THEN 1 ELSE 2 END
            )::smallint AS flags,
            -- Behind this and the fence, the planner does not know how many sets there are: told, it sorts all jobs by them.
            coalesce(tags, 'null') AS tags
        FROM provisioner_jobs
        WHERE started_at IS NULL AND completed_at IS NULL
        OFFSET 0
    ) AS j
    GROUP BY j.provisioner, j.tags
),

daemons AS (
    SELECT
        d.organization_id,
        d.provisioners,
        d.tags,
        count(*) FILTER (WHERE d.status = 'offline') AS offline,
        count(*) FILTER (WHERE d.status = 'idle') AS idle,
        count(*) FILTER (WHERE d.status = 'busy') AS busy,
        max(d.last_seen_at) AS last_seen_at
    FROM (
        SELECT
            organization_id,
            provisioners,
            tags,
            last_seen_at,
            CASE
                WHEN last_seen_at IS NULL OR last_seen_at < $1 THEN 'offline'
                -- One look into an index for each: joined, the planner may read all jobs.
                WHEN EXISTS (
                    SELECT FROM provisioner_jobs AS j
                    WHERE j.worker_id = provisioner_daemons.id
                        AND j.organization_id = provisioner_daemons.organization_id
                        AND j.completed_at IS NULL
                    OFFSET 0
                ) THEN 'busy'
                ELSE 'idle'
            END AS status
        FROM provisioner_daemons
        OFFSET 0
    ) AS d
    GROUP BY d.organization_id, d.provisioners, d.tags
)

SELECT
    NULL::uuid AS "organization_id?: OrganizationId",
    ARRAY[w.provisioner] AS "provisioners?: Vec<Label<ProvisionerType>>",
    w.tags AS "tags?",
    w.jobs AS "waiting?",
    NULL::bigint AS "offline?",
    NULL::bigint AS "idle?",
    NULL::bigint AS "busy?",
    NULL::timestamptz AS "last_seen_at?",
    NULL::uuid AS "taken?: JobId",
    NULL::boolean AS "is_worker_there?",
    NULL::boolean AS "is_worker_silent?"
FROM waiting AS w
UNION ALL
SELECT
    d.organization_id, d.provisioners, d.tags, NULL, d.offline, d.idle, d.busy, d.last_seen_at, NULL, NULL, NULL
FROM daemons AS d
UNION ALL
SELECT
    j.organization_id,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    w.last_seen_at,
    j.id,
    w.id IS NOT NULL,
    w.last_seen_at IS NULL OR w.last_seen_at < $1
FROM provisioner_jobs AS j
LEFT JOIN provisioner_daemons AS w ON w.id = j.worker_id
WHERE j.started_at IS NOT NULL
    AND j.completed_at IS NULL
    AND (j.canceled_at IS NOT NULL OR w.last_seen_at IS NULL OR w.last_seen_at < $1)
