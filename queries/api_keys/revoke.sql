DELETE FROM api_keys
WHERE id = $1 AND login_type::text = 'token'
