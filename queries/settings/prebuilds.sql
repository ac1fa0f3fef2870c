-- The settings of prebuilt workspaces, a JSON text; `{}` if they were never set.
SELECT coalesce((SELECT value FROM site_configs WHERE key = 'prebuilds_settings'), '{}') AS "value!"
