-- The user with the name $1, in any case. The name of a deleted user may have been taken again.
SELECT id, username, name, email, status, deleted, is_system
FROM users
WHERE lower(username) = lower($1) AND deleted = false
