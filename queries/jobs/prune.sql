-- Old jobs of the organization $1, in the order of their creation: at most $4 jobs after the job that was created at $2 and
-- has the id $3, up to the one of $8 and $9, of those created before $5. Deletes the ones that ended before $5 and that
-- nothing needs (domain: pruning); with $6 it only tells which they are. With $7 the question is about their logs, which
-- versions of templates do not need.
WITH page AS (
    SELECT id, created_at, completed_at, logs_length
    FROM provisioner_jobs
    WHERE organization_id = $1 AND (created_at, id) > ($2, $3) AND (created_at, id) <= ($8, $9)
        AND created_at < $5
    ORDER BY created_at, id
    LIMIT $4
),

deletable AS (
    SELECT page.id
    FROM page
    LEFT JOIN workspace_builds AS b ON b.job_id = page.id
    WHERE page.completed_at < $5
        AND ($7 OR NOT EXISTS (SELECT FROM template_versions AS v WHERE v.job_id = page.id))
        AND (
            b.id IS NULL
            -- The build after the newest that left a state begins with that state.
            OR EXISTS (
                SELECT FROM workspace_builds AS newer
                INNER JOIN provisioner_jobs AS n ON n.id = newer.job_id
                WHERE newer.workspace_id = b.workspace_id
                    AND newer.build_number > b.build_number
                    AND n.completed_at IS NOT NULL
                    AND (n.job_status = 'succeeded' OR octet_length(newer.provisioner_state) > 0)
            )
        )
        AND NOT EXISTS (SELECT FROM chats AS c WHERE c.build_id = b.id)
        AND NOT EXISTS (
            SELECT FROM chats AS c
            INNER JOIN workspace_agents AS a ON a.id = c.agent_id
            INNER JOIN workspace_resources AS r ON r.id = a.resource_id
            WHERE r.job_id = page.id
        )
),

-- A job that another session holds is left for the next run.
locked AS (
    SELECT j.id
    FROM provisioner_jobs AS j
    WHERE NOT $6 AND j.id IN (SELECT deletable.id FROM deletable)
    FOR UPDATE SKIP LOCKED
),

deleted AS (
    DELETE FROM provisioner_jobs AS j USING locked WHERE j.id = locked.id RETURNING j.id
)

SELECT
    page.id AS "id!: crate::model::JobId",
    page.created_at AS "created_at!: Timestamp",
    page.logs_length AS "logs_length!",
    (CASE WHEN $6 THEN deletable.id ELSE deleted.id END) IS NOT NULL AS "is_deletable!"
FROM page
LEFT JOIN deletable ON deletable.id = page.id
LEFT JOIN deleted ON deleted.id = page.id
ORDER BY page.created_at, page.id
