-- Commits the cost $4 of the build that the daemon $2 carries out with the job $1 in the organization $3
-- (domain: quota commit). Decides and writes in one statement; right only in a serializable transaction, and writes in no
-- other.
WITH build AS (
    SELECT
        b.id, b.workspace_id, b.build_number, w.owner_id, w.organization_id,
        j.completed_at IS NOT NULL AS has_ended
    FROM provisioner_jobs AS j
    INNER JOIN workspace_builds AS b ON b.job_id = j.id
    INNER JOIN workspaces AS w ON w.id = b.workspace_id
    WHERE j.id = $1
        AND j.worker_id = $2
        AND j.organization_id = $3
        AND w.organization_id = $3
),

consumption AS (
    SELECT
        coalesce(sum(latest.daily_cost), 0) AS consumed,
        -- What this build committed before does not stand in its own way when the commit is repeated.
        coalesce(sum(latest.daily_cost) FILTER (WHERE latest.id <> build.id), 0) AS by_others
    FROM build
    -- An array, so that the planner expects few: for an owner of very many it would compile the statement.
    CROSS JOIN LATERAL unnest(ARRAY(
        SELECT w.id
        FROM workspaces AS w
        WHERE w.owner_id = build.owner_id AND w.organization_id = build.organization_id AND w.deleted = false
    )) AS owned (workspace_id)
    CROSS JOIN LATERAL (
        SELECT b.id, b.daily_cost
        FROM workspace_builds AS b
        WHERE b.workspace_id = owned.workspace_id
        ORDER BY b.build_number DESC
        LIMIT 1
    ) AS latest
),

decision AS (
    SELECT
        build.id,
        consumption.consumed,
        consumption.by_others + $4::integer AS new_consumed,
        budget.budget,
        current_setting('transaction_isolation') = 'serializable' AS serializable,
        build.has_ended,
        coalesce($4::integer > previous.daily_cost, true) AS is_increase
    FROM build
    CROSS JOIN consumption
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(g.quota_allowance), 0) AS budget
        FROM groups AS g
        WHERE g.organization_id = build.organization_id
            AND EXISTS (
                SELECT 1 FROM group_members_expanded AS m WHERE m.group_id = g.id AND m.user_id = build.owner_id
            )
    ) AS budget
    -- The last build before this one that committed something or succeeded. One that was rejected or failed says nothing of
    -- what runs: a stop must go on after a restart that was rejected. A stop that succeeded at no cost does say something.
    LEFT JOIN LATERAL (
        SELECT b.daily_cost
        FROM workspace_builds AS b
        INNER JOIN provisioner_jobs AS j ON j.id = b.job_id
        WHERE b.workspace_id = build.workspace_id
            AND b.build_number < build.build_number
            AND (b.daily_cost > 0 OR j.job_status = 'succeeded')
        ORDER BY b.build_number DESC
        LIMIT 1
    ) AS previous ON true
),

written AS (
    UPDATE workspace_builds AS b
    SET daily_cost = $4::integer
    FROM decision
    WHERE b.id = decision.id
        AND decision.serializable
        AND NOT decision.has_ended
        AND NOT (decision.new_consumed > decision.budget AND decision.is_increase)
    RETURNING b.id
)

SELECT
    decision.serializable AS "serializable!",
    decision.has_ended AS "has_ended!",
    written.id IS NOT NULL AS "accepted!",
    (CASE WHEN written.id IS NULL THEN decision.consumed ELSE decision.new_consumed END)::bigint AS "consumed!",
    decision.budget::bigint AS "budget!"
FROM decision
LEFT JOIN written ON written.id = decision.id
