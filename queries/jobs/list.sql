-- The jobs in $1 with everything that the per-organization list shows (domain: listings), newest first.
-- $1 is an array of ids: one id for `get`; for `list`, the page that the filters select, in the same statement.
WITH page AS MATERIALIZED (
    SELECT
        chosen.*,
        -- What the server's own cast would accept, and null for the rest: one broken input must not fail the page. The
        -- first pattern is the usual form, and five times as fast as the second.
        CASE
            WHEN version_text LIKE '________-____-____-____-____________' AND version_text ~ '^[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*$'
                OR version_text ~ '^(([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}|[{]([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}[}])$'
                THEN version_text::uuid
        END AS version_id,
        CASE
            WHEN build_text LIKE '________-____-____-____-____________' AND build_text ~ '^[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*$'
                OR build_text ~ '^(([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}|[{]([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}[}])$'
                THEN build_text::uuid
        END AS build_id
    FROM (
        SELECT *, input ->> 'template_version_id' AS version_text, input ->> 'workspace_build_id' AS build_text
        FROM provisioner_jobs
        WHERE id = ANY ($1::uuid[])
    ) AS chosen
),

-- Two partial indexes hold what waits, one for people and one for prebuilds, which come last. Both are counted without
-- a look at the table.
total AS MATERIALIZED (
    SELECT
        (
            SELECT count(*) FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                AND q.initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0'
        ) AS people,
        (
            SELECT count(*) FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                AND q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
        ) AS prebuilds
),

-- From one waiting job of the page to the next newer one, and from the newest to the end of the queue.
steps AS (
    SELECT
        id,
        initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AS is_prebuild,
        created_at,
        lag(created_at, 1, 'infinity') OVER newest AS until,
        lag(id, 1, 'ffffffff-ffff-ffff-ffff-ffffffffffff') OVER newest AS until_id
    FROM page
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
    WINDOW newest AS (PARTITION BY initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' ORDER BY created_at DESC, id DESC)
),

-- How many jobs wait behind each of them; the steps add up, so that each entry of an index is counted once.
behind AS (
    SELECT
        id,
        is_prebuild,
        sum(CASE
            WHEN is_prebuild
                THEN (
                    SELECT count(*) FROM provisioner_jobs AS q
                    WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                        AND q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
                        AND (q.created_at, q.id) > (steps.created_at, steps.id)
                        AND (q.created_at, q.id) <= (steps.until, steps.until_id)
                )
            ELSE (
                SELECT count(*) FROM provisioner_jobs AS q
                WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                    AND q.initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0'
                    AND (q.created_at, q.id) > (steps.created_at, steps.id)
                    AND (q.created_at, q.id) <= (steps.until, steps.until_id)
            )
        END) OVER (PARTITION BY is_prebuild ORDER BY created_at DESC, id DESC) AS jobs
    FROM steps
),

queue AS MATERIALIZED (
    SELECT
        behind.id,
        (CASE WHEN is_prebuild THEN people + prebuilds ELSE people END - behind.jobs)::bigint AS position
    FROM behind
    CROSS JOIN total
),

-- Who could take them, found once for all that ask for the same: a page of a long queue asks for few things.
waiting AS MATERIALIZED (
    SELECT kind.organization_id, kind.provisioner, kind.tags, workers.ids
    FROM (SELECT DISTINCT organization_id, provisioner, tags FROM page WHERE started_at IS NULL) AS kind
    CROSS JOIN LATERAL (
        SELECT array_agg(d.id ORDER BY d.created_at, d.id) AS ids
        FROM provisioner_daemons AS d
        WHERE d.organization_id = kind.organization_id
            AND kind.provisioner = ANY (d.provisioners)
            -- An untagged job needs an untagged daemon.
            AND CASE
                WHEN kind.tags = '{"scope": "organization", "owner": ""}' THEN d.tags = kind.tags
                ELSE d.tags @> kind.tags
            END
    ) AS workers
)

SELECT
    j.id,
    j.created_at,
    j.updated_at,
    j.started_at,
    j.canceled_at,
    j.completed_at,
    j.error,
    j.organization_id,
    j.initiator_id,
    j.provisioner,
    j.storage_method,
    j.type AS job_type,
    j.input,
    j.worker_id,
    j.file_id,
    j.tags,
    j.error_code,
    j.trace_metadata,
    j.job_status,
    j.logs_length,
    j.logs_overflowed,
    coalesce(queue.position, 0) AS "queue_position!",
    (SELECT people + prebuilds FROM total) AS "queue_size!",
    coalesce(waiting.ids, '{}') AS "available_workers!",
    coalesce(v.name, '') AS "template_version_name!: Text",
    t.id AS "template_id?",
    coalesce(t.name, '') AS "template_name!: Text",
    coalesce(t.display_name, '') AS "template_display_name!: Text",
    coalesce(t.icon, '') AS "template_icon!: Text",
    w.id AS "workspace_id?",
    coalesce(w.name, '') AS "workspace_name!: Text",
    coalesce(worker.name, '') AS "worker_name!: Text",
    b.transition AS "workspace_build_transition?"
FROM page AS j
LEFT JOIN queue ON queue.id = j.id
LEFT JOIN workspace_builds AS b ON b.id = j.build_id
-- The organization is compared in every join: an input may name anything, and must not leak another's names.
LEFT JOIN workspaces AS w ON w.id = b.workspace_id AND w.organization_id = j.organization_id
LEFT JOIN template_versions AS v
    ON v.id = CASE
        WHEN j.input::jsonb ? 'template_version_id' THEN j.version_id
        ELSE b.template_version_id
    END
    AND v.organization_id = j.organization_id
LEFT JOIN templates AS t ON t.id = v.template_id AND t.organization_id = j.organization_id
LEFT JOIN provisioner_daemons AS worker ON worker.id = j.worker_id
LEFT JOIN waiting
    ON j.started_at IS NULL
    AND waiting.organization_id = j.organization_id
    AND waiting.provisioner = j.provisioner
    AND waiting.tags = j.tags
ORDER BY j.created_at DESC, j.id DESC
