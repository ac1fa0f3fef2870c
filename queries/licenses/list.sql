-- All licenses, expired ones too, in the order in which they were added.
SELECT id, uploaded_at, jwt, exp, uuid FROM licenses ORDER BY id
