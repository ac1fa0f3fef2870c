-- What:     what each job is about, in the order of a listing: from a template or a transition to its newest jobs
--           (docs/adr/0020-jobs-by-subject.md).
-- Locks:    none on tables that exist.
-- Old code: sees nothing.

-- One that is no longer true, or whose job is gone, is passed over by whoever reads: it compares with the job itself.
CREATE TABLE provisioner_job_subjects (
    template_version_id uuid,
    template_id uuid,
    organization_id uuid NOT NULL,
    transition workspace_transition,
    created_at timestamp with time zone NOT NULL,
    job_id uuid NOT NULL
);
-- A publication of all tables needs it where rows are changed.
ALTER TABLE provisioner_job_subjects REPLICA IDENTITY FULL;
COMMENT ON TABLE provisioner_job_subjects IS
    'Which template version and which transition a job is about; more than is true, never less.';
COMMENT ON COLUMN provisioner_job_subjects.template_id IS
    'Null while the version has no template, and where it could not be seen: then the rest may be wrong, and the job is asked.';
CREATE INDEX provisioner_job_subjects_template_idx ON provisioner_job_subjects (template_id, created_at DESC, job_id DESC)
WHERE template_id IS NOT NULL;
CREATE INDEX provisioner_job_subjects_transition_idx
    ON provisioner_job_subjects (organization_id, transition, created_at DESC, job_id DESC);
CREATE INDEX provisioner_job_subjects_without_template_idx ON provisioner_job_subjects (template_version_id)
WHERE template_id IS NULL;

-- In a serializable transaction nothing is read but the build's own job: to have read it could fail the writer, or others.
CREATE FUNCTION record_provisioner_job_subject() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    sees boolean := current_setting('transaction_isolation') <> 'serializable';
    version uuid;
    transition workspace_transition;
BEGIN
    IF TG_OP = 'UPDATE'
        AND (NEW.id, NEW.organization_id, NEW.created_at, NEW.input) = (OLD.id, OLD.organization_id, OLD.created_at, OLD.input)
    THEN
        RETURN NULL;
    END IF;
    IF sees THEN
        SELECT b.template_version_id, b.transition INTO version, transition
        FROM workspace_builds AS b
        WHERE b.id = provisioner_job_input_uuid(NEW.input, 'workspace_build_id');
    END IF;
    IF NEW.input ? 'template_version_id' THEN
        version := provisioner_job_input_uuid(NEW.input, 'template_version_id');
    END IF;
    -- The build of a new job is usually yet to come, and brings its own row.
    IF version IS NOT NULL OR transition IS NOT NULL OR NOT sees OR TG_OP = 'UPDATE' THEN
        INSERT INTO provisioner_job_subjects (template_version_id, template_id, organization_id, transition, created_at, job_id)
        VALUES (
            version,
            -- What others change in a job's build while the job is changed cannot be seen.
            CASE WHEN sees AND TG_OP = 'INSERT' THEN (SELECT v.template_id FROM template_versions AS v WHERE v.id = version) END,
            NEW.organization_id, transition, NEW.created_at, NEW.id
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION record_workspace_build_subject() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'UPDATE'
        AND (NEW.id, NEW.template_version_id, NEW.transition) = (OLD.id, OLD.template_version_id, OLD.transition)
    THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') = 'serializable' THEN
        INSERT INTO provisioner_job_subjects (template_version_id, template_id, organization_id, transition, created_at, job_id)
        SELECT
            CASE
                WHEN j.input ? 'template_version_id' THEN provisioner_job_input_uuid(j.input, 'template_version_id')
                ELSE NEW.template_version_id
            END,
            NULL, j.organization_id, NEW.transition, j.created_at, j.id
        FROM provisioner_jobs AS j
        WHERE j.id = NEW.job_id;
        RETURN NULL;
    END IF;
    INSERT INTO provisioner_job_subjects (template_version_id, template_id, organization_id, transition, created_at, job_id)
    SELECT
        j.version, (SELECT v.template_id FROM template_versions AS v WHERE v.id = j.version), j.organization_id,
        NEW.transition, j.created_at, j.id
    FROM (
        SELECT
            id, organization_id, created_at,
            CASE
                WHEN input ? 'template_version_id' THEN provisioner_job_input_uuid(input, 'template_version_id')
                ELSE NEW.template_version_id
            END AS version
        FROM provisioner_jobs
        WHERE provisioner_job_input_uuid(input, 'workspace_build_id') = NEW.id
    ) AS j;
    RETURN NULL;
END
$$;

CREATE FUNCTION record_template_version_subjects() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.template_id IS NOT DISTINCT FROM OLD.template_id THEN
        RETURN NULL;
    END IF;
    -- What is left without a template is found, but slower.
    IF TG_OP = 'UPDATE' AND OLD.template_id IS NOT NULL THEN
        INSERT INTO provisioner_job_subjects (template_version_id, template_id, organization_id, transition, created_at, job_id)
        SELECT DISTINCT NEW.id, NEW.template_id, s.organization_id, s.transition, s.created_at, s.job_id
        FROM provisioner_job_subjects AS s
        WHERE s.template_id = OLD.template_id
            AND s.template_version_id = NEW.id
            AND NOT EXISTS (
                SELECT FROM provisioner_job_subjects AS there
                WHERE there.template_id = NEW.template_id
                    AND there.template_version_id = NEW.id
                    AND there.created_at = s.created_at
                    AND there.job_id = s.job_id
                    AND there.transition IS NOT DISTINCT FROM s.transition
            );
    ELSIF NEW.template_id IS NOT NULL AND current_setting('transaction_isolation') <> 'serializable' THEN
        UPDATE provisioner_job_subjects SET template_id = NEW.template_id
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM provisioner_job_subjects
            WHERE template_id IS NULL AND template_version_id = NEW.id
            FOR UPDATE SKIP LOCKED
        ));
    END IF;
    RETURN NULL;
