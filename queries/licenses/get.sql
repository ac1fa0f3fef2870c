-- The license with the id $1.
SELECT id, uploaded_at, jwt, exp, uuid FROM licenses WHERE id = $1
