-- Deletes the license with the id $1.
DELETE FROM licenses WHERE id = $1
