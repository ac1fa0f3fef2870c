-- The workspace with the id $3 in the organization $1, of the owner $2 when it is not null, also a deleted one; locked.
SELECT
    w.id, w.name, w.organization_id, w.owner_id, u.username AS owner_name, w.template_id, w.deleted,
    u.deleted AS owner_deleted
FROM workspaces AS w
INNER JOIN users AS u ON u.id = w.owner_id
WHERE w.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
FOR NO KEY UPDATE OF w
