-- The id of the deployment; null if it has none.
SELECT (SELECT value FROM site_configs WHERE key = 'deployment_id') AS "value?: Text"
