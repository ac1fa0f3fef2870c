-- Whether the database was migrated at least once, and how many tables it has.
SELECT
    to_regclass('coderdb.refinery_schema_history') IS NOT NULL AND to_regclass('provisioner_jobs') IS NOT NULL,
    (
        SELECT count(*)
        FROM pg_class AS c
        INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
            -- A first run that failed in the base migration leaves only the history.
            AND n.nspname <> 'coderdb'
    )
