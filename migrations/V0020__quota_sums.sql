-- What:     what each user consumes in each organization, as a sum that the database itself keeps right (docs/adr/0016).
-- Locks:    SHARE ROW EXCLUSIVE on workspaces and workspace_builds, while the triggers are made.
-- Old code: sees nothing. Its writes insert one more row, which waits for nobody and conflicts with nobody.

-- Which workspaces may count differently than they were counted. Written by triggers; the key makes it one row for each
-- workspace and transaction.
CREATE TABLE quota_changes (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    workspace_id uuid NOT NULL,
    CONSTRAINT quota_changes_pkey PRIMARY KEY (xid, workspace_id)
);

CREATE TABLE quota_counted (
    workspace_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    daily_cost integer NOT NULL,
    CONSTRAINT quota_counted_pkey PRIMARY KEY (workspace_id)
);

-- The row of the highest fold is the sum. A new row and not an update: a reader under an old horizon finds it first.
CREATE TABLE quota_sums (
    owner_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    fold bigint NOT NULL,
    credits bigint NOT NULL,
    CONSTRAINT quota_sums_pkey PRIMARY KEY (owner_id, organization_id, fold)
);

-- Every change of a transaction below the cut is counted. Transaction ids mean something on one server only: a restored
-- dump has the rows of another.
CREATE TABLE quota_folds (
    fold bigint NOT NULL,
    cut xid8 NOT NULL,
    system_identifier bigint NOT NULL,
    CONSTRAINT quota_folds_pkey PRIMARY KEY (fold)
);

COMMENT ON TABLE quota_changes IS 'Workspaces whose cost may have changed since it was counted.';
COMMENT ON TABLE quota_counted IS 'The cost of the newest build of each workspace that is not deleted, as it was counted; none is 0.';
COMMENT ON TABLE quota_sums IS 'The sum of quota_counted per owner and organization; the row of the highest fold.';
COMMENT ON TABLE quota_folds IS 'When changes were last counted; the row of the highest fold.';

-- Counts some of the changes. Only one transaction at a time does, and nobody waits for it. Changes that are seen are
-- taken away before their workspaces are read, so that whatever is not read has left a change behind.
CREATE FUNCTION quota_fold() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    most CONSTANT bigint := 256;
    last quota_folds;
    next_cut xid8;
    newest xid8;
    taken bigint;
    changed uuid[];
