-- Stores $1 as the settings of prebuilt workspaces if what is stored is $2, or nothing. No row when it is something else.
INSERT INTO site_configs AS stored (key, value) VALUES ('prebuilds_settings', $1)
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value WHERE stored.value = $2
