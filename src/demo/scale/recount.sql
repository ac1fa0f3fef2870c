-- Counts what users consume, for the triggers that were switched off.
ALTER TABLE workspaces ENABLE TRIGGER quota_workspace_updated;
ALTER TABLE workspace_builds ENABLE TRIGGER quota_workspace_build_changed;
SELECT quota_recount();
