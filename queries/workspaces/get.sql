-- The workspace with the id $2 in the organization $1, also a deleted one: old jobs keep naming it.
SELECT
    w.id, w.name, w.organization_id, w.owner_id, u.username AS owner_name, w.template_id, w.deleted,
    u.deleted AS owner_deleted
FROM workspaces AS w
INNER JOIN users AS u ON u.id = w.owner_id
WHERE w.id = $2 AND w.organization_id = $1
