-- The first $6 jobs that a daemon can take become its own (domain: claims). $1 the time; of the permit: $2 the daemon, $3 the
-- organization; $4 its provisioners, $5 its tags, $7 the parts of its tags that a job may have, null when they are too many.
UPDATE provisioner_jobs AS j
-- The sign of life never goes backwards: a daemon whose clock is behind must not look hung at once.
SET started_at = $1, updated_at = greatest(j.updated_at, $1), worker_id = $2
-- An array is looked for once, before the update: a subquery with a lock in a join could be run, and lock, again.
WHERE j.id = ANY (ARRAY(
    -- A job fits when its tags are a part of the daemon's, so each part is one range of an index. Where they are too many,
    -- the sets that wait are found instead, from one to the next of the same index.
    WITH RECURSIVE waiting AS (
        (
            SELECT hashtextextended(q.tags::text, 0) AS hash, hashtextextended(q.tags::text, 1) AS hash_1, q.tags
            FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.completed_at IS NULL AND q.organization_id = $3 AND $7::text[] IS NULL
            ORDER BY hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)
            LIMIT 1
        )
        UNION ALL
        SELECT next.hash, next.hash_1, next.tags
        FROM waiting
        CROSS JOIN LATERAL (
            SELECT hashtextextended(q.tags::text, 0) AS hash, hashtextextended(q.tags::text, 1) AS hash_1, q.tags
            FROM provisioner_jobs AS q
            WHERE q.started_at IS NULL AND q.completed_at IS NULL AND q.organization_id = $3
                AND (hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)) > (waiting.hash, waiting.hash_1)
            ORDER BY hashtextextended(q.tags::text, 0), hashtextextended(q.tags::text, 1)
            LIMIT 1
        ) AS next
    ),

    sets AS MATERIALIZED (
        SELECT hashtextextended(part::jsonb::text, 0) AS hash, hashtextextended(part::jsonb::text, 1) AS hash_1
        FROM unnest($7::text[]) AS part
        UNION ALL
        SELECT hash, hash_1
        FROM waiting
        WHERE CASE
            WHEN tags = '{"scope": "organization", "owner": ""}' THEN $5::jsonb = tags
            ELSE $5::jsonb @> tags
        END
    )

    SELECT taken.id
    -- Most find one among the first few of each set. When others have locked those, more are looked for, and then all.
    FROM (VALUES (0, $6::bigint + 24), ($6 + 24, 500), ($6 + 524, NULL)) AS candidates (skip, most)
    CROSS JOIN LATERAL (
        SELECT p.id
        FROM provisioner_jobs AS p
        WHERE p.id = ANY (ARRAY(
            SELECT first.id
            FROM sets
            CROSS JOIN LATERAL (
                SELECT q.id
                FROM provisioner_jobs AS q
                WHERE q.started_at IS NULL
                    AND q.completed_at IS NULL
                    AND q.organization_id = $3
                    AND hashtextextended(q.tags::text, 0) = sets.hash
                    AND hashtextextended(q.tags::text, 1) = sets.hash_1
                    AND q.provisioner = ANY (($4::text[])::provisioner_type[])
                ORDER BY q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', q.created_at, q.id
                LIMIT candidates.most OFFSET candidates.skip
            ) AS first
        ))
            -- Looked at again, as it is once it is locked. Within the CASE, so that no index but the primary key finds it. An
            -- untagged job needs an untagged daemon.
            AND CASE
                WHEN p.started_at IS NOT NULL OR p.completed_at IS NOT NULL THEN false
                WHEN p.tags = '{"scope": "organization", "owner": ""}' THEN $5::jsonb = p.tags
                ELSE $5::jsonb @> p.tags
            END
        ORDER BY p.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', p.created_at, p.id
        LIMIT $6
        FOR UPDATE OF p SKIP LOCKED
    ) AS taken
    LIMIT $6
))
RETURNING
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
    j.logs_overflowed
