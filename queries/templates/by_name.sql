-- The template with the name $2 in the organization $1, in any case.
SELECT id, name, display_name, organization_id
FROM templates
WHERE organization_id = $1 AND lower(name) = lower($2) AND deleted = false
