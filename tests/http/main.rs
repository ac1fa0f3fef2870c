//! The HTTP contract: what clients see of each operation. One server, one demo, a copy of it per test.

mod attack;
mod authz;
mod cancel;
mod cancel_many;
mod client;
mod daemons;
mod document;
mod examples;
mod follow;
mod headers;
mod jobs;
mod jobs_pages;
mod jobs_search;
mod licenses;
mod logs;
mod prebuilds;
mod quota;
mod recipe;
mod secrets;
mod serve;
mod session;
#[allow(dead_code, unused_imports, reason = "what only the tests of the library need")]
#[path = "../it/support/mod.rs"]
mod support;
