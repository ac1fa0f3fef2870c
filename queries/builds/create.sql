-- Creates the build $1 of the workspace $2, and the job $3 that carries it out, in the organization $4, for the owner
-- $5 when it is not null. $6 is the template version, $7 the preset, $8 the transition, $9 the reason, $10 the
-- initiator, $11 the provisioner state (null: that of the build before), $12 and $13 the deadline and its bound, $14
-- the tags, $15 now, $16 the input and $17 the trace metadata of the job. The lists of the template must let the user
-- $18 read it for a start, and the user $19 use it for another version than before (as in templates/get.sql), where
-- that is not null. A start ends the dormancy of the workspace. The number is null when another build took it in the
-- same moment: nothing is written then, nor when the lists do not let.
WITH workspace AS (
    SELECT
        w.id, w.organization_id, w.template_id, w.dormant_at, w.deleting_at, tj.provisioner, tj.storage_method, tj.file_id,
        last.build_number, last.state,
        needed.action IS NULL OR needed.who IS NULL OR EXISTS (
            SELECT 1
            FROM organization_members AS m
            LEFT JOIN group_members AS g ON g.user_id = m.user_id
            CROSS JOIN unnest(ARRAY[
                t.user_acl -> m.user_id::text, t.group_acl -> m.organization_id::text, t.group_acl -> g.group_id::text
            ]) AS list (actions)
            WHERE m.organization_id = t.organization_id AND m.user_id = needed.who
                AND (list.actions @> jsonb_build_array(needed.action) OR list.actions @> '["*"]')
        ) AS allowed
    FROM workspaces AS w
    INNER JOIN templates AS t ON t.id = w.template_id
    INNER JOIN template_versions AS v
        ON v.id = $6 AND v.template_id = w.template_id AND v.organization_id = w.organization_id
    INNER JOIN provisioner_jobs AS tj ON tj.id = v.job_id
    LEFT JOIN LATERAL (
        SELECT b.build_number, b.provisioner_state AS state, b.template_version_id
        FROM workspace_builds AS b
        WHERE b.workspace_id = w.id
        ORDER BY b.build_number DESC
        LIMIT 1
    ) AS last ON true
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN moves THEN 'use' WHEN $8::text = 'start' THEN 'read' END AS action,
            CASE WHEN moves THEN $19::uuid ELSE $18::uuid END AS who
        FROM (SELECT last.template_version_id IS DISTINCT FROM v.id AS moves) AS version
    ) AS needed
    WHERE w.id = $2 AND w.organization_id = $4 AND ($5::uuid IS NULL OR w.owner_id = $5) AND w.deleted = false
        AND ($7::uuid IS NULL OR EXISTS (
            SELECT 1 FROM template_version_presets AS p WHERE p.id = $7 AND p.template_version_id = v.id
        ))
    -- Before the build has its number: a transaction that deletes the workspace, or makes it dormant, may hold it and
    -- wait for that.
    FOR NO KEY UPDATE OF w
),

build AS (
    INSERT INTO workspace_builds (
        id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id,
        provisioner_state, job_id, deadline, max_deadline, reason, template_version_preset_id
    )
    SELECT
        $1, $15::timestamptz, $15::timestamptz, w.id, $6, coalesce(w.build_number, 0) + 1,
        $8::text::workspace_transition, $10, coalesce($11::bytea, w.state), $3,
        coalesce($12::timestamptz, '0001-01-01 00:00:00+00'), coalesce($13::timestamptz, '0001-01-01 00:00:00+00'),
        $9::text::build_reason, $7
    FROM workspace AS w
    WHERE w.allowed
    ON CONFLICT (workspace_id, build_number) DO NOTHING
    RETURNING build_number
),

job AS (
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type, input,
        tags, trace_metadata
    )
    SELECT
        $3, $15::timestamptz, $15::timestamptz, w.organization_id, $10, w.provisioner, w.storage_method, w.file_id,
        'workspace_build', $16::jsonb, $14::jsonb, $17::jsonb
    FROM workspace AS w
    CROSS JOIN build
),

-- What starts is no longer dormant, or it would be deleted while it runs.
awake AS (
    UPDATE workspaces AS w
    SET dormant_at = NULL, deleting_at = NULL, last_used_at = greatest(w.last_used_at, $15)
    FROM workspace AS locked
    CROSS JOIN build
    WHERE w.id = locked.id AND $8::text = 'start' AND num_nonnulls(locked.dormant_at, locked.deleting_at) > 0
)

SELECT workspace.allowed AS "allowed!", workspace.template_id AS "template_id: TemplateId", build.build_number AS "build_number?"
FROM workspace
LEFT JOIN build ON true
