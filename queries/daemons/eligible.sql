-- The daemons of the organization $2 that may take the jobs in $1 (domain: daemons): by the job, the oldest daemon first.
SELECT
    j.id AS job_id,
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
    d.key_id
FROM provisioner_jobs AS j
INNER JOIN provisioner_daemons AS d
    ON d.organization_id = j.organization_id
    AND j.provisioner = ANY (d.provisioners)
    AND CASE
        WHEN j.tags = '{"scope": "organization", "owner": ""}' THEN d.tags = j.tags
        ELSE d.tags @> j.tags
    END
WHERE j.id = ANY ($1) AND j.organization_id = $2
ORDER BY j.id, d.created_at, d.id
