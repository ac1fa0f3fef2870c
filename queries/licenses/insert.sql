-- Adds a license, and tells the channel $5. No row when its text is there already: a duplicate does not abort the
-- caller's transaction.
INSERT INTO licenses (uploaded_at, jwt, exp, uuid)
VALUES ($1, $2, $3, $4)
ON CONFLICT ON CONSTRAINT licenses_jwt_key DO NOTHING
RETURNING id, uploaded_at, jwt, exp, uuid, pg_notify($5, 'add')
