//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod migrations;
mod queries;
mod support;
