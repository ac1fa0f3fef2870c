//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod authz;
mod chats;
mod cli;
mod compile_fail;
mod daemons;
mod demo;
mod house_rules;
mod job_json;
mod job_logs;
mod job_timings;
mod jobs;
mod licenses;
mod listing;
mod migrations;
mod model;
mod plans;
mod postgres;
mod queries;
mod random_database;
mod readme;
mod round_trips;
mod schema;
mod service;
mod settings;
mod support;
