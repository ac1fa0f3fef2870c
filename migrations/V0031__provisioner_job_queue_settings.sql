-- What:     the counted queue works whatever a writer's session is set to, and in whatever schema it is.
-- Locks:    none on tables.
-- Old code: sees nothing. Until here, a writer with standard_conforming_strings = off could not insert a pending job.

CREATE OR REPLACE FUNCTION provisioner_job_queue_key(initiator_id uuid, created_at timestamp with time zone, id uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT encode(
        -- No backslash: what it means depends on the session.
        decode(CASE WHEN initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' THEN '01' ELSE '00' END, 'hex')
        -- The first bit of a signed number is turned, so that bytes sort like times.
        || set_byte(timestamptz_send(created_at), 0, get_byte(timestamptz_send(created_at), 0) # 128)
        || substr(uuid_send(id), 1, 7),
        'hex'
    )::uuid
$$;

DO $$
DECLARE
    definer regprocedure;
BEGIN
    FOREACH definer IN ARRAY '{
        record_provisioner_job_queue_change(), record_provisioner_job_queue_truncate(), fold_provisioner_job_queue()
    }'::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', definer, current_schema());
    END LOOP;
END
$$;
