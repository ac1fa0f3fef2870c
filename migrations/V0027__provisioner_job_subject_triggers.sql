-- What:     what jobs are about is recorded as they are inserted.
-- Locks:    SHARE ROW EXCLUSIVE on provisioner_jobs, for an entry in the catalog: writers wait so long, readers do not.
-- Old code: sees nothing.

CREATE TRIGGER record_provisioner_job_subject
    AFTER INSERT OR UPDATE OF id, organization_id, created_at, input ON provisioner_jobs FOR EACH ROW
    WHEN (NEW.input ?| '{workspace_build_id,template_version_id}')
    EXECUTE FUNCTION record_provisioner_job_subject();
