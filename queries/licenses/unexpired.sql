-- The licenses that expire later than $1, in the order in which they were added.
SELECT id, uploaded_at, jwt, exp, uuid FROM licenses WHERE exp > $1 ORDER BY id
