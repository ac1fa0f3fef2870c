-- A line per fact of the schema `public`, in the server's own words. What belongs to a relation begins with
-- its kind, the relation and a dot.
SELECT line
FROM (
    SELECT format('table %s: %s', relname, concat_ws(
        ' ',
        CASE WHEN relpersistence = 'u' THEN 'unlogged' END,
        CASE relkind WHEN 'v' THEN 'view' ELSE 'table' END
    )) AS line
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
    UNION ALL
    SELECT format('column %s.%s: %s', c.relname, a.attname, concat_ws(
        ' ',
        row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
        format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attgenerated <> '' THEN 'generated' WHEN a.atthasdef THEN 'default' END,
        pg_get_expr(d.adbin, d.adrelid),
        CASE WHEN a.attnotnull THEN 'not null' END
    ))
    FROM pg_class AS c
    INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
    UNION ALL
    -- From 18 on NOT NULL is a constraint, too; the column says it.
    SELECT format('constraint %s.%s: %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype IN ('c', 'f', 'p', 'u', 'x')
    UNION ALL
    SELECT format('index %s.%s: %s', i.indrelid::regclass, c.relname, pg_get_indexdef(c.oid))
    FROM pg_index AS i INNER JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = c.oid AND contype IN ('p', 'u', 'x'))
    UNION ALL
    -- The columns and the condition of a trigger are not in the catalog.
    SELECT format('trigger %s.%s: %s', g.tgrelid::regclass, g.tgname, concat_ws(
        ' ',
        CASE WHEN g.tgtype & 2 > 0 THEN 'before' ELSE 'after' END,
        CASE WHEN g.tgtype & 4 > 0 THEN 'insert' END,
        CASE WHEN g.tgtype & 8 > 0 THEN 'delete' END,
        CASE WHEN g.tgtype & 16 > 0 THEN 'update' END,
        CASE WHEN g.tgtype & 1 > 0 THEN 'of each row' END,
        g.tgfoid::regproc
    ))
    FROM pg_trigger AS g INNER JOIN pg_class AS c ON c.oid = g.tgrelid
    WHERE c.relnamespace = 'public'::regnamespace AND NOT g.tgisinternal
    UNION ALL
    SELECT format('function %s: %s', p.proname, concat_ws(
        ' ',
        pg_get_function_arguments(p.oid), 'returns', pg_get_function_result(p.oid), l.lanname,
        CASE p.provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' ELSE 'immutable' END
    ))
    FROM pg_proc AS p INNER JOIN pg_language AS l ON l.oid = p.prolang
    WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('enum %s: %s', t.typname, string_agg(e.enumlabel, ' ' ORDER BY e.enumsortorder))
    FROM pg_enum AS e INNER JOIN pg_type AS t ON t.oid = e.enumtypid
    WHERE t.typnamespace = 'public'::regnamespace
    GROUP BY t.typname
    UNION ALL
    SELECT format('domain %s: %s', typname, format_type(typbasetype, typtypmod))
    FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typtype = 'd'
    UNION ALL
    SELECT format('sequence %s: ', sequencename) FROM pg_sequences WHERE schemaname = 'public'
) AS fact