BEGIN
    -- Reading here would give a serializable transaction conflicts that it does not know of.
    IF current_setting('transaction_isolation') = 'serializable' OR NOT pg_try_advisory_xact_lock(7163384754) THEN
        RETURN;
    END IF;
    SELECT * INTO last FROM quota_folds ORDER BY fold DESC LIMIT 1;
    IF NOT FOUND OR last.system_identifier <> (SELECT s.system_identifier FROM pg_control_system() AS s) THEN
        RETURN;
    END IF;
    next_cut := pg_snapshot_xmin(pg_current_snapshot());

    WITH due AS (
        SELECT xid, workspace_id FROM quota_changes WHERE xid >= last.cut ORDER BY xid, workspace_id LIMIT most
    ),

    gone AS (
        DELETE FROM quota_changes AS c
        USING due
        WHERE c.xid = due.xid AND c.workspace_id = due.workspace_id
        RETURNING c.xid, c.workspace_id
    )

    SELECT count(*), array_agg(DISTINCT workspace_id), (array_agg(xid ORDER BY xid DESC))[1]
    INTO taken, changed, newest
    FROM gone;
    IF taken = most THEN
        next_cut := least(next_cut, newest);
    END IF;

    WITH actual AS (
        SELECT w.id, w.owner_id, w.organization_id, latest.daily_cost
        FROM unnest(changed) AS c (id)
        CROSS JOIN LATERAL (SELECT * FROM workspaces WHERE id = c.id AND NOT deleted LIMIT 1) AS w
        CROSS JOIN LATERAL (
            SELECT b.daily_cost
            FROM workspace_builds AS b
            WHERE b.workspace_id = w.id
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS latest
        WHERE latest.daily_cost <> 0
    ),

    counted AS (
        SELECT * FROM quota_counted WHERE workspace_id = ANY (changed)
    ),

    removed AS (
        DELETE FROM quota_counted AS c
        WHERE c.workspace_id = ANY (changed) AND NOT EXISTS (SELECT FROM actual WHERE actual.id = c.workspace_id)
    ),

    stored AS (
        INSERT INTO quota_counted AS c (workspace_id, owner_id, organization_id, daily_cost)
        SELECT * FROM actual
        ON CONFLICT (workspace_id) DO UPDATE
        SET owner_id = excluded.owner_id, organization_id = excluded.organization_id, daily_cost = excluded.daily_cost
        WHERE (c.owner_id, c.organization_id, c.daily_cost)
            <> (excluded.owner_id, excluded.organization_id, excluded.daily_cost)
    ),

    difference AS (
        SELECT owner_id, organization_id, sum(daily_cost) AS credits
        FROM (
            SELECT owner_id, organization_id, daily_cost::bigint FROM actual
            UNION ALL
            SELECT owner_id, organization_id, -daily_cost::bigint FROM counted
        ) AS both_sides
        GROUP BY owner_id, organization_id
        HAVING sum(daily_cost) <> 0
    ),

    replaced AS (
        DELETE FROM quota_sums AS s
        USING difference AS d
        WHERE s.owner_id = d.owner_id AND s.organization_id = d.organization_id
    )

    INSERT INTO quota_sums (owner_id, organization_id, fold, credits)
    SELECT d.owner_id, d.organization_id, last.fold + 1, d.credits + coalesce(before.credits, 0)
    FROM difference AS d
    LEFT JOIN LATERAL (
        SELECT s.credits
        FROM quota_sums AS s
        WHERE s.owner_id = d.owner_id AND s.organization_id = d.organization_id
        ORDER BY s.fold DESC
        LIMIT 1
    ) AS before ON true;

    INSERT INTO quota_folds (fold, cut, system_identifier) VALUES (last.fold + 1, next_cut, last.system_identifier);
    DELETE FROM quota_folds WHERE fold <= last.fold;
EXCEPTION
    -- Nothing was counted; whoever comes next tries again.
    WHEN OTHERS THEN
        RETURN;
END
$$;
COMMENT ON FUNCTION quota_fold() IS 'Counts up to 256 changes of quota_changes, unless another transaction does; it never fails.';

-- About every 16th change counts the others, once in a transaction: a load of many rows is counted by those after it.
CREATE FUNCTION quota_fold_sometimes() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'serializable'
        AND coalesce(current_setting('coderdb.quota_fold', true), '') <> 'off'
    THEN
        PERFORM set_config('coderdb.quota_fold', 'off', true), quota_fold();
    END IF;
END
$$;

CREATE FUNCTION quota_workspace_build_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO quota_changes (workspace_id) VALUES (OLD.workspace_id) ON CONFLICT DO NOTHING;
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.workspace_id <> OLD.workspace_id) THEN
        INSERT INTO quota_changes (workspace_id) VALUES (NEW.workspace_id) ON CONFLICT DO NOTHING;
    END IF;
    IF random() < 0.0625 THEN
        PERFORM quota_fold_sometimes();
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION quota_workspace_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO quota_changes (workspace_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
    IF TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        INSERT INTO quota_changes (workspace_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    END IF;
    IF random() < 0.0625 THEN
        PERFORM quota_fold_sometimes();
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION quota_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO quota_changes (workspace_id) SELECT workspace_id FROM quota_counted ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION quota_recount() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    next_fold bigint;
    next_cut xid8;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'quota_recount needs a transaction with the isolation level READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(7163384754);
    next_cut := pg_snapshot_xmin(pg_current_snapshot());
    SELECT coalesce(max(fold), 0) + 1 INTO next_fold FROM quota_folds;
    DELETE FROM quota_changes;
    DELETE FROM quota_counted;
    INSERT INTO quota_counted (workspace_id, owner_id, organization_id, daily_cost)
    SELECT w.id, w.owner_id, w.organization_id, latest.daily_cost
    FROM workspaces AS w
    CROSS JOIN LATERAL (
        SELECT b.daily_cost
        FROM workspace_builds AS b
        WHERE b.workspace_id = w.id
        ORDER BY b.build_number DESC
        LIMIT 1
    ) AS latest
    WHERE NOT w.deleted AND latest.daily_cost <> 0;
    DELETE FROM quota_sums;
    INSERT INTO quota_sums (owner_id, organization_id, fold, credits)
    SELECT owner_id, organization_id, next_fold, sum(daily_cost) FROM quota_counted GROUP BY owner_id, organization_id;
    DELETE FROM quota_folds;
    INSERT INTO quota_folds (fold, cut, system_identifier)
    SELECT next_fold, next_cut, system_identifier FROM pg_control_system();
END
$$;
COMMENT ON FUNCTION quota_recount() IS 'Counts all workspaces anew, while others write. After a dump was restored, until then sums are taken the long way.';

-- A reader must find its rows by index, whatever statistics say of tables that are almost empty most of the time.
CREATE FUNCTION quota_consumed(owner uuid, organization uuid) RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_seqscan = off
AS $$
DECLARE
    -- Beyond it, reading the owner's workspaces is not much more.
    most CONSTANT bigint := 128;
    changed uuid[];
    credits bigint;
BEGIN
    -- A serializable transaction must conflict with what it depends on, and with nothing else.
    IF current_setting('transaction_isolation') <> 'serializable' THEN
        SELECT
            ARRAY(SELECT workspace_id FROM quota_changes WHERE xid >= f.cut ORDER BY xid LIMIT most + 1),
            coalesce((
                SELECT s.credits
                FROM quota_sums AS s
                WHERE s.owner_id = owner AND s.organization_id = organization
                ORDER BY s.fold DESC
                LIMIT 1
            ), 0)
        INTO changed, credits
        FROM (SELECT cut, system_identifier FROM quota_folds ORDER BY fold DESC LIMIT 1) AS f
        WHERE f.system_identifier = (SELECT system_identifier FROM pg_control_system());
    END IF;
    IF changed IS NULL OR cardinality(changed) > most THEN
        -- Only the newest build of a workspace counts, whatever became of it.
        RETURN (
            SELECT coalesce(sum(latest.daily_cost), 0)
            FROM workspaces AS w
            CROSS JOIN LATERAL (
                SELECT b.daily_cost
                FROM workspace_builds AS b
                WHERE b.workspace_id = w.id
                ORDER BY b.build_number DESC
                LIMIT 1
            ) AS latest
            WHERE w.owner_id = owner AND w.organization_id = organization AND w.deleted = false
        );
    END IF;
    IF changed <> '{}' THEN
        credits := credits + (
            SELECT coalesce(sum(coalesce(actual.daily_cost, 0)::bigint - coalesce(counted.daily_cost, 0)), 0)
            FROM (SELECT DISTINCT unnest(changed) AS id) AS c
            LEFT JOIN quota_counted AS counted
                ON counted.workspace_id = c.id AND counted.owner_id = owner AND counted.organization_id = organization
            LEFT JOIN LATERAL (
                SELECT (
                    SELECT b.daily_cost
                    FROM workspace_builds AS b
                    WHERE b.workspace_id = w.id
                    ORDER BY b.build_number DESC
                    LIMIT 1
                ) AS daily_cost
                FROM workspaces AS w
                WHERE w.id = c.id AND w.owner_id = owner AND w.organization_id = organization AND w.deleted = false
                LIMIT 1
            ) AS actual ON true
        );
    END IF;
    RETURN credits;
END
$$;
COMMENT ON FUNCTION quota_consumed(uuid, uuid) IS
    'Credits that the user consumes in the organization: the sum, and what has changed since it was taken.';

-- Both sides in one snapshot. No rows is the expected answer.
CREATE FUNCTION quota_differences()
RETURNS TABLE (owner_id uuid, organization_id uuid, credits bigint, actual_credits bigint) LANGUAGE sql STABLE
AS $$
    WITH workspace_costs AS (
        SELECT w.id, w.owner_id, w.organization_id, latest.daily_cost::bigint
        FROM workspaces AS w
        CROSS JOIN LATERAL (
            SELECT b.daily_cost
            FROM workspace_builds AS b
            WHERE b.workspace_id = w.id
            ORDER BY b.build_number DESC
            LIMIT 1
        ) AS latest
        WHERE NOT w.deleted
    ),

    changed AS (
        SELECT DISTINCT workspace_id
        FROM quota_changes
        WHERE xid >= (SELECT cut FROM quota_folds ORDER BY fold DESC LIMIT 1)
    ),

    newest_sums AS (
        SELECT DISTINCT ON (s.owner_id, s.organization_id) s.owner_id, s.organization_id, s.credits
        FROM quota_sums AS s
        ORDER BY s.owner_id, s.organization_id, s.fold DESC
    ),

    kept AS (
        SELECT k.owner_id, k.organization_id, sum(k.credits) AS credits
        FROM (
            SELECT * FROM newest_sums
            UNION ALL
            SELECT c.owner_id, c.organization_id, -c.daily_cost::bigint
            FROM quota_counted AS c INNER JOIN changed USING (workspace_id)
            UNION ALL
            SELECT w.owner_id, w.organization_id, w.daily_cost
            FROM workspace_costs AS w INNER JOIN changed ON changed.workspace_id = w.id
        ) AS k
        GROUP BY k.owner_id, k.organization_id
    ),

    actual AS (
        SELECT w.owner_id, w.organization_id, sum(w.daily_cost) AS credits
        FROM workspace_costs AS w
        GROUP BY w.owner_id, w.organization_id
    )

    SELECT owner_id, organization_id, coalesce(kept.credits, 0)::bigint, coalesce(actual.credits, 0)::bigint
    FROM kept FULL JOIN actual USING (owner_id, organization_id)
    WHERE coalesce(kept.credits, 0) <> coalesce(actual.credits, 0)
        AND EXISTS (SELECT FROM quota_folds INNER JOIN pg_control_system() USING (system_identifier))
$$;
COMMENT ON FUNCTION quota_differences() IS 'Owners whose sum is not that of their workspaces: there are none. A check of quota_sums.';

-- A definer's functions must not find somebody's temporary tables first.
DO $$
DECLARE
    definer regprocedure;
BEGIN
    FOREACH definer IN ARRAY '{
        quota_fold(), quota_fold_sometimes(), quota_workspace_build_changed(), quota_workspace_changed(), quota_truncated(),
        quota_recount()
    }'::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', definer, current_schema());
    END LOOP;
