//! The operations of `coderdb::store`, on a real database.

mod agents;
mod builds;
mod chats;
mod contention;
mod crash;
mod daemons;
mod files;
mod job_input;
mod job_json;
mod job_logs;
mod job_timings;
mod jobs;
mod labels;
mod listing;
mod plans;
mod prebuilds;
mod queue;
mod queue_snapshot;
mod quota_commit;
mod quota_list;
mod random_states;
mod runner;
mod settings;
mod waits;
mod worker_messages;
mod workspaces;
