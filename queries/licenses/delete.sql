-- Deletes the license with the id $1, and tells the channel $2.
DELETE FROM licenses WHERE id = $1
RETURNING pg_notify($2, 'delete')