END
$$;

CREATE TRIGGER quota_workspace_build_changed
    AFTER INSERT OR DELETE ON workspace_builds FOR EACH ROW
    EXECUTE FUNCTION quota_workspace_build_changed();
CREATE TRIGGER quota_workspace_build_updated
    AFTER UPDATE ON workspace_builds FOR EACH ROW
    WHEN (
        NEW.daily_cost <> OLD.daily_cost
        OR NEW.build_number <> OLD.build_number
        OR NEW.workspace_id <> OLD.workspace_id
    )
    EXECUTE FUNCTION quota_workspace_build_changed();
CREATE TRIGGER quota_workspace_deleted
    AFTER DELETE ON workspaces FOR EACH ROW
    EXECUTE FUNCTION quota_workspace_changed();
CREATE TRIGGER quota_workspace_updated
    AFTER UPDATE ON workspaces FOR EACH ROW
    WHEN (
        NEW.deleted <> OLD.deleted
        OR NEW.owner_id <> OLD.owner_id
        OR NEW.organization_id <> OLD.organization_id
        OR NEW.id <> OLD.id
    )
    EXECUTE FUNCTION quota_workspace_changed();
CREATE TRIGGER quota_workspace_builds_truncated
    AFTER TRUNCATE ON workspace_builds FOR EACH STATEMENT
    EXECUTE FUNCTION quota_truncated();
