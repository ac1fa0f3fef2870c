//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod cli;
mod demo;
mod house_rules;
mod job_json;
mod job_logs;
mod job_timings;
mod jobs;
mod listing;
mod migrations;
mod model;
mod postgres;
mod queries;
mod random_database;
mod readme;
mod schema;
mod service;
mod support;
