-- The workspaces with the name $2 in the organization $1, in any case: one per owner at most, ordered by owner.
SELECT
    w.id, w.name, w.organization_id, w.owner_id, u.username AS owner_name, w.template_id, w.deleted,
    u.deleted AS owner_deleted
FROM workspaces AS w
INNER JOIN users AS u ON u.id = w.owner_id
WHERE w.organization_id = $1 AND lower(w.name) = lower($2) AND w.deleted = false
ORDER BY owner_name, w.id
