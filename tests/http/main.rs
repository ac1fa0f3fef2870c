//! The HTTP contract: what clients see of each operation. One server, one demo, a copy of it per test.

mod client;
mod jobs;
mod jobs_pages;
mod jobs_search;
#[allow(dead_code, reason = "what only the tests of the library need")]
#[path = "../it/support/mod.rs"]
mod support;
