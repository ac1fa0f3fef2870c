-- The user with the id $1, also a deleted one: jobs and builds keep naming it.
SELECT id, username, name, email, status, deleted, is_system
FROM users
WHERE id = $1
