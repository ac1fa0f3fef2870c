-- The job that imports the template version $1, and whose organization's it is.
SELECT j.id, j.organization_id
FROM template_versions AS v
INNER JOIN provisioner_jobs AS j ON j.id = v.job_id AND j.organization_id = v.organization_id
WHERE v.id = $1
