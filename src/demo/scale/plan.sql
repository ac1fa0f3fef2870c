-- Who and what the large organization consists of, everything but its jobs: into temporary tables where the batches
-- look it up, and into the schema. demo_scale holds the numbers. Nothing is random: a second machine gets the same rows.
-- Only +, *, / and sqrt touch floating point, which every machine rounds alike.

CREATE TEMPORARY TABLE demo_organizations ON COMMIT DROP AS
SELECT o, pg_temp.demo_id('0001', 101 + o) AS id, name, display_name, first_user, users
FROM (VALUES
    (0, 'engineering', 'Engineering', 1, 1400),
    (1, 'research', 'Research', 1401, 150),
    (2, 'data-platform', 'Data Platform', 1551, 150),
    (3, 'mobile', 'Mobile', 1701, 150),
    (4, 'field-support', 'Field Support', 1851, 150)
) AS organization (o, name, display_name, first_user, users);

INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
SELECT id, name, 'Part of the large demo organization.', origin, origin, display_name
FROM demo_organizations, demo_scale;

INSERT INTO groups (id, name, organization_id, quota_allowance, display_name)
SELECT id, 'Everyone', id, 40, '' FROM demo_organizations
UNION ALL
SELECT pg_temp.demo_id('0003', 101 + o), 'power-users', id, 400, 'Power users' FROM demo_organizations;

INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, name)
SELECT
    pg_temp.demo_id('0002', 10000 + u),
    'dev-' || lpad(u::text, 4, '0') || '@example.com',
    'dev-' || lpad(u::text, 4, '0'),
    '',
    origin,
    origin,
    CASE WHEN u % 100 = 99 THEN 'suspended' WHEN u % 25 = 24 THEN 'dormant' ELSE 'active' END::user_status,
    'Developer ' || u
FROM generate_series(1, 2000) AS u, demo_scale;

INSERT INTO organization_members (user_id, organization_id, created_at, updated_at, roles)
SELECT
    pg_temp.demo_id('0002', 10000 + u),
    id,
    origin,
    origin,
    -- The first few administer the templates, and create them.
    CASE WHEN u < first_user + 5 THEN ARRAY['organization-template-admin'] ELSE '{}' END
FROM demo_organizations, demo_scale, generate_series(first_user, first_user + users - 1) AS u
UNION ALL
SELECT 'c42fdf75-3097-471c-8c33-fb52454d81c0', id, origin, origin, '{}' FROM demo_organizations, demo_scale;

INSERT INTO group_members (user_id, group_id)
SELECT pg_temp.demo_id('0002', 10000 + u), pg_temp.demo_id('0003', 101 + o)
FROM demo_organizations, generate_series(first_user, first_user + users - 1) AS u
WHERE u % 10 = 1;

-- 35 daemons in the big organization over five tag sets, 15 in the others over three.
CREATE TEMPORARY TABLE demo_daemons ON COMMIT DROP AS
SELECT
    d,
    o,
    CASE WHEN o = 0 THEN d % 5 ELSE (row_number() OVER (PARTITION BY o ORDER BY d) - 1) % 3 END::integer AS tagset,
    pg_temp.demo_id('000a', 100 + d) AS id
FROM (
    SELECT d, CASE WHEN d < 35 THEN 0 ELSE 1 + d % 4 END AS o FROM generate_series(0, 49) AS d
) AS daemon;

CREATE TEMPORARY TABLE demo_tagsets ON COMMIT DROP AS
SELECT tagset, name, ('{"scope": "organization", "owner": ""}'::jsonb || more::jsonb) AS tags
FROM (VALUES
    (0, 'untagged', '{}'),
    (1, 'on-prem', '{"env": "on-prem"}'),
    (2, 'gpu', '{"env": "cloud", "gpu": "true"}'),
    (3, 'eu', '{"env": "cloud", "region": "eu"}'),
    (4, 'us', '{"env": "cloud", "region": "us"}')
) AS tagset (tagset, name, more);

INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
SELECT
    pg_temp.demo_id('000b', 100 + o * 10 + tagset), origin, demo_organizations.id, demo_tagsets.name,
    sha256(convert_to('demo key ' || o || ' ' || tagset, 'UTF8')), tags
FROM demo_scale, demo_organizations
INNER JOIN demo_tagsets ON o = 0 OR tagset < 3;

