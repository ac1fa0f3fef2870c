-- The jobs in $1 of the organization $3 with their position among the jobs that the same daemons can take (domain: positions),
-- oldest first. A daemon is online when it was seen at $2 or later. Neither its organization nor its provisioners count, only
-- tags.
--
-- A daemon's queue consists of the jobs whose tags are a part of its own. Each such part is one range of an index that
-- holds what waits by tag set: the statement counts these ranges, and never looks at the jobs themselves.
WITH requested AS MATERIALIZED (
    SELECT * FROM provisioner_jobs WHERE id = ANY ($1) AND organization_id = $3
),

-- Pending as by job_status: an empty error is none.
pending AS MATERIALIZED (
    SELECT id, tags, created_at, initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AS is_prebuild
    FROM requested
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND coalesce(error, '') = ''
),

-- Tag sets, not daemons: a fleet has few of them, and every daemon with one set has the same queue. The jobs' and the
-- daemons' sets get numbers, because comparing numbers is cheaper.
kinds AS MATERIALIZED (
    SELECT row_number() OVER () AS kind, tags FROM (SELECT DISTINCT tags FROM pending) AS kinds
),

online AS MATERIALIZED (
    SELECT row_number() OVER () AS fleet, tags
    FROM (SELECT DISTINCT tags FROM provisioner_daemons WHERE last_seen_at >= $2) AS fleets
),

able AS MATERIALIZED (
    SELECT kinds.kind, online.fleet
    FROM kinds
    INNER JOIN online
        -- An untagged job needs an untagged daemon.
        ON CASE
            WHEN kinds.tags = '{"scope": "organization", "owner": ""}' THEN online.tags = kinds.tags
            ELSE online.tags @> kinds.tags
        END
),

fleets AS MATERIALIZED (
    SELECT
        fleet,
        tags,
        -- At most 256 parts, each of which is a set of whole pairs. Other tags are compared with all sets that wait.
        CASE jsonb_typeof(tags)
            WHEN 'object' THEN (
                SELECT count(*) <= 8 AND coalesce(bool_and(jsonb_typeof(pair.value) = 'string'), true)
                FROM jsonb_each(tags) AS pair
            )
            ELSE false
        END AS has_few_parts
    FROM online
    WHERE fleet IN (SELECT fleet FROM able)
),

pairs AS MATERIALIZED (
    SELECT fleets.fleet, row_number() OVER (PARTITION BY fleets.fleet) AS n, pair.key, pair.value
    FROM (SELECT fleet, tags FROM fleets WHERE has_few_parts OFFSET 0) AS fleets
    CROSS JOIN LATERAL jsonb_each(fleets.tags) AS pair
),

parts AS (
    WITH RECURSIVE part AS (
        SELECT fleet, 0::bigint AS n, '{}'::jsonb AS tags FROM fleets WHERE has_few_parts
        UNION ALL
        SELECT part.fleet, part.n + 1, x.tags
        FROM part
        INNER JOIN pairs ON pairs.fleet = part.fleet AND pairs.n = part.n + 1
        CROSS JOIN LATERAL (
            VALUES (part.tags), (part.tags || jsonb_build_object(pairs.key, pairs.value))
        ) AS x (tags)
    )

    SELECT DISTINCT part.tags
    FROM part
    WHERE part.n = (SELECT count(*) FROM pairs WHERE pairs.fleet = part.fleet)
),

