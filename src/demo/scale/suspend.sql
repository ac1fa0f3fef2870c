-- Takes the indexes and foreign keys off the four big tables, and keeps their definitions in demo_definitions. Building
-- an index over a million rows is several times cheaper than a million insertions; a foreign key is one join.
-- Read from the catalog, so that an index which a later migration adds needs nothing here.
CREATE TEMPORARY TABLE demo_definitions (place integer, kind text, target text, name text, definition text, comment text)
ON COMMIT DROP;

WITH big (id) AS (
    SELECT unnest('{provisioner_jobs,workspace_builds,template_versions,workspaces}'::regclass[])
)

INSERT INTO demo_definitions
-- The foreign keys of other tables are in it too: they hold on to the primary keys.
SELECT
    CASE contype WHEN 'f' THEN 1 ELSE 2 END, 'constraint', conrelid::regclass::text, conname,
    pg_get_constraintdef(c.oid), obj_description(c.oid, 'pg_constraint')
FROM pg_constraint AS c
WHERE (conrelid IN (SELECT id FROM big) AND contype IN ('p', 'u', 'f'))
    OR (confrelid IN (SELECT id FROM big) AND contype = 'f')
UNION ALL
SELECT 3, 'index', i.indexrelid::regclass::text, NULL, pg_get_indexdef(i.indexrelid), obj_description(i.indexrelid, 'pg_class')
FROM pg_index AS i
WHERE i.indrelid IN (SELECT id FROM big)
    AND NOT EXISTS (SELECT 1 FROM pg_constraint AS c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x'));

DO $$
DECLARE
    d demo_definitions;
BEGIN
    FOR d IN SELECT * FROM demo_definitions ORDER BY place, target, name LOOP
        IF d.kind = 'index' THEN
            EXECUTE 'DROP INDEX ' || d.target;
        ELSE
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', d.target, d.name);
        END IF;
    END LOOP;
END
$$;

