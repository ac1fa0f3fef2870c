-- What:     the queue, counted: a log of changes, and sorted pages into which it is folded, so that a place in the queue and
--           the next job of a daemon cost the same however many jobs wait (docs/adr/0015-a-counted-queue.md).
-- Locks:    none on tables that exist.
-- Old code: sees nothing.

-- One order for all: people's jobs before those of the prebuilds user, then the oldest, then the start of the id. Jobs that
-- differ in the rest of the id only have the same key.
CREATE FUNCTION provisioner_job_queue_key(initiator_id uuid, created_at timestamp with time zone, id uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT encode(
        CASE WHEN initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' THEN '\x01'::bytea ELSE '\x00'::bytea END
        -- The first bit of a signed number is turned, so that bytes sort like times.
        || set_byte(timestamptz_send(created_at), 0, get_byte(timestamptz_send(created_at), 0) # 128)
        || substr(uuid_send(id), 1, 7),
        'hex'
    )::uuid
$$;
COMMENT ON FUNCTION provisioner_job_queue_key(uuid, timestamp with time zone, uuid) IS
    'The place of a job in the order of the queue.';

-- Rows are only added, by triggers, and taken away by whoever folds them: writers never wait for each other.
CREATE TABLE provisioner_job_queue_changes (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    change smallint NOT NULL,
    job_id uuid NOT NULL,
    key uuid NOT NULL,
    organization_id uuid NOT NULL,
    provisioner provisioner_type NOT NULL,
    tags jsonb NOT NULL,
    pending boolean NOT NULL,
    listed boolean NOT NULL,
    PRIMARY KEY (xid, id)
);
COMMENT ON TABLE provisioner_job_queue_changes IS
    'A job entered (1) or left (-1) the queue. Everything visible counts: what is folded is gone.';
COMMENT ON COLUMN provisioner_job_queue_changes.pending IS 'Whether job_status was pending.';
COMMENT ON COLUMN provisioner_job_queue_changes.listed IS 'Whether canceled_at and error were null, too.';

CREATE TABLE provisioner_job_queue_folds (
    id bigint PRIMARY KEY,
    upto xid8 NOT NULL,
    running xid8[] NOT NULL,
    own_xid xid8 NOT NULL,
    own_id bigint NOT NULL
);
COMMENT ON TABLE provisioner_job_queue_folds IS
    'The newest row says where to look for changes that are not folded: transactions from upto on, those that ran, and what the one that folded did after own_id.';
INSERT INTO provisioner_job_queue_folds (id, upto, running, own_xid, own_id) VALUES (0, '0', '{}', '0', 0);

CREATE TABLE provisioner_job_queue_lanes (
    fold bigint NOT NULL,
    number integer NOT NULL,
    listed boolean NOT NULL,
    organization_id uuid NOT NULL,
    provisioner provisioner_type NOT NULL,
    tags jsonb NOT NULL,
    pending boolean NOT NULL,
    size integer NOT NULL,
    pages uuid[] NOT NULL,
    lows uuid[] NOT NULL,
    before integer[] NOT NULL,
    PRIMARY KEY (fold, number)
);
COMMENT ON TABLE provisioner_job_queue_lanes IS
    'Waiting jobs with one organization, provisioner and tag set, and (listed) once more all of them: where their pages are.';

CREATE TABLE provisioner_job_queue_pages (
    id uuid PRIMARY KEY,
    keys uuid[] NOT NULL
);
COMMENT ON TABLE provisioner_job_queue_pages IS 'The keys of jobs next to each other in a lane, in order.';
-- A page of 256 keys stays in its row.
ALTER TABLE provisioner_job_queue_pages ALTER COLUMN keys SET STORAGE EXTERNAL;
ALTER TABLE provisioner_job_queue_pages SET (toast_tuple_target = 8160);

CREATE VIEW provisioner_job_queue_unfolded AS
SELECT c.*
FROM (
    SELECT
        running,
        own_xid,
        own_id,
        -- A database that was restored on another server may be younger than its last fold.
        CASE WHEN upto > pg_snapshot_xmax(pg_current_snapshot()) THEN '0'::xid8 ELSE upto END AS upto
    FROM provisioner_job_queue_folds
    ORDER BY id DESC
    LIMIT 1
) AS f
CROSS JOIN LATERAL (
    SELECT * FROM provisioner_job_queue_changes AS a WHERE a.xid >= f.upto
    UNION ALL
    SELECT * FROM provisioner_job_queue_changes AS b WHERE b.xid < f.upto AND b.xid = ANY (f.running)
    UNION ALL
    SELECT * FROM provisioner_job_queue_changes AS o WHERE o.xid = f.own_xid AND o.id > f.own_id AND o.xid < f.upto
) AS c;
COMMENT ON VIEW provisioner_job_queue_unfolded IS
    'All visible changes, without passing those that are gone and that an old transaction keeps from being cleaned up.';

CREATE FUNCTION provisioner_job_queue_positions(daemon_tags jsonb, keys uuid[], ids uuid[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET plan_cache_mode TO force_generic_plan
SET enable_seqscan TO off
SET enable_bitmapscan TO off
SET jit TO off
AS $$
BEGIN
    RETURN (
        WITH recent AS MATERIALIZED (
            SELECT
                coalesce(array_agg(c.key ORDER BY c.key) FILTER (WHERE c.change > 0), '{}') AS entered,
                coalesce(array_agg(c.key ORDER BY c.key) FILTER (WHERE c.change < 0), '{}') AS gone,
                coalesce(sum(c.change), 0) AS size
            FROM provisioner_job_queue_unfolded AS c
            WHERE CASE
                WHEN daemon_tags IS NULL THEN c.listed
                ELSE c.pending AND provisioner_tagset_contains(daemon_tags, c.tags)
            END
        ),

        lane AS MATERIALIZED (
            -- What is stored elsewhere is fetched once: a concatenation is a value.
            SELECT l.size, l.pages || '{}'::uuid[] AS pages, l.lows || '{}'::uuid[] AS lows, l.before || '{}'::integer[] AS before
            FROM provisioner_job_queue_lanes AS l
            WHERE l.fold = (SELECT f.id FROM provisioner_job_queue_folds AS f ORDER BY f.id DESC LIMIT 1)
                AND CASE
                    WHEN daemon_tags IS NULL THEN l.listed
                    ELSE NOT l.listed AND l.pending AND provisioner_tagset_contains(daemon_tags, l.tags)
                END
        ),

        counted AS (
            SELECT
                k.n,
                width_bucket(k.key, r.entered) - width_bucket(k.key, r.gone) + p.position AS position,
                -- More than one job may have this key: then the rest of the id decides, below.
                p.same
                + CASE WHEN r.entered[width_bucket(k.key, r.entered)] = k.key THEN 1 ELSE 0 END
                + CASE WHEN r.entered[width_bucket(k.key, r.entered) - 1] = k.key THEN 1 ELSE 0 END
                + CASE WHEN r.gone[width_bucket(k.key, r.gone)] = k.key THEN 2 ELSE 0 END AS same
            FROM unnest(keys) WITH ORDINALITY AS k (key, n)
            CROSS JOIN recent AS r
            CROSS JOIN LATERAL (
                SELECT
                    coalesce(sum(l.before[i.page] + i.place), 0) AS position,
                    coalesce(sum(
                        CASE WHEN i.keys[i.place] = k.key THEN 1 ELSE 0 END
                        + CASE WHEN i.keys[i.place - 1] = k.key THEN 1 ELSE 0 END
                    ), 0) AS same
                FROM lane AS l
                CROSS JOIN LATERAL (
                    SELECT b.page, s.keys, width_bucket(k.key, s.keys) AS place
                    FROM (SELECT width_bucket(k.key, l.lows) AS page) AS b
                    INNER JOIN provisioner_job_queue_pages AS s ON s.id = l.pages[b.page]
                ) AS i
            ) AS p
        )

        SELECT
            coalesce(
                array_agg(
                    (c.position - CASE WHEN c.same > 1 THEN (
                        SELECT count(*)
                        FROM provisioner_jobs AS me
                        CROSS JOIN organizations AS o
                        INNER JOIN provisioner_jobs AS q
                            ON q.organization_id = o.id
                            AND (q.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0')
                            = (me.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0')
                            AND q.created_at = me.created_at
                            AND q.id > me.id
                        WHERE me.id = ids[c.n]
                            AND q.started_at IS NULL
                            AND q.completed_at IS NULL
                            AND provisioner_job_queue_key(q.initiator_id, q.created_at, q.id) = keys[c.n]
                            AND CASE
                                WHEN daemon_tags IS NULL THEN q.canceled_at IS NULL AND q.error IS NULL
                                ELSE q.job_status = 'pending' AND provisioner_tagset_contains(daemon_tags, q.tags)
                            END
                    ) ELSE 0 END)::bigint
                    ORDER BY c.n
                ),
                '{}'
            )
            || ((SELECT size FROM recent) + coalesce((SELECT sum(size) FROM lane), 0))::bigint
        FROM counted AS c
    );
END
$$;
COMMENT ON FUNCTION provisioner_job_queue_positions(jsonb, uuid[], uuid[]) IS
    'The positions of waiting jobs, given by their keys and ids, and last the size of the queue: of all jobs that are listed, or of the pending ones that daemons with these tags can take.';

CREATE FUNCTION provisioner_job_queue_head(
    organization uuid, provisioners provisioner_type[], daemon_tags jsonb, OUT prebuild boolean, OUT created_at timestamp with time zone
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode TO force_generic_plan
SET enable_seqscan TO off
SET enable_bitmapscan TO off
SET jit TO off
AS $$
DECLARE
    first uuid;
    micros bigint;
BEGIN
    -- Whatever became of the counts, nobody waits for ever: one call in so many begins at the beginning.
    IF random() < 1.0 / 256 THEN
        prebuild := false;
        created_at := '-infinity';
        RETURN;
    END IF;
    WITH recent AS MATERIALIZED (
        SELECT c.id, c.change, c.job_id, c.key
        FROM provisioner_job_queue_unfolded AS c
        WHERE c.organization_id = organization
            AND c.provisioner = ANY (provisioners)
            AND provisioner_tagset_contains(daemon_tags, c.tags)
    ),

    gone AS MATERIALIZED (SELECT ARRAY(SELECT key FROM recent WHERE change < 0 ORDER BY key) AS keys),

    heads AS (
        SELECT e.key
        FROM recent AS e
        WHERE e.change > 0
            AND NOT EXISTS (
                SELECT 1 FROM recent AS g WHERE g.job_id = e.job_id AND g.change < 0 AND g.id > e.id
            )
        UNION ALL
        SELECT coalesce(
            (
                SELECT u.key
                FROM provisioner_job_queue_pages AS p
                CROSS JOIN LATERAL (SELECT unnest(p.keys) AS key, generate_subscripts(p.keys, 1) AS n) AS u
                WHERE p.id = l.pages[1]
                    -- Of jobs with the same key, some may still be there.
                    AND (
                        gone.keys[width_bucket(u.key, gone.keys)] IS DISTINCT FROM u.key
                        OR u.key = p.keys[u.n - 1]
                        OR u.key = p.keys[u.n + 1]
                    )
                LIMIT 1
            ),
            -- The last fold is long ago: the next page begins early enough.
            l.lows[2]
        )
        FROM provisioner_job_queue_lanes AS l
        CROSS JOIN gone
        WHERE l.fold = (SELECT f.id FROM provisioner_job_queue_folds AS f ORDER BY f.id DESC LIMIT 1)
            AND NOT l.listed
            AND l.organization_id = organization
            AND l.provisioner = ANY (provisioners)
            AND provisioner_tagset_contains(daemon_tags, l.tags)
    )

    SELECT h.key INTO first FROM heads AS h WHERE h.key IS NOT NULL ORDER BY h.key LIMIT 1;
    IF first IS NULL THEN
        RETURN;
    END IF;
    prebuild := get_byte(uuid_send(first), 0) = 1;
    micros := ('x' || encode(substr(uuid_send(first), 2, 8), 'hex'))::bit(64)::bigint # (1::bigint << 63);
    -- Between the years 1714 and 2285, in which nothing is rounded; before everything else otherwise.
    created_at := CASE
        WHEN micros BETWEEN -9000000000000000 AND 9000000000000000 THEN
            timestamp with time zone '2000-01-01 00:00:00+00'
            + micros / 1000000 * interval '1 second' + micros % 1000000 * interval '1 microsecond'
        ELSE '-infinity'
    END;
END
$$;
COMMENT ON FUNCTION provisioner_job_queue_head(uuid, provisioner_type[], jsonb) IS
    'Where the jobs begin that such a daemon can take; null when there are none.';

CREATE FUNCTION provisioner_job_queue_fold(recount boolean) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode TO force_generic_plan
SET enable_seqscan TO off
SET enable_bitmapscan TO off
SET jit TO off
AS $$
BEGIN
    -- One statement, so that what is counted and what it says was counted are of one snapshot.
    WITH last AS MATERIALIZED (
        SELECT
            coalesce(max(f.id), 0) AS id,
            coalesce(min(f.upto) FILTER (WHERE NOT recount AND f.upto <= pg_snapshot_xmax(pg_current_snapshot())), '0') AS upto,
            coalesce(min(f.running), '{}') AS running,
            coalesce(min(f.own_xid), '0') AS own_xid,
            coalesce(min(f.own_id), 0) AS own_id
        FROM (SELECT * FROM provisioner_job_queue_folds ORDER BY id DESC LIMIT 1) AS f
    ),

    newer AS (
        DELETE FROM provisioner_job_queue_changes AS c WHERE c.xid >= (SELECT upto FROM last) RETURNING c.*
    ),

    older AS (
        DELETE FROM provisioner_job_queue_changes AS c
        WHERE c.xid < (SELECT upto FROM last) AND c.xid = ANY ((SELECT running FROM last)::xid8[])
        RETURNING c.*
    ),

    own AS (
        DELETE FROM provisioner_job_queue_changes AS c
        WHERE c.xid = (SELECT own_xid FROM last) AND c.id > (SELECT own_id FROM last) AND c.xid < (SELECT upto FROM last)
        RETURNING c.*
    ),

    consumed AS MATERIALIZED (
        SELECT * FROM newer
        UNION ALL
        SELECT * FROM older
        UNION ALL
        SELECT * FROM own
    ),

    waiting AS (
        SELECT
            organization_id, provisioner, tags, job_status = 'pending' AS pending,
            canceled_at IS NULL AND error IS NULL AS listed,
            provisioner_job_queue_key(initiator_id, created_at, id) AS key,
            1 AS change
        FROM provisioner_jobs
        WHERE recount AND started_at IS NULL AND completed_at IS NULL
        UNION ALL
        SELECT organization_id, provisioner, tags, pending, listed, key, change FROM consumed WHERE NOT recount
    ),

    -- The lane of all that are listed has values of no meaning where others have those of their jobs.
    net AS MATERIALIZED (
        SELECT false AS listed, organization_id, provisioner, tags, pending, key, sum(change) AS n
        FROM waiting
        GROUP BY organization_id, provisioner, tags, pending, key
        HAVING sum(change) <> 0
        UNION ALL
        SELECT true, '00000000-0000-0000-0000-000000000000', 'echo', 'null', true, key, sum(change)
        FROM waiting
        WHERE listed
        GROUP BY key
        HAVING sum(change) <> 0
    ),

    old_lanes AS MATERIALIZED (
        SELECT * FROM provisioner_job_queue_lanes WHERE fold = (SELECT id FROM last) AND NOT recount
    ),

    lanes AS MATERIALIZED (
        SELECT number, listed, organization_id, provisioner, tags, pending, pages, lows FROM old_lanes
        UNION ALL
        SELECT
            (row_number() OVER ())::integer + coalesce((SELECT max(number) FROM old_lanes), 0),
            listed, organization_id, provisioner, tags, pending, '{}', '{}'
        FROM (
            SELECT listed, organization_id, provisioner, tags, pending FROM net
            EXCEPT
            SELECT listed, organization_id, provisioner, tags, pending FROM old_lanes
        ) AS new
    ),

    located AS MATERIALIZED (
        SELECT l.number, l.pages[greatest(width_bucket(net.key, l.lows), 1)] AS page, net.key, net.n
        FROM net
        INNER JOIN lanes AS l USING (listed, organization_id, provisioner, tags, pending)
    ),

    touched AS (
        DELETE FROM provisioner_job_queue_pages AS p
        WHERE p.id = ANY (ARRAY(
            SELECT page FROM located WHERE page IS NOT NULL
            UNION
            SELECT id FROM provisioner_job_queue_pages WHERE recount
        ))
        RETURNING p.id, p.keys
    ),

    entries AS (
        SELECT e.number, e.page, e.key, sum(e.n)::integer AS n
        FROM (
            SELECT number, page, key, n FROM located
            UNION ALL
            SELECT o.number, o.page, unnest(t.keys), 1
            FROM touched AS t
            INNER JOIN (SELECT DISTINCT number, page FROM located) AS o ON o.page = t.id
        ) AS e
        GROUP BY e.number, e.page, e.key
        HAVING sum(e.n) > 0
    ),

    new_pages AS MATERIALIZED (
        SELECT gen_random_uuid() AS id, r.number, array_agg(r.key ORDER BY r.key) AS keys
        FROM (
            SELECT
                e.number, e.page, e.key,
                -- Equal keys stay together.
                rank() OVER (PARTITION BY e.number, e.page ORDER BY e.key) AS place
            FROM entries AS e
            CROSS JOIN LATERAL generate_series(1, e.n)
        ) AS r
        GROUP BY r.number, r.page, (r.place - 1) / 256
    ),

    stored_pages AS (
        INSERT INTO provisioner_job_queue_pages (id, keys) SELECT id, keys FROM new_pages
    ),

    directory AS (
        SELECT number, id, keys[1] AS low, cardinality(keys) AS size FROM new_pages
        UNION ALL
        SELECT l.number, u.id, u.low, coalesce(l.before[u.n + 1], l.size) - u.before
        FROM old_lanes AS l
        CROSS JOIN LATERAL unnest(l.pages, l.lows, l.before) WITH ORDINALITY AS u (id, low, before, n)
        WHERE u.id NOT IN (SELECT id FROM touched)
    ),

    new_lanes AS (
        SELECT
            d.number, sum(d.size) AS size,
            array_agg(d.id ORDER BY d.low) AS pages,
            array_agg(d.low ORDER BY d.low) AS lows,
            array_agg(d.before ORDER BY d.low) AS before
        FROM (SELECT *, sum(size) OVER (PARTITION BY number ORDER BY low) - size AS before FROM directory) AS d
        GROUP BY d.number
    ),

    stored_lanes AS (
        INSERT INTO provisioner_job_queue_lanes (
            fold, number, listed, organization_id, provisioner, tags, pending, size, pages, lows, before
        )
        SELECT
            (SELECT id + 1 FROM last), l.number, l.listed, l.organization_id, l.provisioner, l.tags, l.pending, n.size,
            n.pages, n.lows, n.before
        FROM new_lanes AS n
        INNER JOIN lanes AS l USING (number)
    ),

    dropped_lanes AS (
        DELETE FROM provisioner_job_queue_lanes
        WHERE fold = ANY (ARRAY(
            SELECT id FROM last
            UNION
            SELECT fold FROM provisioner_job_queue_lanes WHERE recount
        ))
    ),

    dropped_fold AS (
        DELETE FROM provisioner_job_queue_folds WHERE id = (SELECT id FROM last)
    )

    -- What this transaction did is not passed again: it gets a place of its own below upto. The transactions between the end
    -- of the snapshot and itself are running; when there are many, it is left among those from upto on.
    INSERT INTO provisioner_job_queue_folds (id, upto, running, own_xid, own_id)
    SELECT
        last.id + 1,
        CASE WHEN b.are_few THEN greatest(b.seen, b.own + 1) ELSE b.seen END::text::xid8,
        ARRAY(SELECT pg_snapshot_xip(b.snapshot))
        || CASE WHEN b.are_few THEN ARRAY(SELECT x::text::xid8 FROM generate_series(b.seen, b.own - 1) AS x) END,
        pg_current_xact_id(),
        coalesce((SELECT max(id) FROM consumed WHERE xid = pg_current_xact_id()), 0)
    FROM last
    CROSS JOIN (
        SELECT s.snapshot, s.seen, s.own, s.own - s.seen < 1000 AS are_few
        FROM (
            SELECT
                pg_current_snapshot() AS snapshot,
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS seen,
                pg_current_xact_id()::text::bigint AS own
        ) AS s
    ) AS b;
END
$$;
COMMENT ON FUNCTION provisioner_job_queue_fold(boolean) IS
    'Folds the changes into the pages, or counts everything anew; only for who holds the newest row of provisioner_job_queue_folds.';

CREATE FUNCTION provisioner_job_queue_recount() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    LOOP
        PERFORM 1 FROM provisioner_job_queue_folds ORDER BY id DESC LIMIT 1 FOR UPDATE;
        -- Whoever held the row has put another one in its place.
        EXIT WHEN found OR NOT EXISTS (SELECT 1 FROM provisioner_job_queue_folds);
    END LOOP;
    PERFORM provisioner_job_queue_fold(true);
END
$$;
COMMENT ON FUNCTION provisioner_job_queue_recount() IS
    'Counts the queue anew; for databases where jobs were written without their triggers.';

CREATE FUNCTION provisioner_job_queue_differences() RETURNS TABLE (
    listed boolean, organization_id uuid, provisioner provisioner_type, tags jsonb, pending boolean, key uuid, counted bigint, actual bigint
)
LANGUAGE sql STABLE
AS $$
    SELECT e.listed, e.organization_id, e.provisioner, e.tags, e.pending, e.key, sum(e.counted)::bigint, sum(e.actual)::bigint
    FROM (
        SELECT l.listed, l.organization_id, l.provisioner, l.tags, l.pending, unnest(p.keys) AS key, 1 AS counted, 0 AS actual
        FROM provisioner_job_queue_lanes AS l
        INNER JOIN provisioner_job_queue_pages AS p ON p.id = ANY (l.pages)
        WHERE l.fold = (SELECT max(f.id) FROM provisioner_job_queue_folds AS f)
        UNION ALL
        SELECT false, c.organization_id, c.provisioner, c.tags, c.pending, c.key, c.change, 0
        FROM provisioner_job_queue_unfolded AS c
        UNION ALL
        SELECT true, '00000000-0000-0000-0000-000000000000', 'echo', 'null', true, c.key, c.change, 0
        FROM provisioner_job_queue_unfolded AS c
        WHERE c.listed
        UNION ALL
        SELECT
            false, j.organization_id, j.provisioner, j.tags, j.job_status = 'pending',
            provisioner_job_queue_key(j.initiator_id, j.created_at, j.id), 0, 1
        FROM provisioner_jobs AS j
        WHERE j.started_at IS NULL AND j.completed_at IS NULL
        UNION ALL
        SELECT
            true, '00000000-0000-0000-0000-000000000000', 'echo', 'null', true,
            provisioner_job_queue_key(j.initiator_id, j.created_at, j.id), 0, 1
        FROM provisioner_jobs AS j
        WHERE j.started_at IS NULL AND j.completed_at IS NULL AND j.canceled_at IS NULL AND j.error IS NULL
    ) AS e
    GROUP BY e.listed, e.organization_id, e.provisioner, e.tags, e.pending, e.key
    HAVING sum(e.counted) <> sum(e.actual)
$$;
COMMENT ON FUNCTION provisioner_job_queue_differences() IS
    'Where the counted queue is not what a count of the jobs gives; no rows when all is well.';

-- As its owner: who may write jobs need not have been granted anything on the tables above.
CREATE FUNCTION record_provisioner_job_queue_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO public, pg_temp
AS $$
DECLARE
    was boolean := TG_OP <> 'INSERT' AND OLD.started_at IS NULL AND OLD.completed_at IS NULL;
    is_now boolean := TG_OP <> 'DELETE' AND NEW.started_at IS NULL AND NEW.completed_at IS NULL;
BEGIN
    IF was AND is_now
        AND OLD.id = NEW.id
        AND OLD.created_at = NEW.created_at
        AND OLD.initiator_id = NEW.initiator_id
        AND OLD.organization_id = NEW.organization_id
        AND OLD.provisioner = NEW.provisioner
        AND OLD.tags = NEW.tags
        AND OLD.job_status = NEW.job_status
        AND (OLD.error IS NULL) = (NEW.error IS NULL)
        AND (OLD.canceled_at IS NULL) = (NEW.canceled_at IS NULL)
    THEN
        RETURN NULL;
    END IF;
    IF was THEN
        INSERT INTO provisioner_job_queue_changes (change, job_id, key, organization_id, provisioner, tags, pending, listed)
        VALUES (
            -1, OLD.id, provisioner_job_queue_key(OLD.initiator_id, OLD.created_at, OLD.id), OLD.organization_id,
            OLD.provisioner, OLD.tags, OLD.job_status = 'pending', OLD.canceled_at IS NULL AND OLD.error IS NULL
        );
    END IF;
    IF is_now THEN
        INSERT INTO provisioner_job_queue_changes (change, job_id, key, organization_id, provisioner, tags, pending, listed)
        VALUES (
            1, NEW.id, provisioner_job_queue_key(NEW.initiator_id, NEW.created_at, NEW.id), NEW.organization_id,
            NEW.provisioner, NEW.tags, NEW.job_status = 'pending', NEW.canceled_at IS NULL AND NEW.error IS NULL
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION record_provisioner_job_queue_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO public, pg_temp
AS $$
BEGIN
    INSERT INTO provisioner_job_queue_changes (change, job_id, key, organization_id, provisioner, tags, pending, listed)
    SELECT
        -1, j.id, provisioner_job_queue_key(j.initiator_id, j.created_at, j.id), j.organization_id, j.provisioner, j.tags,
        j.job_status = 'pending', j.canceled_at IS NULL AND j.error IS NULL
    FROM provisioner_jobs AS j
    WHERE j.started_at IS NULL AND j.completed_at IS NULL;
    RETURN NULL;
END
$$;

CREATE FUNCTION fold_provisioner_job_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path TO public, pg_temp
SET plan_cache_mode TO force_generic_plan
SET enable_seqscan TO off
SET enable_bitmapscan TO off
SET jit TO off
AS $$
BEGIN
    -- Under a stricter isolation, reading could fail the writer; another one will fold.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN NULL;
    END IF;
    IF (SELECT count(*) FROM (SELECT 1 FROM provisioner_job_queue_unfolded LIMIT 256) AS c) < 256 THEN
        RETURN NULL;
    END IF;
    BEGIN
        PERFORM 1 FROM provisioner_job_queue_folds ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF found THEN
            PERFORM provisioner_job_queue_fold(false);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        -- The writer's transaction is not to blame: the changes stay, and count.
        RAISE LOG 'the queue was not folded: % (%)', sqlerrm, sqlstate;
    END;
    RETURN NULL;
END
$$;

-- At the end of the transaction, so that nobody holds the row for longer than a commit takes.
CREATE CONSTRAINT TRIGGER fold_provisioner_job_queue
AFTER INSERT ON provisioner_job_queue_changes
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (new.id % 32 = 0)
EXECUTE FUNCTION fold_provisioner_job_queue();
