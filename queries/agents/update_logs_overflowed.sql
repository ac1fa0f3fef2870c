-- Sets the overflow flag of the agent $1 to $2.
UPDATE workspace_agents SET logs_overflowed = $2 WHERE id = $1 AND deleted = false
