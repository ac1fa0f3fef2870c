-- What is in the database that is not the demo's, and whether the demo is, without its note in site_configs.
SELECT
    (SELECT count(*) FROM organizations WHERE id::text NOT LIKE 'c0de0000-0001-4000-8000-%') AS organizations,
    (
        SELECT count(*)
        FROM users
        WHERE id::text NOT LIKE 'c0de0000-0002-4000-8000-%' AND id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0'
    ) AS users,
    (
        SELECT count(*)
        FROM provisioner_jobs
        WHERE organization_id NOT IN (SELECT id FROM organizations WHERE id::text LIKE 'c0de0000-0001-4000-8000-%')
    ) AS jobs,
    EXISTS (SELECT 1 FROM organizations WHERE id::text LIKE 'c0de0000-0001-4000-8000-0000000000__')
    OR EXISTS (SELECT 1 FROM users WHERE id::text LIKE 'c0de0000-0002-4000-8000-00000000____') AS small,
    EXISTS (SELECT 1 FROM organizations WHERE id::text LIKE 'c0de0000-0001-4000-8000-0000000001__')
    OR EXISTS (SELECT 1 FROM users WHERE id::text LIKE 'c0de0000-0002-4000-8000-00000001____') AS large
