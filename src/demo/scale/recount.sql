-- Counts what the triggers would have that were switched off.
ALTER TABLE workspaces ENABLE TRIGGER quota_workspace_updated;
ALTER TABLE workspace_builds ENABLE TRIGGER quota_workspace_build_changed;
ALTER TABLE workspace_builds ENABLE TRIGGER record_workspace_build_subject;
ALTER TABLE provisioner_jobs ENABLE TRIGGER record_provisioner_job_subject;
ALTER TABLE template_versions ENABLE TRIGGER record_template_version_subjects;
SELECT quota_recount();
SELECT provisioner_job_subjects_recount();
