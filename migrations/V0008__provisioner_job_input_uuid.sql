-- What:     reads an id out of a job's input, so that one job with a broken input cannot fail a whole listing.
-- Locks:    none.
-- Old code: sees nothing.

-- The pattern is what the server's own cast accepts; immutable, so that an index can hold the result.
CREATE FUNCTION provisioner_job_input_uuid(input jsonb, key text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN jsonb_typeof(input) = 'object'
            AND input ->> key ~ '^(([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}|\{([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}\})$'
            THEN (input ->> key)::uuid
    END
$$;
COMMENT ON FUNCTION provisioner_job_input_uuid(jsonb, text) IS
    'The id under a key of provisioner_jobs.input; null where there is none or where it is not a UUID.';
