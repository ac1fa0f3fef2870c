-- The organization and its people. demo_anchor holds the moment that the demo calls now.
CREATE OR REPLACE FUNCTION pg_temp.demo_at(distance text) RETURNS timestamp with time zone LANGUAGE sql STABLE
AS $$ SELECT anchor + distance::interval FROM pg_temp.demo_anchor $$;

INSERT INTO organizations (id, name, description, created_at, updated_at, is_default, display_name, icon)
SELECT
    pg_temp.demo_id('0001', 1), 'coder', 'A small organization to try things on.', pg_temp.demo_at('-90 days'),
    pg_temp.demo_at('-90 days'),
    -- There can be only one default, and an organization that is here already keeps it.
    NOT EXISTS (SELECT 1 FROM organizations WHERE is_default), 'Coder', '/icon/coder.svg';

INSERT INTO users (
    id, email, username, hashed_password, created_at, updated_at, status, rbac_roles, login_type, last_seen_at, name,
    is_service_account
)
SELECT
    pg_temp.demo_id('0002', n), CASE WHEN service THEN '' ELSE username || '@example.com' END, username, '',
    pg_temp.demo_at('-90 days'), pg_temp.demo_at('-90 days'), status::user_status, roles::text[],
    CASE WHEN service THEN 'none' ELSE login END::login_type, pg_temp.demo_at(seen) AT TIME ZONE 'UTC', name, service
FROM (VALUES
    (1, 'alice', 'Alice', 'active', '{owner}', 'password', '-4 minutes', false),
    (2, 'bob', 'Bob', 'active', '{template-admin}', 'oidc', '-7 minutes', false),
    (3, 'carol', 'Carol', 'active', '{auditor}', 'oidc', '-1 day', false),
    (4, 'dave', 'Dave', 'active', '{}', 'oidc', '-1 minute', false),
    (5, 'erin', 'Erin', 'active', '{}', 'oidc', '-11 minutes', false),
    (6, 'frank', 'Frank', 'suspended', '{}', 'oidc', '-20 days', false),
    (7, 'grace', 'Grace', 'active', '{}', 'oidc', '-2 minutes', false),
    (8, 'heidi', 'Heidi', 'active', '{}', 'oidc', '-3 minutes', false),
    (9, 'ivan', 'Ivan', 'dormant', '{}', 'oidc', '-60 days', false),
    (10, 'judy', 'Judy', 'active', '{}', 'oidc', '-40 days', false),
    (11, 'ci-runner', 'CI runner', 'active', '{}', 'none', '-1 hour', true)
) AS person (n, username, name, status, roles, login, seen, service);

INSERT INTO organization_members (user_id, organization_id, created_at, updated_at, roles)
SELECT
    pg_temp.demo_id('0002', n), pg_temp.demo_id('0001', 1), pg_temp.demo_at('-90 days'), pg_temp.demo_at('-90 days'),
    CASE n WHEN 7 THEN ARRAY['organization-admin'] ELSE '{}' END
FROM generate_series(1, 11) AS n
UNION ALL
SELECT
    'c42fdf75-3097-471c-8c33-fb52454d81c0', pg_temp.demo_id('0001', 1), pg_temp.demo_at('-30 days'),
    pg_temp.demo_at('-30 days'), '{}';

-- Judy has left: her jobs stay, and her quota is gone.
UPDATE users SET deleted = true, updated_at = pg_temp.demo_at('-35 days') WHERE id = pg_temp.demo_id('0002', 10);

-- Everyone has the id of the organization, and no stored members.
INSERT INTO groups (id, name, organization_id, quota_allowance, display_name)
VALUES
    (pg_temp.demo_id('0001', 1), 'Everyone', pg_temp.demo_id('0001', 1), 20, ''),
    (pg_temp.demo_id('0003', 1), 'developers', pg_temp.demo_id('0001', 1), 40, 'Developers'),
    (pg_temp.demo_id('0003', 2), 'data-science', pg_temp.demo_id('0001', 1), 60, 'Data science'),
    (pg_temp.demo_id('0003', 3), 'coderprebuiltworkspaces', pg_temp.demo_id('0001', 1), 200, 'Prebuilt workspaces');

