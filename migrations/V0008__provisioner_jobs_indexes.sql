-- coderdb: no-transaction
-- What:     the indexes that the statements on provisioner jobs need. Nothing else of this layer is on that table.
-- Locks:    SHARE UPDATE EXCLUSIVE on provisioner_jobs: reads and writes go on; waits for older transactions.
-- Old code: sees nothing.
--
-- Each index names the statement that needs it, and its price: the bytes of WAL that it adds to the life of one job
-- (inserted, acquired, three signs of life, completed; full_page_writes off; `scripts/writes`). Partial ones are
-- cheaper: a job is in them only while it waits or runs. No index names a label of an enumerated type or job_status,
-- because a later migration of Coder's server that recreates a type would fail on it.

-- queries/jobs/list.sql: the newest jobs of an organization, page by page. 355 bytes.
CREATE INDEX CONCURRENTLY provisioner_jobs_organization_id_created_at_id_idx
    ON provisioner_jobs (organization_id, created_at DESC, id DESC);

-- The same listing by initiator: without it, the jobs of a user who has been quiet for long cost a walk over the whole
-- history of the organization. 447 bytes.
CREATE INDEX CONCURRENTLY provisioner_jobs_organization_id_initiator_id_idx
    ON provisioner_jobs (organization_id, initiator_id, created_at DESC, id DESC);

-- queries/jobs/list.sql: the positions in a listing (domain: positions) are counted in these two alone: people first, then
-- prebuilds. 83 bytes for a job, which is in one of them.
CREATE INDEX CONCURRENTLY provisioner_jobs_waiting_people_idx
    ON provisioner_jobs (created_at, id)
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
        AND initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0';
CREATE INDEX CONCURRENTLY provisioner_jobs_waiting_prebuilds_idx
    ON provisioner_jobs (created_at, id)
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
        AND initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0';

-- queries/jobs/by_ids_with_queue_position.sql: the positions by tags (domain: positions). 128 bits of hash tell tag sets
-- apart; not jsonb_hash_extended, under which two values that swap places can collide with every seed. The tags are included
-- because only then does the server read the index alone. An entry is limited to 2,704 bytes, so large tags are in the
-- next index instead: an insert must not fail because of an index. 155 bytes for a job, which is in one of them.
CREATE INDEX CONCURRENTLY provisioner_jobs_waiting_people_by_tags_idx
    ON provisioner_jobs (hashtextextended(tags::text, 0), hashtextextended(tags::text, 1), created_at, id) INCLUDE (tags)
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
        AND initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(tags::text) <= 600;
CREATE INDEX CONCURRENTLY provisioner_jobs_waiting_prebuilds_by_tags_idx
    ON provisioner_jobs (hashtextextended(tags::text, 0), hashtextextended(tags::text, 1), created_at, id) INCLUDE (tags)
    WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL
        AND initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND octet_length(tags::text) <= 600;
-- The same statement: the few jobs that wait and that the two above leave out. Nothing for the others.
CREATE INDEX CONCURRENTLY provisioner_jobs_waiting_odd_idx
    ON provisioner_jobs (id)
    WHERE started_at IS NULL AND completed_at IS NULL
        AND (canceled_at IS NOT NULL OR error IS NOT NULL OR octet_length(tags::text) > 600);

-- queries/jobs/acquire_batch.sql: the first jobs of a tag set, in the order in which daemons take them. 130 bytes.
CREATE INDEX CONCURRENTLY provisioner_jobs_acquire_idx
    ON provisioner_jobs (
        organization_id, hashtextextended(tags::text, 0), hashtextextended(tags::text, 1),
        (initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'), created_at, id
    )
    WHERE started_at IS NULL AND completed_at IS NULL;

-- queries/jobs/reap_candidates.sql: what runs, without the history. 67 bytes.
CREATE INDEX CONCURRENTLY provisioner_jobs_running_idx
    ON provisioner_jobs (started_at) WHERE started_at IS NOT NULL AND completed_at IS NULL;
