-- Notes that the API key $1 was used at $2, unless it was noted after $3. One that is being used elsewhere in this
-- moment is noted there.
UPDATE api_keys
SET last_used = $2
WHERE id IN (SELECT id FROM api_keys WHERE id = $1 AND last_used < $3 FOR NO KEY UPDATE SKIP LOCKED)
