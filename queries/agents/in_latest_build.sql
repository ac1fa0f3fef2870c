-- The agents of the newest build of the workspace $3 in the organization $1, of the owner $2 when it is not null.
SELECT
    a.id,
    a.parent_id,
    a.name,
    a.created_at,
    a.first_connected_at,
    a.last_connected_at,
    a.disconnected_at,
    a.connection_timeout_seconds,
    a.lifecycle_state,
    a.started_at,
    a.ready_at,
    a.operating_system,
    a.architecture,
    a.expanded_directory,
    a.display_order,
    a.logs_length,
    a.logs_overflowed
FROM workspaces AS w
CROSS JOIN LATERAL (
    SELECT b.job_id FROM workspace_builds AS b WHERE b.workspace_id = w.id ORDER BY b.build_number DESC LIMIT 1
) AS latest
INNER JOIN workspace_resources AS r ON r.job_id = latest.job_id
INNER JOIN workspace_agents AS a ON a.resource_id = r.id AND a.deleted = false
WHERE w.id = $3 AND w.organization_id = $1 AND ($2::uuid IS NULL OR w.owner_id = $2)
-- The order in which one of them is chosen (domain: agent choice).
ORDER BY a.display_order, lower(a.name), a.name, a.id
