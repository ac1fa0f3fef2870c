-- coderdb: no-transaction
-- What:     the indexes that other statements need.
-- Locks:    SHARE UPDATE EXCLUSIVE on one table after the other: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.
--
-- None of them adds to the life of a job of people (`scripts/writes`).

-- queries/job_timings/list.sql, and each deletion of a job.
CREATE INDEX CONCURRENTLY provisioner_job_timings_job_id_idx ON provisioner_job_timings (job_id);

-- queries/prebuilds: the first builds of prebuilt workspaces, by preset and time.
CREATE INDEX CONCURRENTLY workspace_builds_prebuilds_idx
    ON workspace_builds (template_version_preset_id, created_at, id)
    WHERE initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND build_number = 1;

-- queries/workspaces/by_name.sql: the workspaces of an organization with a name, whoever owns them.
CREATE INDEX CONCURRENTLY workspaces_organization_id_lower_idx
    ON workspaces (organization_id, lower(name)) WHERE deleted = false;
