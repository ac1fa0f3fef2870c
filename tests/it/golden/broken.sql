-- What must not be, whatever happens: the promises of the schema that no constraint keeps. No row when all is well.
SELECT format('job %s of a build is not there', b.job_id)
FROM workspace_builds AS b
WHERE NOT EXISTS (SELECT 1 FROM provisioner_jobs AS j WHERE j.id = b.job_id)

UNION ALL
SELECT format('job %s builds build %s, which is not there', j.id, j.input ->> 'workspace_build_id')
FROM provisioner_jobs AS j
WHERE j.input ? 'workspace_build_id'
    AND NOT EXISTS (SELECT 1 FROM workspace_builds AS b WHERE b.id::text = j.input ->> 'workspace_build_id')

UNION ALL
SELECT format('workspace %s has builds 1 to %s, but %s of them', b.workspace_id, max(b.build_number), count(*))
FROM workspace_builds AS b
GROUP BY b.workspace_id
HAVING min(b.build_number) <> 1 OR max(b.build_number) <> count(*)

UNION ALL
SELECT format('workspace %s is deleted, but no build deletes it', w.id)
FROM workspaces AS w
WHERE w.deleted
    AND NOT EXISTS (SELECT 1 FROM workspace_builds AS b WHERE b.workspace_id = w.id AND b.transition = 'delete')

UNION ALL
-- The reaper's lines do not count.
SELECT format('job %s has %s bytes of logs, but counts %s', j.id, coalesce(sum(octet_length(l.output)), 0), j.logs_length)
FROM provisioner_jobs AS j
LEFT JOIN provisioner_job_logs AS l ON l.job_id = j.id AND l.source = 'provisioner'
GROUP BY j.id
HAVING NOT j.logs_overflowed AND coalesce(sum(octet_length(l.output)), 0) <> j.logs_length
    OR j.logs_length NOT BETWEEN 0 AND 1048576

UNION ALL
SELECT format('agent %s has %s bytes of logs, but counts %s', a.id, coalesce(sum(octet_length(l.output)), 0), a.logs_length)
FROM workspace_agents AS a
LEFT JOIN workspace_agent_logs AS l ON l.agent_id = a.id
GROUP BY a.id
HAVING coalesce(sum(octet_length(l.output)), 0) <> a.logs_length OR a.logs_length NOT BETWEEN 0 AND 1048576

UNION ALL
SELECT format('job %s is %s, but that is not what its times say', j.id, j.job_status)
FROM provisioner_jobs AS j
WHERE j.worker_id IS NOT NULL AND j.started_at IS NULL
    OR j.error IS NOT NULL AND j.completed_at IS NULL
    OR j.error_code IS NOT NULL AND j.error IS NULL
    OR j.completed_at IS NULL AND j.canceled_at IS NOT NULL AND j.worker_id IS NULL

UNION ALL
SELECT format('%s consumes more than the budget in %s', w.owner_id, w.organization_id)
FROM workspaces AS w
CROSS JOIN LATERAL (
    SELECT b.daily_cost FROM workspace_builds AS b WHERE b.workspace_id = w.id ORDER BY b.build_number DESC LIMIT 1
) AS latest
WHERE NOT w.deleted AND EXISTS (SELECT 1 FROM groups AS g WHERE g.organization_id = w.organization_id)
GROUP BY w.owner_id, w.organization_id
HAVING sum(latest.daily_cost) > (SELECT sum(g.quota_allowance) FROM groups AS g WHERE g.organization_id = w.organization_id)
