-- What:     error_code also admits INSUFFICIENT_QUOTA, which a rejected quota commit sets.
-- Locks:    ACCESS EXCLUSIVE on provisioner_jobs, for the catalog only (NOT VALID); before it one read of the table.
-- Old code: goes on; it reads a code that it does not know, which clients treat as opaque.

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
        WHERE error_code NOT IN ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES', 'INSUFFICIENT_QUOTA')
        GROUP BY error_code
    ) AS codes;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'provisioner_jobs.error_code holds values that this version does not know: %', unknown
            USING ERRCODE = 'check_violation', TABLE = 'provisioner_jobs', COLUMN = 'error_code',
                  CONSTRAINT = 'provisioner_jobs_error_code_check',
                  HINT = 'Set error_code of these rows to NULL or to one of: MISSING_TEMPLATE_PARAMETER, REQUIRED_TEMPLATE_VARIABLES, INSUFFICIENT_QUOTA. Then migrate again.';
    END IF;
END
$$;

-- One statement: there is no moment without a constraint, nor one in which the old and the new both hold.
ALTER TABLE provisioner_jobs
    DROP CONSTRAINT provisioner_jobs_error_code_check,
    ADD CONSTRAINT provisioner_jobs_error_code_check
    CHECK (error_code IN ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES', 'INSUFFICIENT_QUOTA')) NOT VALID;
