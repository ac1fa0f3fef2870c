-- The template with the id $2 in the organization $1, also a deleted one: old jobs keep naming it.
SELECT id, name, display_name, organization_id
FROM templates
WHERE id = $2 AND organization_id = $1
