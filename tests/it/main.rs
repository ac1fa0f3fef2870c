//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod agents;
mod builds;
mod cli;
mod demo;
mod house_rules;
mod job_json;
mod listing;
mod migrations;
mod model;
mod postgres;
mod prebuilds;
mod queries;
mod quota_commit;
mod random_database;
mod readme;
mod schema;
mod service;
mod support;
mod workspaces;
