-- Whether the indexes and foreign keys of the four big tables can be taken off and put back: this role owns every
-- table involved, and each of them is whole, because a definition does not say that it was not.
WITH big (id) AS (
    SELECT unnest('{provisioner_jobs,workspace_builds,template_versions,workspaces}'::regclass[])
),

involved AS (
    SELECT id FROM big
    UNION
    SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid IN (SELECT id FROM big)
    UNION
    SELECT confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid IN (SELECT id FROM big)
)

SELECT
    (SELECT bool_and(pg_has_role(relowner, 'USAGE') AND relkind = 'r') FROM pg_class WHERE oid IN (SELECT id FROM involved))
    AND NOT EXISTS (
        SELECT 1
        FROM pg_index
        WHERE indrelid IN (SELECT id FROM big) AND (NOT indisvalid OR indisclustered OR indisreplident)
    )
    AND NOT EXISTS (
        SELECT 1
        FROM pg_constraint
        WHERE (conrelid IN (SELECT id FROM big) OR confrelid IN (SELECT id FROM big)) AND (NOT convalidated OR contype = 'x')
    )
