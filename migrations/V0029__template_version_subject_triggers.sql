-- What:     jobs of a version are recorded under its template once it has one.
-- Locks:    SHARE ROW EXCLUSIVE on template_versions, for an entry in the catalog: writers wait so long, readers do not.
-- Old code: sees nothing.

CREATE TRIGGER record_template_version_subjects
    AFTER INSERT OR UPDATE OF template_id ON template_versions FOR EACH ROW
    EXECUTE FUNCTION record_template_version_subjects();
