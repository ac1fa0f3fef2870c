//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod cli;
mod house_rules;
mod migrations;
mod queries;
mod service;
mod support;
