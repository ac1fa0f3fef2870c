//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod queries;
mod schema;
mod support;
