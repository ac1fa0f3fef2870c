-- Pauses the reconciler of prebuilt workspaces, or resumes it, when $1 is not what is stored. No row when it is.
INSERT INTO site_configs AS stored (key, value)
SELECT 'prebuilds_settings', format('{"reconciliation_paused":%s}', $1::boolean::text)
-- Nothing stored means that it is not paused.
WHERE $1 OR EXISTS (SELECT 1 FROM site_configs WHERE key = 'prebuilds_settings')
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value
-- Compared as text, because a stored text that is not JSON must be replaced, and a cast of it would fail.
WHERE stored.value !~ CASE
    WHEN $1 THEN '^\s*\{\s*"reconciliation_paused"\s*:\s*true\s*\}\s*$'
    ELSE '^\s*\{\s*("reconciliation_paused"\s*:\s*false\s*)?\}\s*$'
END
