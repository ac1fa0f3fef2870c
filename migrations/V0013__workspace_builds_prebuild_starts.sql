-- coderdb: no-transaction
-- What:     the first starts of prebuilt workspaces, by preset and time: which failed, which wait, which were claimed.
-- Locks:    SHARE UPDATE EXCLUSIVE on workspace_builds: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.

CREATE INDEX CONCURRENTLY workspace_builds_prebuild_starts_idx
    ON workspace_builds (template_version_preset_id, created_at, id)
    WHERE initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND build_number = 1 AND transition = 'start';
