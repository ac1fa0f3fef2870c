-- The tokens of the user $1, or of all users, by user and name.
SELECT
    k.id,
    k.token_name AS name,
    k.user_id,
    u.username,
    k.created_at,
    k.last_used,
    k.expires_at
FROM api_keys AS k
INNER JOIN users AS u ON u.id = k.user_id
WHERE k.login_type = 'token' AND (k.user_id = $1 OR $1::uuid IS NULL)
ORDER BY lower(u.username), k.user_id, k.token_name, k.id
