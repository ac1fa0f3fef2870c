-- What:     error_code becomes a closed set: a named CHECK that admits the two codes in use.
-- Locks:    ACCESS EXCLUSIVE on provisioner_jobs, for the catalog only (NOT VALID); before it one read of the table.
-- Old code: goes on, as long as it writes one of the two codes or NULL.

-- Named here, because the server would only say that some row violates the constraint.
DO $$
DECLARE
    unknown text;
BEGIN
    SELECT string_agg(format('%L in %s row%s', error_code, n, CASE n WHEN 1 THEN '' ELSE 's' END), ', ' ORDER BY error_code)
    INTO unknown
    FROM (
        SELECT error_code, count(*) AS n
        FROM provisioner_jobs
        WHERE error_code NOT IN ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES')
        GROUP BY error_code
    ) AS codes;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'provisioner_jobs.error_code holds values that this version does not know: %', unknown
            USING ERRCODE = 'check_violation', TABLE = 'provisioner_jobs', COLUMN = 'error_code',
                  CONSTRAINT = 'provisioner_jobs_error_code_check',
                  HINT = 'Set error_code of these rows to NULL or to one of: MISSING_TEMPLATE_PARAMETER, REQUIRED_TEMPLATE_VARIABLES. Then migrate again.';
    END IF;
END
$$;

ALTER TABLE provisioner_jobs
    ADD CONSTRAINT provisioner_jobs_error_code_check
    CHECK (error_code IN ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES')) NOT VALID;
