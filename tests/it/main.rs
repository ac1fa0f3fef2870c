//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod agents;
mod authz;
mod builds;
mod chats;
mod cli;
mod compile_fail;
mod crash;

mod daemons;
mod demo;
mod files;
mod house_rules;
mod job_json;
mod job_logs;
mod job_timings;
mod jobs;
mod licenses;
mod listing;
mod migrations;
mod model;
mod operations;
mod plans;
mod postgres;
mod prebuilds;
mod queries;
mod quota_commit;
mod random_database;
mod readme;
mod round_trips;
mod runner;
mod schema;
mod service;
mod settings;
mod support;
mod workspaces;
