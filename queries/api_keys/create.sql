-- A token with the id $1 and the hashed secret $2 for the user $3, with the name $4, from $5 to $6. No row when the user
-- is not there.
INSERT INTO api_keys (
    id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, login_type, lifetime_seconds, token_name,
    scopes, allow_list
)
SELECT
    $1, $2, u.id, '1970-01-01 00:00:00+00', $6, $5, $5, 'token', extract(EPOCH FROM $6::timestamptz - $5::timestamptz)::bigint,
    $4, ARRAY['coder:all']::api_key_scope[], ARRAY['*:*']
FROM users AS u
WHERE u.id = $3 AND u.deleted = false
RETURNING id
