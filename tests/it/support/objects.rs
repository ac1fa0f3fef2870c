//! What a schema has.

/// All objects of the schema but indexes and constraints. The two columns of the cap on logs are in the base of April
/// 2026, too: they have a version of their own here because this project is about what they keep.
pub const OBJECTS: &str = "
    SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'relation ' || relname || ' ' || relkind::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I')
    UNION ALL
    SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'column ' || attrelid::regclass || ' ' || attname::text FROM pg_attribute
    INNER JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
        AND attname NOT IN ('logs_length', 'logs_overflowed')
    UNION ALL
    SELECT 'rule ' || ev_class::regclass || ' ' || rulename FROM pg_rewrite INNER JOIN pg_class ON pg_class.oid = ev_class
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'policy ' || polrelid::regclass || ' ' || polname FROM pg_policy
    ORDER BY 1";
