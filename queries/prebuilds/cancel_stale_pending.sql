-- Cancels stale pending prebuild jobs of the preset $2 in the organization $1 at $3, oldest first, as many as there are
-- ids of new builds in $4 and of new jobs in $5, and deletes their workspaces with these. Daemons seen since $6 count.
WITH stale AS (
    SELECT
        j.id,
        j.organization_id,
        j.provisioner,
        j.storage_method,
        j.file_id,
        j.tags,
        j.created_at,
        b.workspace_id,
        b.template_version_id,
        w.template_id
    FROM workspace_builds AS b
    INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
    INNER JOIN workspaces AS w ON w.id = b.workspace_id
    INNER JOIN templates AS t ON t.id = w.template_id
    WHERE w.organization_id = $1
        AND b.template_version_preset_id = $2
        AND b.initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
        AND b.transition = 'start'
        AND b.build_number = 1
        AND b.template_version_id <> t.active_version_id
        AND j.job_status = 'pending'
        AND j.worker_id IS NULL
        AND j.canceled_at IS NULL
        AND j.completed_at IS NULL
        -- Claimed or deleted in the meantime: a person's workspace is not ours to delete.
        AND w.owner_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'
        AND w.deleted = false
    ORDER BY j.created_at, j.id
    LIMIT cardinality($4::uuid[])
    -- A job that a daemon takes in this moment is not stale, and a workspace cannot be claimed while it is deleted.
    FOR UPDATE OF j, w SKIP LOCKED
),

numbered AS (
    SELECT
        stale.*,
        row_number() OVER (ORDER BY stale.created_at, stale.id) AS n,
        EXISTS (
            SELECT 1
            FROM provisioner_daemons AS d
            WHERE d.organization_id = stale.organization_id
                AND d.last_seen_at >= $6
                AND stale.provisioner = ANY (d.provisioners)
                AND CASE
                    WHEN stale.tags = '{"scope": "organization", "owner": ""}' THEN d.tags = stale.tags
                    ELSE d.tags @> stale.tags
                END
        ) AS has_daemon
    FROM stale
),

canceled AS (
    UPDATE provisioner_jobs AS j
    SET canceled_at = $3, completed_at = $3
    FROM numbered
    WHERE j.id = numbered.id
    RETURNING j.id
),

-- No Terraform ran, so the new build has no state and nothing to destroy: without a daemon it is done at once.
job AS (
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, completed_at, organization_id, initiator_id, provisioner, storage_method, file_id,
        type, input, tags
    )
    SELECT
        ($5::uuid[])[n], $3, $3, CASE WHEN has_daemon THEN NULL ELSE $3::timestamptz END, organization_id,
        'c42fdf75-3097-471c-8c33-fb52454d81c0', provisioner, storage_method, file_id, 'workspace_build',
        jsonb_build_object('workspace_build_id', ($4::uuid[])[n]), tags
    FROM numbered
    RETURNING id
),

build AS (
    INSERT INTO workspace_builds (
        id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id
    )
    SELECT
        ($4::uuid[])[n], $3, $3, workspace_id, template_version_id,
        (SELECT max(b.build_number) + 1 FROM workspace_builds AS b WHERE b.workspace_id = numbered.workspace_id),
        'delete', 'c42fdf75-3097-471c-8c33-fb52454d81c0', ($5::uuid[])[n]
    FROM numbered
    RETURNING id
),

deleted AS (
    UPDATE workspaces AS w
    SET deleted = true, updated_at = $3
    FROM numbered
    WHERE w.id = numbered.workspace_id AND NOT numbered.has_daemon
)

SELECT
    id AS "job_id!: crate::model::JobId",
    workspace_id AS "workspace_id!: crate::model::WorkspaceId",
    template_id AS "template_id!: crate::model::TemplateId",
    ($4::uuid[])[n] AS "delete_build_id!: crate::model::WorkspaceBuildId",
    ($5::uuid[])[n] AS "delete_job_id!: crate::model::JobId",
    NOT has_daemon AS "deleted!"
FROM numbered
ORDER BY n