-- All sets that wait, from one to the next of each index; only where some daemon has many parts.
waiting AS (
    WITH RECURSIVE people AS (
        (
            SELECT hashtextextended(q.tags::text, 0) AS hash, hashtextextended(q.tags::text, 1) AS hash_1, q.tags
            FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                AND q.initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
                AND EXISTS (SELECT FROM fleets WHERE NOT has_few_parts)
            ORDER BY hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)
            LIMIT 1
        )
        UNION ALL
        SELECT next.hash, next.hash_1, next.tags
        FROM people
        CROSS JOIN LATERAL (
            SELECT hashtextextended(q.tags::text, 0) AS hash, hashtextextended(q.tags::text, 1) AS hash_1, q.tags
            FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                AND q.initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
                AND (hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)) > (people.hash, people.hash_1)
            ORDER BY hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)
            LIMIT 1
        ) AS next
    ),

    prebuilds AS (
        (
            SELECT hashtextextended(q.tags::text, 0) AS hash, hashtextextended(q.tags::text, 1) AS hash_1, q.tags
            FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                AND q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
                AND EXISTS (SELECT FROM fleets WHERE NOT has_few_parts)
            ORDER BY hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)
            LIMIT 1
        )
        UNION ALL
        SELECT next.hash, next.hash_1, next.tags
        FROM prebuilds
        CROSS JOIN LATERAL (
            SELECT hashtextextended(q.tags::text, 0) AS hash, hashtextextended(q.tags::text, 1) AS hash_1, q.tags
            FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                AND q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
                AND (hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)) > (prebuilds.hash, prebuilds.hash_1)
            ORDER BY hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)
            LIMIT 1
        ) AS next
    )

    SELECT hash, hash_1, tags FROM people
    UNION ALL
    SELECT hash, hash_1, tags FROM prebuilds
),

sets AS MATERIALIZED (
    SELECT row_number() OVER () AS set, hash, hash_1, tags
    -- Told apart by their hashes: 1 and 1.0 are equal, but have an entry each in the index.
    FROM (
        SELECT DISTINCT ON (hash, hash_1) hash, hash_1, tags
        FROM (
            SELECT hashtextextended(tags::text, 0) AS hash, hashtextextended(tags::text, 1) AS hash_1, tags FROM parts
            UNION ALL
            SELECT hash, hash_1, tags FROM waiting
        ) AS x
    ) AS sets
    -- Most parts have no job: one look tells. Not EXISTS, which the planner could turn into a read of all that waits.
    WHERE (
        SELECT true
        FROM provisioner_jobs AS q
        WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
            AND q.initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
            AND hashtextextended(q.tags::text, 0) = sets.hash
            AND hashtextextended(q.tags::text, 1) = sets.hash_1
        LIMIT 1
    )
    OR (
        SELECT true
        FROM provisioner_jobs AS q
        WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
            AND q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
            AND hashtextextended(q.tags::text, 0) = sets.hash
            AND hashtextextended(q.tags::text, 1) = sets.hash_1
        LIMIT 1
    )
),

shares AS MATERIALIZED (
    SELECT fleets.fleet, sets.set
    FROM fleets
    INNER JOIN sets
        ON CASE
            WHEN sets.tags = '{"scope": "organization", "owner": ""}' THEN fleets.tags = sets.tags
            ELSE fleets.tags @> sets.tags
        END
),

-- The requested jobs cut the queue, people first, into steps. How many of each set are in each step is counted once, and
-- then added up for each daemon.
bounds AS (
    SELECT is_prebuild, created_at, id FROM pending
    UNION ALL
    SELECT is_prebuild, '-infinity', '00000000-0000-0000-0000-000000000000' FROM (VALUES (false), (true)) AS v (is_prebuild)
),

steps AS MATERIALIZED (
    SELECT
        row_number() OVER (ORDER BY is_prebuild, created_at, id) AS step,
        is_prebuild,
        created_at AS since,
        id AS since_id,
        lead(created_at, 1, 'infinity') OVER oldest AS until,
        lead(id, 1, 'ffffffff-ffff-ffff-ffff-ffffffffffff') OVER oldest AS until_id,
        lead(id) OVER oldest AS job
    FROM bounds
    WINDOW oldest AS (PARTITION BY is_prebuild ORDER BY created_at, id)
),