INSERT INTO group_members (user_id, group_id)
VALUES
    (pg_temp.demo_id('0002', 4), pg_temp.demo_id('0003', 1)),
    (pg_temp.demo_id('0002', 6), pg_temp.demo_id('0003', 1)),
    (pg_temp.demo_id('0002', 7), pg_temp.demo_id('0003', 1)),
    (pg_temp.demo_id('0002', 5), pg_temp.demo_id('0003', 2)),
    (pg_temp.demo_id('0002', 8), pg_temp.demo_id('0003', 1)),
    (pg_temp.demo_id('0002', 8), pg_temp.demo_id('0003', 2)),
    ('c42fdf75-3097-471c-8c33-fb52454d81c0', pg_temp.demo_id('0003', 3));

-- Hashes of nothing that anybody knows: nobody can sign in with these.
INSERT INTO api_keys (
    id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, login_type, scopes, allow_list
)
VALUES (
    'demokey001', sha256('demo'), pg_temp.demo_id('0002', 4), pg_temp.demo_at('-1 minute'), pg_temp.demo_at('7 days'),
    pg_temp.demo_at('-1 day'), pg_temp.demo_at('-1 day'), 'oidc', '{coder:all}', '{*:*}'
);

INSERT INTO user_links (user_id, login_type, linked_id)
SELECT id, login_type, 'https://id.example.com||' || username
FROM users
WHERE id BETWEEN pg_temp.demo_id('0002', 1) AND pg_temp.demo_id('0002', 11) AND login_type = 'oidc' AND NOT deleted;

INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
SELECT
    pg_temp.demo_id('000b', n), pg_temp.demo_at('-60 days'), pg_temp.demo_id('0001', 1), name,
    sha256(convert_to('demo key ' || name, 'UTF8')), '{"scope": "organization", "owner": ""}'::jsonb || tags::jsonb
FROM (VALUES
    (1, 'demo-untagged', '{}'),
    (2, 'demo-on-prem', '{"env": "on-prem"}'),
    (3, 'demo-on-prem-chicago', '{"env": "on-prem", "dc": "chi"}'),
    (4, 'demo-gpu', '{"env": "cloud", "gpu": "true"}')
) AS key (n, name, tags);

INSERT INTO provisioner_daemons (
    id, created_at, name, provisioners, tags, last_seen_at, version, api_version, organization_id, key_id
)
SELECT
    pg_temp.demo_id('000a', daemon.n), pg_temp.demo_at('-30 days') + daemon.n * interval '1 minute', daemon.name,
    '{terraform}', key.tags, pg_temp.demo_at(seen), 'v2.33.0', '1.15', key.organization_id, key.id
FROM (VALUES
    (1, 'builtin-1', 1, '-12 seconds'),
    (2, 'on-prem-1', 2, '-25 seconds'),
    (3, 'on-prem-chi-1', 3, '-41 seconds'),
    (4, 'gpu-1', 4, '-8 seconds'),
    (5, 'builtin-2', 1, '-2 days')
) AS daemon (n, name, key, seen)
INNER JOIN provisioner_keys AS key ON key.id = pg_temp.demo_id('000b', daemon.key);

INSERT INTO licenses (uploaded_at, jwt, exp, uuid)
VALUES (
    pg_temp.demo_at('-90 days'), 'demo.not-a-real-license.unsigned', pg_temp.demo_at('275 days'),
    pg_temp.demo_id('0011', 1)
);

-- The setting of somebody who was here before stays.
INSERT INTO site_configs (key, value)
VALUES ('prebuilds_settings', '{"reconciliation_paused": false}'), ('agents_workspace_ttl', '8h0m0s')
ON CONFLICT DO NOTHING;

INSERT INTO notification_preferences (user_id, notification_template_id, disabled, created_at, updated_at)
SELECT pg_temp.demo_id('0002', 9), id, true, pg_temp.demo_at('-70 days'), pg_temp.demo_at('-70 days')
FROM notification_templates
WHERE name = 'Workspace Autobuild Failed';
