-- A claim (domain: claims). $1 the time, $2 the daemon, $3 its organization, $4 its provisioners, $5 its tags.
UPDATE provisioner_jobs
SET started_at = $1, updated_at = $1, worker_id = $2
WHERE id = (
    SELECT id
    FROM provisioner_jobs
    WHERE started_at IS NULL
        AND completed_at IS NULL
        AND organization_id = $3
        AND provisioner = ANY ($4::text[]::provisioner_type[])
        AND provisioner_tagset_contains($5::jsonb, tags)
    ORDER BY initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0', created_at, id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING *
