-- The organization with the id $1.
SELECT id, name, display_name, is_default
FROM organizations
WHERE id = $1 AND deleted = false
