-- One of the tables that pruning deletes from, if it has more than twice the dead rows that start autovacuum there (domain:
-- pruning). No row where autovacuum is off.
SELECT
    c.relname::text AS "table!: Text",
    pg_stat_get_dead_tuples(c.oid) AS "dead_rows!"
FROM pg_class AS c
CROSS JOIN LATERAL (
    SELECT
        coalesce(max(o.option_value::float8) FILTER (WHERE o.option_name = 'autovacuum_vacuum_threshold'),
            current_setting('autovacuum_vacuum_threshold')::float8) AS threshold,
        coalesce(max(o.option_value::float8) FILTER (WHERE o.option_name = 'autovacuum_vacuum_scale_factor'),
            current_setting('autovacuum_vacuum_scale_factor')::float8) AS scale_factor,
        coalesce(max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_enabled'), 'true')::boolean AS enabled
    FROM pg_options_to_table(c.reloptions) AS o
    WHERE o.option_name LIKE 'autovacuum\_%'
) AS autovacuum
WHERE c.oid IN (
        to_regclass('provisioner_jobs'), to_regclass('provisioner_job_logs'), to_regclass('provisioner_job_timings'),
        to_regclass('workspace_builds'), to_regclass('workspace_resources'), to_regclass('workspace_agents')
    )
    AND current_setting('autovacuum')::boolean
    AND autovacuum.enabled
    AND pg_stat_get_dead_tuples(c.oid) > 2 * (autovacuum.threshold + autovacuum.scale_factor * greatest(c.reltuples, 0))
LIMIT 1
