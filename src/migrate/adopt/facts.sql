-- What statements can need of some relations, one JSON object per row, in PostgreSQL's own normal form: types without
-- their domains and lengths, keys by their columns. Takes no lock on a table, but for the expression of a generated column.
WITH place AS (SELECT oid FROM pg_namespace WHERE nspname = current_schema()),
relations AS (
    SELECT c.oid, c.relname, c.relkind
    FROM pg_class AS c INNER JOIN place ON place.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY ('{relations}'::name[])
),
facts (kind, table_name, name, definition, restricts) AS (
    SELECT 'column', r.relname, a.attname,
        concat_ws(
            ' ',
            replace(format_type(coalesce(nullif(y.typbasetype, 0), y.oid), NULL), 'character varying', 'text'),
            CASE WHEN a.attgenerated <> '' THEN 'GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ')' END,
            CASE WHEN a.attnotnull OR y.typnotnull THEN 'NOT NULL' END
        ),
        (a.attnotnull OR y.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND y.typdefault IS NULL
    FROM relations AS r
    INNER JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    INNER JOIN pg_type AS y ON y.oid = a.atttypid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    UNION ALL
    SELECT 'label', y.typname, e.enumlabel, '', false
    FROM pg_enum AS e
    INNER JOIN pg_type AS y ON y.oid = e.enumtypid
    INNER JOIN place ON place.oid = y.typnamespace
    UNION ALL
    SELECT 'unique key', r.relname,
        format(
            '(%s)%s',
            (
                SELECT string_agg(pg_get_indexdef(i.indexrelid, n, true), ', ' ORDER BY pg_get_indexdef(i.indexrelid, n, true))
                FROM generate_series(1, i.indnkeyatts) AS n
            ),
            ' WHERE ' || pg_get_expr(i.indpred, i.indrelid, true)
        ),
        '', true
    FROM relations AS r INNER JOIN pg_index AS i ON i.indrelid = r.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
    UNION ALL
    SELECT 'foreign key', r.relname,
        format(
            '(%s) to %s (%s)',
            (
                SELECT string_agg(a.attname, ', ' ORDER BY k.n)
                FROM unnest(c.conkey) WITH ORDINALITY AS k (attnum, n)
                INNER JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
            ),
            t.relname,
            (
                SELECT string_agg(a.attname, ', ' ORDER BY k.n)
                FROM unnest(c.confkey) WITH ORDINALITY AS k (attnum, n)
                INNER JOIN pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.attnum
            )
        ),
        '', true
    FROM relations AS r
    INNER JOIN pg_constraint AS c ON c.conrelid = r.oid AND c.contype = 'f'
    INNER JOIN pg_class AS t ON t.oid = c.confrelid
)
SELECT json_strip_nulls(json_build_object(
    'kind', kind,
    'table', table_name,
    'name', name,
    'definition', coalesce(definition, ''),
    'restricts', nullif(restricts, false)
)) AS fact
FROM facts
ORDER BY kind COLLATE "C", table_name COLLATE "C", name COLLATE "C";
