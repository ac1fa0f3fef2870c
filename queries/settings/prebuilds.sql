-- The settings of prebuilt workspaces, a JSON text; `{}` when nobody ever set them.
SELECT coalesce((SELECT value FROM site_configs WHERE key = 'prebuilds_settings'), '{}') AS "value!"
