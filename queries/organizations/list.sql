-- All organizations, in the order of their names.
SELECT id, name, display_name, is_default
FROM organizations
WHERE deleted = false
ORDER BY lower(name)
