-- Moves the last sign of life of the daemon $1 of the organization $2 to $3, but never backwards.
-- Returns a row when the daemon is there: whether its time moved.
WITH daemon AS (
    SELECT id FROM provisioner_daemons WHERE id = $1 AND organization_id = $2
),

seen AS (
    -- Null, for never seen, is not earlier: only an upsert brings a daemon to life.
    UPDATE provisioner_daemons SET last_seen_at = $3
    WHERE id = $1 AND organization_id = $2 AND last_seen_at <= $3
    RETURNING id
)

SELECT EXISTS (SELECT 1 FROM seen) AS "moved!" FROM daemon
