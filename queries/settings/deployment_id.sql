-- The id of the deployment; null when nobody gave it one.
SELECT (SELECT value FROM site_configs WHERE key = 'deployment_id') AS "value?: Text"
