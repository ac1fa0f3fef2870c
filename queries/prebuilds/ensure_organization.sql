-- Makes the prebuilds user a member of the organization $1 and of its quota group, which gets the id $2 when it is
-- made, at $3; and says whether anything was missing.
WITH organization AS (
    SELECT id FROM organizations WHERE id = $1 AND deleted = false
),

member AS (
    INSERT INTO organization_members (organization_id, user_id, created_at, updated_at)
    SELECT id, 'c42fdf75-3097-471c-8c33-fb52454d81c0', $3, $3 FROM organization
    ON CONFLICT (organization_id, user_id) DO NOTHING
    RETURNING user_id
),

found AS (
    SELECT g.id
    FROM organization
    INNER JOIN groups AS g ON g.organization_id = organization.id AND g.name = 'coderprebuiltworkspaces'
),

made AS (
    INSERT INTO groups (id, name, organization_id)
    SELECT $2, 'coderprebuiltworkspaces', organization.id FROM organization WHERE NOT EXISTS (SELECT 1 FROM found)
    -- Made by another session since this statement began: only an update returns its id.
    ON CONFLICT (name, organization_id) DO UPDATE SET name = excluded.name
    RETURNING id
),

joined AS (
    INSERT INTO group_members (user_id, group_id)
    SELECT 'c42fdf75-3097-471c-8c33-fb52454d81c0', id FROM (SELECT id FROM found UNION ALL SELECT id FROM made) AS quota
    ON CONFLICT (user_id, group_id) DO NOTHING
    RETURNING user_id
)

SELECT
    EXISTS (SELECT 1 FROM member)
    OR EXISTS (SELECT 1 FROM made WHERE id = $2)
    OR EXISTS (SELECT 1 FROM joined) AS "changed!"
FROM organization
