//! Integration tests.

mod job_json;
mod listing;
mod model;
mod random_database;
mod support;
