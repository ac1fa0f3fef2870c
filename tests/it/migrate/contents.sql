-- What is in the schema `public`, a line for each thing.
SELECT line FROM (
    SELECT format('%s %s %s', c.relkind, c.relname, c.reloptions)
    FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind <> 'i'
    UNION ALL
    SELECT format('column %s.%s %s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.attgenerated, a.attidentity, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute AS a
    INNER JOIN pg_class AS c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0
        AND NOT a.attisdropped
    UNION ALL
    SELECT format('index %s %s %s %s', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indislive)
    FROM pg_index AS i INNER JOIN pg_class AS c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('constraint %s %s %s %s', n.conrelid::regclass, n.conname, n.convalidated, pg_get_constraintdef(n.oid))
    FROM pg_constraint AS n WHERE n.connamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('label %s.%s after %s', t.typname, e.enumlabel,
        lag(e.enumlabel) OVER (PARTITION BY t.oid ORDER BY e.enumsortorder))
    FROM pg_enum AS e INNER JOIN pg_type AS t ON t.oid = e.enumtypid WHERE t.typnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('trigger %s', pg_get_triggerdef(t.oid))
    FROM pg_trigger AS t INNER JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
    UNION ALL
    SELECT format('function %s', pg_get_functiondef(p.oid))
    FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('view %s %s', c.relname, pg_get_viewdef(c.oid))
    FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('v', 'm')
    UNION ALL
    SELECT format('history %s %s %s', version, name, checksum) FROM coderdb.refinery_schema_history
    UNION ALL
    SELECT format('log %s %s %s: %s times', version, action, statement, count(*))
    FROM coderdb.migration_log GROUP BY version, action, statement
) AS lines (line)
ORDER BY line COLLATE "C"
