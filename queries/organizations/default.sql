-- The organization that is meant where none is named.
SELECT id, name, display_name, is_default
FROM organizations
WHERE is_default AND deleted = false
