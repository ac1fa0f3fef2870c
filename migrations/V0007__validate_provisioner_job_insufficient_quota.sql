-- What:     proves that every stored job obeys the widened provisioner_jobs_error_code_check.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs while it is read: reads and writes go on.
-- Old code: sees nothing.

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

ALTER TABLE provisioner_jobs VALIDATE CONSTRAINT provisioner_jobs_error_code_check;
