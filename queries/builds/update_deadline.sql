-- Sets the deadline $4 and its bound $5 of the build $3, at $6, in the organization $1, of the owner $2 when it is not
-- null. Workspaces of the prebuilds user keep theirs: they have none until they are claimed.
WITH build AS (
    SELECT b.id, w.owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AS is_prebuild
    FROM workspace_builds AS b
    INNER JOIN workspaces AS w ON w.id = b.workspace_id
    WHERE b.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
),

updated AS (
    UPDATE workspace_builds AS b
    SET deadline = coalesce($4::timestamptz, '0001-01-01 00:00:00+00'),
        max_deadline = coalesce($5::timestamptz, '0001-01-01 00:00:00+00'),
        updated_at = $6
    FROM build
    WHERE b.id = build.id AND NOT build.is_prebuild
)

SELECT is_prebuild AS "is_prebuild!" FROM build
