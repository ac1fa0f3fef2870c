-- Organization 1, organization 2, and organization 3, which is deleted; one of each kind of thing in each of them.
-- The thing of kind k in organization n has the id n * 100 + k.
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
CREATE FUNCTION moment() RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT timestamptz '2026-05-07 12:00:00+00' $$;

INSERT INTO organizations (id, name, description, created_at, updated_at, display_name, is_default, deleted)
SELECT u(n), 'organization-' || n, '', moment(), moment(), '', n = 1, n = 3 FROM generate_series(1, 3) AS n;
INSERT INTO chat_providers (provider) VALUES ('openai');
INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold)
VALUES (u(1), 'openai', 'model', 200000, 80);

CREATE FUNCTION add_user(n integer, roles text[], user_status user_status DEFAULT 'active', gone boolean DEFAULT false)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, rbac_roles, deleted)
    VALUES (u(n), 'user' || n || '@example.com', 'user-' || n, '', moment(), moment(), user_status, roles, gone)
$$;
CREATE FUNCTION add_member(organization integer, member integer, roles text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO organization_members (organization_id, user_id, created_at, updated_at, roles)
    VALUES (u(organization), u(member), moment(), moment(), roles)
$$;
CREATE FUNCTION add_things(n integer, owner integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO provisioner_jobs (
        id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id, tags
    ) VALUES (
        u(n * 100 + 1), moment(), moment(), u(n), u(owner), 'echo', 'file', 'workspace_build', '{}', u(0), '{"a": "b"}'
    );
    INSERT INTO templates (
        id, created_at, updated_at, organization_id, name, provisioner, active_version_id, created_by, group_acl
    ) VALUES (
        u(n * 100 + 2), moment(), moment(), u(n), 'template-' || n, 'echo', u(0), u(owner),
        jsonb_build_object(u(n), '["read", "use"]'::jsonb)
    );
    INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
    VALUES (u(n * 100 + 3), moment(), moment(), u(owner), u(n), u(n * 100 + 2), 'workspace-' || n);
    INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
    VALUES (u(n * 100 + 5), moment(), u(n), 'key', '', '{}');
    INSERT INTO provisioner_daemons (
        id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id
    ) VALUES (
        u(n * 100 + 4), moment(), 'daemon-' || n, '{echo}', '{"a": "b"}', moment(), u(n), u(n * 100 + 5)
    );
    INSERT INTO chats (id, owner_id, last_model_config_id, organization_id) VALUES (u(n * 100 + 6), u(owner), u(1), u(n));
    INSERT INTO template_versions (
        id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by
    ) VALUES (u(n * 100 + 7), u(n * 100 + 2), u(n), moment(), moment(), 'version-' || n, '', u(n * 100 + 1), u(owner));
    INSERT INTO workspace_builds (
        id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id,
        daily_cost
    ) VALUES (
        u(n * 100 + 8), moment(), moment(), u(n * 100 + 3), u(n * 100 + 7), 1, 'start', u(owner), u(n * 100 + 1), n
    );
    INSERT INTO workspace_resources (id, created_at, job_id, transition, type, name)
    VALUES (u(n * 100 + 9), moment(), u(n * 100 + 1), 'start', 'kind', 'resource');
    INSERT INTO workspace_agents (
        id, created_at, updated_at, name, resource_id, auth_token, architecture, operating_system
    ) VALUES (
        u(n * 100 + 10), moment(), moment(), 'main', u(n * 100 + 9), u(n * 100 + 10), 'amd64', 'linux'
    );
    INSERT INTO groups (id, name, organization_id) VALUES (u(n * 100 + 12), 'group', u(n));
$$;

SELECT add_user(n, '{}') FROM generate_series(1, 3) AS n;
SELECT add_member(n, n, '{}') FROM generate_series(1, 3) AS n;
SELECT add_things(n, n) FROM generate_series(1, 3) AS n;
INSERT INTO licenses (id, uploaded_at, jwt, exp, uuid) VALUES (1, moment(), 'header.claims.signature', moment(), u(1));
SELECT setval('licenses_id_seq', 1);
INSERT INTO site_configs (key, value) VALUES ('prebuilds_settings', '{"reconciliation_paused":true}'), ('agents_workspace_ttl', '8h'), ('deployment_id', 'deployment');
