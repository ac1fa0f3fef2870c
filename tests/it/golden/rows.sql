-- Short ids, and a row of each kind in one call. Everything lives in organization 1 unless a test says otherwise.
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
CREATE FUNCTION prebuilds() RETURNS uuid LANGUAGE sql IMMUTABLE
AS $$ SELECT 'c42fdf75-3097-471c-8c33-fb52454d81c0'::uuid $$;
CREATE FUNCTION at_second(n numeric) RETURNS timestamptz LANGUAGE sql IMMUTABLE
AS $$ SELECT timestamptz '2026-05-07 12:00:00+00' + n * interval '1 second' $$;

-- What everyone in the organization may do with a template.
CREATE FUNCTION everyone() RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT '["read", "use"]'::jsonb $$;

CREATE FUNCTION add_organization(n integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
    VALUES (u(n), 'org' || n, '', at_second(0), at_second(0), '')
$$;
CREATE FUNCTION add_user(n integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status)
    VALUES (u(n), 'user' || n || '@example.com', 'user' || n, '', at_second(0), at_second(n), 'active')
$$;
CREATE FUNCTION add_member(organization integer, member integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO organization_members (organization_id, user_id, created_at, updated_at)
    VALUES (u(organization), u(member), at_second(0), at_second(0))
$$;
CREATE FUNCTION add_group(n integer, organization integer, name text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO groups (id, name, organization_id) VALUES (u(n), name, u(organization))
$$;
CREATE FUNCTION add_job(n integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id
    ) VALUES (
        u(n), at_second(0), at_second(0), u(1), u(1), 'echo', 'file', 'workspace_build', '{}', u(0)
    )
$$;
CREATE FUNCTION add_template(n integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO templates (
        id, created_at, updated_at, organization_id, name, provisioner, active_version_id, created_by, group_acl
    ) VALUES (
        u(n), at_second(0), at_second(0), u(1), 'template' || n, 'echo', u(n), u(1), jsonb_build_object(u(1), everyone())
    )
$$;
CREATE FUNCTION add_version(n integer, template integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO template_versions (
        id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by
    ) VALUES (u(n), u(template), u(1), at_second(0), at_second(0), 'v' || n, '', u(n), u(1))
$$;
CREATE FUNCTION add_preset(n integer, version integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO template_version_presets (id, template_version_id, name) VALUES (u(n), u(version), 'preset' || n)
$$;
CREATE FUNCTION add_workspace(n integer, owner uuid DEFAULT u(1)) RETURNS void LANGUAGE sql AS $$
    INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
    VALUES (u(n), at_second(n), at_second(0), owner, u(1), u(1), 'workspace' || n)
$$;
CREATE FUNCTION add_build(
    n integer, workspace integer, build_number integer, initiator uuid DEFAULT u(1), preset uuid DEFAULT NULL
) RETURNS void LANGUAGE sql AS $$
    SELECT add_job(n);
    INSERT INTO workspace_builds (
        id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id,
        template_version_preset_id
    ) VALUES (
        u(n), at_second(0), at_second(0), u(workspace), u(1), build_number, 'start', initiator, u(n), preset
    )
$$;
CREATE FUNCTION add_resource(n integer, job integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO workspace_resources (id, created_at, job_id, transition, type, name)
    VALUES (u(n), at_second(0), u(job), 'start', 'kind', 'resource' || n)
$$;
CREATE FUNCTION add_agent(
    n integer, resource integer, name text, state workspace_agent_lifecycle_state DEFAULT 'created',
    deleted boolean DEFAULT false
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO workspace_agents (
        id, created_at, updated_at, name, resource_id, auth_token, architecture, operating_system, lifecycle_state,
        deleted
    ) VALUES (
        u(n), at_second(0), at_second(0), name, u(resource), u(n), 'amd64', 'linux', state, deleted
    )
$$;

SELECT add_organization(1);
SELECT add_user(1);
SELECT add_template(1);
SELECT add_version(1, 1);
SELECT add_preset(1, 1);
SELECT add_workspace(1);
SELECT add_build(1, 1, 1, preset => u(1));
SELECT add_resource(1, 1);
SELECT add_agent(1, 1, 'main');
