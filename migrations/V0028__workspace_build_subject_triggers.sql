-- What:     the version and the transition of a job's build are recorded when the build is inserted.
-- Locks:    SHARE ROW EXCLUSIVE on workspace_builds, for an entry in the catalog: writers wait so long, readers do not.
-- Old code: sees nothing.

CREATE TRIGGER record_workspace_build_subject
    AFTER INSERT OR UPDATE OF id, template_version_id, transition ON workspace_builds FOR EACH ROW
    EXECUTE FUNCTION record_workspace_build_subject();