INSERT INTO provisioner_daemons (
    id, created_at, name, provisioners, tags, last_seen_at, version, api_version, organization_id, key_id
)
SELECT
    d.id, origin + d.d * interval '1 second', t.name || '-' || lpad(d.d::text, 2, '0'), '{terraform}', t.tags, anchor,
    'v2.33.0', '1.15', organization.id, pg_temp.demo_id('000b', 100 + d.o * 10 + d.tagset)
FROM demo_scale, demo_daemons AS d
INNER JOIN demo_tagsets AS t USING (tagset)
INNER JOIN demo_organizations AS organization USING (o);

CREATE TEMPORARY TABLE demo_templates ON COMMIT DROP AS
SELECT
    template.*,
    -- Place in its organization, from 0.
    row_number() OVER (PARTITION BY o ORDER BY t) - 1 AS place,
    pg_temp.demo_id('0004', 1000 + t) AS id,
    pg_temp.demo_id('000c', 1000 + t) AS file_id,
    demo_organizations.id AS organization_id,
    pg_temp.demo_id('0002', 10000 + first_user + t % 5) AS creator,
    tags,
    workers,
    10 * (1 + t % 4) AS cost,
    -- Of seven versions the first never fails; the active one is such a one, with a tenth of the history after it.
    (past_imports / templates * 9 / 10 / 7 * 7 + 1)::integer AS active_version
FROM (
    SELECT
        t::integer,
        CASE WHEN t % 10 < 7 THEN 0 ELSE 1 + (t / 10 * 3 + t % 10 - 7) % 4 END::integer AS o,
        CASE WHEN t % 10 < 7 THEN t / 2 % 5 ELSE t / 10 % 3 END::integer AS tagset
    FROM demo_scale, generate_series(0, templates - 1) AS t
) AS template
CROSS JOIN demo_scale
INNER JOIN demo_organizations USING (o)
INNER JOIN demo_tagsets USING (tagset)
INNER JOIN (
    SELECT o, tagset, array_agg(id ORDER BY d) AS workers FROM demo_daemons GROUP BY o, tagset
) AS fleet USING (o, tagset);

INSERT INTO files (hash, created_at, created_by, mimetype, data, id)
SELECT encode(sha256(data), 'hex'), origin, creator, 'application/x-tar', data, file_id
FROM demo_scale, (
    -- A tar archive without a member is zeros; the length sets one template's apart from another's.
    SELECT t, creator, file_id, decode(repeat('00', 1024 + 512 * t), 'hex') AS data FROM demo_templates
) AS file;

INSERT INTO templates (
    id, created_at, updated_at, organization_id, name, provisioner, active_version_id, description, created_by,
    display_name, group_acl
)
SELECT
    id, origin, anchor, organization_id, 'template-' || lpad(t::text, 3, '0'), 'terraform',
    md5('version ' || t || ' ' || active_version)::uuid, 'One of many.', creator, 'Template ' || t,
    jsonb_build_object(organization_id, '["read", "use"]'::jsonb)
FROM demo_templates, demo_scale;

-- Workspaces. The first `heavy` belong to one owner and have 200 builds each. The number of builds of the others
-- falls with the square root of the rank, down from 1/sqrt(ranks) of all.
CREATE TEMPORARY TABLE demo_workspaces ON COMMIT DROP AS
WITH ranked AS (
    SELECT
        w,
        pg_temp.demo_hash(w * 31 + 7) AS h,
        -- The big organization takes so many of a thousand ranks that all its builds make 70 %.
        CASE
            WHEN w <= heavy THEN 0
            WHEN (w - heavy) * big_share / 1000 > (w - heavy - 1) * big_share / 1000 THEN 0
            ELSE 1 + pg_temp.demo_hash(w) % 4
        END::integer AS o
    FROM demo_scale, generate_series(1, workspaces) AS w
)
SELECT
    ranked.w,
    ranked.o,
    template.t,
    md5('workspace ' || ranked.w)::uuid AS id,
    pg_temp.demo_id('0002', 10000 + CASE
        WHEN ranked.w <= heavy THEN 1
        -- The square gathers more of the workspaces on the lower numbers. Nobody else shares the first user's.
        ELSE first_user + 1 + (ranked.h % 1000) * (ranked.h % 1000) * (users - 1) / 1000000
    END) AS owner_id,
    CASE WHEN ranked.w <= heavy THEN 200 ELSE 0 END AS builds,
    (ranked.h % 1024)::double precision / 1024 AS phase,
    ranked.w % 20 = 19 AS deleted,
    NULL::uuid AS daemon_id,
    false AS waits
