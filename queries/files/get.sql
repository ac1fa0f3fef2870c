-- The file $1, of the user $2 when it is not null.
SELECT id, hash, created_at, created_by, mimetype, data
FROM files
WHERE id = $1 AND ($2::uuid IS NULL OR created_by = $2)
