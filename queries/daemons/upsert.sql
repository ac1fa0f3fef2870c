-- Adds a daemon to the organization $9, or overwrites the one that has its name and the owner of its tags there.
-- The stored daemon keeps its id, replica and creation time: jobs know it by that id.
INSERT INTO provisioner_daemons (
    id, created_at, name, provisioners, replica_id, tags, last_seen_at, version, organization_id, key_id, api_version
)
VALUES ($1, $2, $3, $4::text[]::provisioner_type[], $5, $6::text::jsonb, $7, $8, $9, $10, $11)
ON CONFLICT (organization_id, name, lower(coalesce(tags ->> 'owner', ''))) DO UPDATE SET
    provisioners = EXCLUDED.provisioners,
    tags = EXCLUDED.tags,
    -- Never backwards: a busy daemon must not become offline because a late message has an older time.
    last_seen_at = greatest(provisioner_daemons.last_seen_at, EXCLUDED.last_seen_at),
    version = EXCLUDED.version,
    organization_id = EXCLUDED.organization_id,
    key_id = EXCLUDED.key_id,
    api_version = EXCLUDED.api_version
RETURNING
    id, created_at, name, provisioners, replica_id, tags, last_seen_at, version, api_version, organization_id, key_id