FROM demo_scale, ranked
INNER JOIN demo_organizations USING (o)
INNER JOIN (SELECT o, count(*) AS count FROM demo_templates GROUP BY o) AS choice USING (o)
INNER JOIN demo_templates AS template ON template.o = ranked.o AND template.place = ranked.h / 1024 % choice.count;

-- One running build per busy daemon, each of a workspace whose template it can serve.
WITH seats AS (
    SELECT id, o, tagset, row_number() OVER (PARTITION BY o, tagset ORDER BY d) AS seat
    FROM demo_daemons, demo_scale
    WHERE d % 10 < busy_of_ten
),

candidates AS (
    SELECT w, demo_workspaces.o, tagset, row_number() OVER (PARTITION BY demo_workspaces.o, tagset ORDER BY w DESC) AS seat
    FROM demo_workspaces INNER JOIN demo_templates USING (t)
    WHERE NOT deleted
)

UPDATE demo_workspaces AS workspace
SET daemon_id = seats.id
FROM seats INNER JOIN candidates USING (o, tagset, seat)
WHERE workspace.w = candidates.w;

-- At most one build of a workspace waits, and none while another is under way.
UPDATE demo_workspaces AS workspace
SET waits = true
FROM (
    SELECT w
    FROM demo_workspaces, demo_scale
    WHERE NOT deleted AND daemon_id IS NULL AND w > heavy
    ORDER BY pg_temp.demo_hash(w * 17 + 3), w
    LIMIT (SELECT waiting_builds FROM demo_scale)
) AS chosen
WHERE workspace.w = chosen.w;

-- What is left of the builds is the history.
UPDATE demo_workspaces AS workspace
SET builds = floor(history.builds * sqrt(rank / ranks))::integer
    - floor(history.builds * sqrt((rank - 1) / ranks))::integer
FROM (
    SELECT
        w,
        (w - heavy)::double precision AS rank,
        (workspaces - heavy)::double precision AS ranks,
        (
            demo_scale.builds - 200 * heavy - waiting_prebuilds
            - (SELECT count(*) FILTER (WHERE waits) + count(daemon_id) FROM demo_workspaces)
        )::double precision AS builds
    FROM demo_scale, demo_workspaces
    WHERE w > heavy
) AS history
WHERE workspace.w = history.w;

INSERT INTO workspaces (
    id, created_at, updated_at, owner_id, organization_id, template_id, deleted, name, autostart_schedule, ttl,
    last_used_at
)
SELECT
    workspace.id, origin, anchor, owner_id, organization_id, template.id, deleted, 'ws-' || lpad(w::text, 5, '0'),
    CASE WHEN w % 3 = 0 THEN 'CRON_TZ=UTC 0 9 * * 1-5' END, 28800000000000, anchor - w * interval '1 minute'
FROM demo_scale, demo_workspaces AS workspace
INNER JOIN demo_templates AS template USING (t)
ORDER BY w;

-- The prebuilt workspaces whose one build waits. Seven of ten are the big organization's, as of everything.
CREATE TEMPORARY TABLE demo_prebuilds ON COMMIT DROP AS
SELECT
    p,
    template.t,
    md5('prebuild ' || p)::uuid AS id,
    -- Half of them are for a version that is not active any more: what an operator wants to clear.
    CASE WHEN p / 10 % 2 = 0 THEN active_version ELSE active_version - 7 END AS version
FROM demo_scale, generate_series(1, waiting_prebuilds) AS p
INNER JOIN demo_templates AS template ON template.t = (p / 20 * 10 + p % 10) % (SELECT templates FROM demo_scale);

INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
SELECT
    prebuild.id, anchor - interval '30 minutes', anchor, 'c42fdf75-3097-471c-8c33-fb52454d81c0', organization_id,
    template.id, 'prebuild-' || left(prebuild.id::text, 8) || '-' || p
FROM demo_scale, demo_prebuilds AS prebuild
INNER JOIN demo_templates AS template USING (t)
ORDER BY p;

ANALYZE demo_scale;
ANALYZE demo_organizations;
ANALYZE demo_workspaces;
ANALYZE demo_templates;
ANALYZE demo_prebuilds;
