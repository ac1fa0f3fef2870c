-- What:     counts the workspaces that are there; from here on, reading what a user consumes is reading its sum.
-- Locks:    none that a writer waits for. It reads each workspace and its newest build, in one transaction.
-- Old code: sees nothing.

SELECT quota_recount();
