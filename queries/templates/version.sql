-- The version $3 of the template $2 in the organization $1, and how its import stands.
SELECT v.id, v.name, v.archived, v.has_external_agent, j.job_status, j.tags
FROM template_versions AS v
INNER JOIN provisioner_jobs AS j ON j.id = v.job_id
WHERE v.id = $3 AND v.template_id = $2 AND v.organization_id = $1
