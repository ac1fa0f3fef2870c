//! Everything that needs a server, in one program: one server, one template, a clone per test.

mod adopt;
mod authz;
mod cancel;
mod cli;
mod connect;
mod demo;
mod licenses;
mod mcp;
mod migrate;
mod pool;
mod postgres;
mod replica;
mod rules;
mod schema;
mod search;
mod store;
mod support;
mod testing;
mod tools;
mod watch;
