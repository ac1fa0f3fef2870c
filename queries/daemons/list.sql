-- The daemons of the organization $1 with their status and jobs (domain: daemons), newest first, at most $5. Of the ids
-- in $2, when there are any; with the tags $3, unless null, and each of the pairs $6. A daemon is online when seen at
-- $4 or later. An organization has few daemons, found by the unique index: filters that may be unset do no harm to this
-- plan.
SELECT
    d.id,
    d.created_at,
    d.name,
    d.provisioners,
    d.replica_id,
    d.tags,
    d.last_seen_at,
    d.version,
    d.api_version,
    d.organization_id,
    d.key_id,
    CASE
        WHEN d.last_seen_at IS NULL OR d.last_seen_at < $4 THEN 'offline'
        WHEN current_job.id IS NOT NULL THEN 'busy'
        ELSE 'idle'
    END AS "status!: DaemonStatus",
    k.name AS key_name,
    current_job.id AS "current_job_id?",
    current_job.job_status AS "current_job_status?",
    coalesce(current_template.name, '') AS "current_job_template_name!: Text",
    coalesce(current_template.display_name, '') AS "current_job_template_display_name!: Text",
    coalesce(current_template.icon, '') AS "current_job_template_icon!: Text",
    previous_job.id AS "previous_job_id?",
    previous_job.job_status AS "previous_job_status?",
    coalesce(previous_template.name, '') AS "previous_job_template_name!: Text",
    coalesce(previous_template.display_name, '') AS "previous_job_template_display_name!: Text",
    coalesce(previous_template.icon, '') AS "previous_job_template_icon!: Text"
FROM provisioner_daemons AS d
INNER JOIN provisioner_keys AS k ON k.id = d.key_id
LEFT JOIN LATERAL (
    SELECT
        id,
        job_status,
        names_version,
        -- What the server's own cast would accept, and null for the rest. The first pattern is the usual form.
        CASE
            WHEN named LIKE '________-____-____-____-____________' AND named ~ '^[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*$'
                OR named ~ '^(([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}|[{]([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}[}])$'
                THEN named::uuid
        END AS named_id
    FROM (
        SELECT
            j.id,
            j.job_status,
            jsonb_exists(j.input::jsonb, 'template_version_id') AS names_version,
            j.input ->> CASE
                WHEN jsonb_exists(j.input::jsonb, 'template_version_id') THEN 'template_version_id' ELSE 'workspace_build_id'
            END AS named
        FROM provisioner_jobs AS j
        WHERE j.worker_id = d.id AND j.organization_id = d.organization_id AND j.completed_at IS NULL
        -- A daemon works on one job; if it lost some before, the last that it took is the one.
        ORDER BY j.started_at DESC NULLS LAST, j.id DESC
        LIMIT 1
    ) AS newest
) AS current_job ON true
LEFT JOIN workspace_builds AS current_build ON current_build.id = current_job.named_id AND NOT current_job.names_version
-- The organization is compared in every join: an input may name anything, and must not leak another's names.
LEFT JOIN template_versions AS current_version
    ON current_version.id = CASE
        WHEN current_job.names_version THEN current_job.named_id
        ELSE current_build.template_version_id
    END
    AND current_version.organization_id = d.organization_id
LEFT JOIN templates AS current_template
    ON current_template.id = current_version.template_id AND current_template.organization_id = d.organization_id
LEFT JOIN LATERAL (
    SELECT
        id,
        job_status,
        names_version,
        CASE
            WHEN named LIKE '________-____-____-____-____________' AND named ~ '^[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*$'
                OR named ~ '^(([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}|[{]([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}[}])$'
                THEN named::uuid
        END AS named_id
    FROM (
        SELECT
            j.id,
            j.job_status,
            jsonb_exists(j.input::jsonb, 'template_version_id') AS names_version,
            j.input ->> CASE
                WHEN jsonb_exists(j.input::jsonb, 'template_version_id') THEN 'template_version_id' ELSE 'workspace_build_id'
            END AS named
        FROM provisioner_jobs AS j
        WHERE j.worker_id = d.id AND j.organization_id = d.organization_id AND j.completed_at IS NOT NULL
        ORDER BY j.completed_at DESC, j.id DESC
        LIMIT 1
    ) AS newest
) AS previous_job ON true
LEFT JOIN workspace_builds AS previous_build ON previous_build.id = previous_job.named_id AND NOT previous_job.names_version
LEFT JOIN template_versions AS previous_version
    ON previous_version.id = CASE
        WHEN previous_job.names_version THEN previous_job.named_id
        ELSE previous_build.template_version_id
    END
    AND previous_version.organization_id = d.organization_id
LEFT JOIN templates AS previous_template
    ON previous_template.id = previous_version.template_id AND previous_template.organization_id = d.organization_id
WHERE d.organization_id = $1
    AND (cardinality($2::uuid[]) = 0 OR d.id = ANY ($2))
    AND CASE
        WHEN $3::text IS NULL THEN true
        WHEN $3::text::jsonb = '{"scope": "organization", "owner": ""}' THEN d.tags = $3::text::jsonb
        ELSE d.tags @> $3::text::jsonb
    END
    AND d.tags @> ALL ($6::text[]::jsonb[])
ORDER BY d.created_at DESC, d.id DESC
LIMIT $5
