-- The statements that bring back what demo_definitions remembers, in the order in which they have to run.
SELECT
    CASE kind
        WHEN 'index' THEN definition
        ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', target, name, definition)
    END
    || CASE
        WHEN comment IS NULL THEN ''
        WHEN kind = 'index' THEN format('; COMMENT ON INDEX %s IS %L', target, comment)
        ELSE format('; COMMENT ON CONSTRAINT %I ON %s IS %L', name, target, comment)
    END
FROM demo_definitions
ORDER BY place DESC, target, name