counts AS MATERIALIZED (
    SELECT
        sets.set,
        steps.step,
        CASE
            WHEN steps.is_prebuild
                THEN (
                    SELECT count(*)
                    FROM provisioner_jobs AS q
                    WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                        AND q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
                        AND hashtextextended(q.tags::text, 0) = sets.hash
                        AND hashtextextended(q.tags::text, 1) = sets.hash_1
                        AND (q.created_at, q.id) > (steps.since, steps.since_id)
                        AND (q.created_at, q.id) <= (steps.until, steps.until_id)
                )
            ELSE (
                SELECT count(*)
                FROM provisioner_jobs AS q
                WHERE q.started_at IS NULL AND q.canceled_at IS NULL AND q.completed_at IS NULL AND q.error IS NULL
                    AND q.initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(q.tags::text) <= 600
                    AND hashtextextended(q.tags::text, 0) = sets.hash
                    AND hashtextextended(q.tags::text, 1) = sets.hash_1
                    AND (q.created_at, q.id) > (steps.since, steps.since_id)
                    AND (q.created_at, q.id) <= (steps.until, steps.until_id)
            )
        END AS jobs
    FROM sets
    CROSS JOIN steps
),

ahead AS MATERIALIZED (
    SELECT
        fleet,
        (SELECT job FROM steps WHERE steps.step = per_step.step) AS job,
        sum(jobs) OVER (PARTITION BY fleet ORDER BY step) AS position,
        sum(jobs) OVER (PARTITION BY fleet) AS size
    FROM (
        SELECT shares.fleet, counts.step, sum(counts.jobs) AS jobs
        FROM shares
        INNER JOIN counts ON counts.set = shares.set
        GROUP BY shares.fleet, counts.step
    ) AS per_step
),

-- What the indexes by tag set leave out: large tags and empty errors.
odd AS MATERIALIZED (
    SELECT fleets.fleet, q.created_at, q.id, q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AS is_prebuild
    -- Their ids come out of the index alone: the planner expects more rows than there are, and would read all that wait.
    FROM (
        SELECT * FROM provisioner_jobs
        WHERE id = ANY (ARRAY(
            SELECT id FROM provisioner_jobs
            WHERE started_at IS NULL AND completed_at IS NULL
                AND (canceled_at IS NOT NULL OR error IS NOT NULL OR octet_length(tags::text) > 600)
        ))
        OFFSET 0
    ) AS q
    INNER JOIN fleets
        ON CASE
            WHEN q.tags = '{"scope": "organization", "owner": ""}' THEN fleets.tags = q.tags
            ELSE fleets.tags @> q.tags
        END
    WHERE q.canceled_at IS NULL AND coalesce(q.error, '') = ''
),

-- The best position among the daemons that can take a job, and the largest queue: they may be of different ones.
queue AS (
    SELECT x.id, min(x.position) AS position, max(x.size) AS size
    FROM (
        SELECT pending.id, coalesce(ahead.position, 0) + odd_jobs.position AS position, coalesce(ahead.size, 0) + odd_jobs.size AS size
        FROM pending
        INNER JOIN kinds ON kinds.tags = pending.tags
        INNER JOIN able ON able.kind = kinds.kind
        LEFT JOIN ahead ON ahead.fleet = able.fleet AND ahead.job = pending.id
        CROSS JOIN LATERAL (
            SELECT
                count(*) FILTER (
                    WHERE (odd.is_prebuild, odd.created_at, odd.id) <= (pending.is_prebuild, pending.created_at, pending.id)
                ) AS position,
                count(*) AS size
            FROM odd
            WHERE odd.fleet = able.fleet
        ) AS odd_jobs
    ) AS x
    GROUP BY x.id
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
    coalesce(queue.position, 0)::bigint AS "queue_position!",
    coalesce(queue.size, 0)::bigint AS "queue_size!"
FROM requested AS j
LEFT JOIN queue ON queue.id = j.id
ORDER BY j.created_at, j.id
