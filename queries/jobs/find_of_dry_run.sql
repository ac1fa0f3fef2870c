-- The job $2, when it is a dry run of the template version $1, and whose organization's it is.
SELECT j.id, j.organization_id
FROM template_versions AS v
INNER JOIN provisioner_jobs AS j ON j.id = $2 AND j.organization_id = v.organization_id
WHERE v.id = $1
    AND j.type = 'template_version_dry_run'
    -- Any JSON may be stored; another spelling of the id is the same id.
    AND lower(j.input ->> 'template_version_id') = v.id::text
