-- How long a workspace that a chat created lives, as it was stored; an empty text if it was never set.
SELECT coalesce((SELECT value FROM site_configs WHERE key = 'agents_workspace_ttl'), '') AS "value!"
