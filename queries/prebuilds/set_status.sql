-- Sets the status of the preset $1 of the organization $2 to $3, and says whether it was another one.
WITH preset AS (
    SELECT p.id, p.prebuild_status
    FROM template_version_presets AS p
    INNER JOIN template_versions AS v ON v.id = p.template_version_id
    WHERE p.id = $1 AND v.organization_id = $2
    FOR UPDATE OF p
),

written AS (
    UPDATE template_version_presets AS p
    SET prebuild_status = $3::text::prebuild_status
    FROM preset
    WHERE p.id = preset.id AND preset.prebuild_status <> $3::text::prebuild_status
    RETURNING p.id
)

SELECT EXISTS (SELECT 1 FROM written) AS "changed!"
FROM preset