EXCEPTION
    WHEN OTHERS THEN
        RAISE LOG 'jobs were not recorded under a template: % (%)', sqlerrm, sqlstate;
        RETURN NULL;
END
$$;

CREATE VIEW provisioner_job_subjects_actual AS
SELECT j.version AS template_version_id, v.template_id, j.organization_id, j.transition, j.created_at, j.id AS job_id
FROM (
    SELECT
        q.id, q.organization_id, q.created_at, b.transition,
        CASE
            WHEN q.input ? 'template_version_id' THEN provisioner_job_input_uuid(q.input, 'template_version_id')
            ELSE b.template_version_id
        END AS version
    FROM provisioner_jobs AS q
    LEFT JOIN workspace_builds AS b ON b.id = provisioner_job_input_uuid(q.input, 'workspace_build_id')
) AS j
LEFT JOIN template_versions AS v ON v.id = j.version
WHERE j.version IS NOT NULL OR j.transition IS NOT NULL;
COMMENT ON VIEW provisioner_job_subjects_actual IS 'What provisioner_job_subjects has to contain, read from the jobs.';

CREATE FUNCTION provisioner_job_subjects_recount() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
    -- One at a time, or each would add all rows.
    SELECT pg_advisory_xact_lock(7163384755);
    DELETE FROM provisioner_job_subjects;
    INSERT INTO provisioner_job_subjects (template_version_id, template_id, organization_id, transition, created_at, job_id)
    SELECT template_version_id, template_id, organization_id, transition, created_at, job_id
    FROM provisioner_job_subjects_actual
$$;
COMMENT ON FUNCTION provisioner_job_subjects_recount() IS
    'Records anew what all jobs are about; for databases where jobs were written without their triggers.';

CREATE FUNCTION provisioner_job_subjects_differences()
RETURNS TABLE (job_id uuid, template_id uuid, transition workspace_transition)
LANGUAGE sql STABLE
AS $$
    SELECT a.job_id, a.template_id, NULL::workspace_transition
    FROM provisioner_job_subjects_actual AS a
    WHERE a.template_id IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM provisioner_job_subjects AS s
            WHERE s.job_id = a.job_id
                AND s.created_at = a.created_at
                AND (s.template_id IS NULL OR s.template_id = a.template_id)
        )
    UNION ALL
    SELECT a.job_id, NULL, a.transition
    FROM provisioner_job_subjects_actual AS a
    WHERE a.transition IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM provisioner_job_subjects AS s
            WHERE s.job_id = a.job_id
                AND s.created_at = a.created_at
                AND s.organization_id = a.organization_id
                AND (s.template_id IS NULL OR s.transition = a.transition)
        )
$$;
COMMENT ON FUNCTION provisioner_job_subjects_differences() IS
    'Templates and transitions of jobs that are not recorded; no rows when all is well.';

-- A definer's functions must not find somebody's temporary tables first.
DO $$
DECLARE
    definer regprocedure;
BEGIN
    FOREACH definer IN ARRAY '{
        record_provisioner_job_subject(), record_workspace_build_subject(), record_template_version_subjects(),
        provisioner_job_subjects_recount()
    }'::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', definer, current_schema());
    END LOOP;
END
$$;
