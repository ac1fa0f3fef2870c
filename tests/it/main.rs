//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod cli;
mod demo;
mod house_rules;
mod migrations;
mod postgres;
mod queries;
mod readme;
mod schema;
mod service;
mod support;
