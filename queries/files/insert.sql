-- Stores the file $1 with the content $3 of the type $2, uploaded at $4 by $5; or finds the one with the same content that
-- this user uploaded before.
WITH file AS (
    SELECT encode(sha256($3::bytea), 'hex') AS hash
),

found AS (
    SELECT id FROM files WHERE hash = (SELECT hash FROM file) AND created_by = $5
),

stored AS (
    INSERT INTO files (id, hash, mimetype, data, created_at, created_by)
    SELECT $1, hash, $2, $3, $4, $5 FROM file WHERE NOT EXISTS (SELECT 1 FROM found)
    -- Uploaded once more since this statement began: only an update says which id it has.
    ON CONFLICT (hash, created_by) DO UPDATE SET hash = excluded.hash
    RETURNING id
)

SELECT id AS "id!: crate::model::FileId" FROM found
UNION ALL
SELECT id FROM stored
