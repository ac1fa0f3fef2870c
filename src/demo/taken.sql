-- The names in $1 (usernames) and $2 (organizations) that somebody else has.
SELECT 'username' AS kind, username AS name
FROM users
WHERE NOT deleted AND (lower(username) = ANY ($1) OR lower(email) = ANY (SELECT unnest($1) || '@example.com'))
UNION ALL
SELECT 'organization', name FROM organizations WHERE NOT deleted AND lower(name) = ANY ($2)
ORDER BY 1, 2
