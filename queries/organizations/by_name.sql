-- The organization with the name $1, in any case.
SELECT id, name, display_name, is_default
FROM organizations
WHERE lower(name) = lower($1) AND deleted = false
