#![doc = include_str!("../README.md")]

pub mod authz;
#[cfg(any(feature = "cli", feature = "tools"))]
mod bounds;
#[cfg(feature = "watch")]
pub mod cancel;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod connect;
#[cfg(feature = "cli")]
pub mod demo;
mod duration;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "licenses")]
pub mod licenses;
#[cfg(feature = "mcp")]
mod mcp;
pub mod migrate;
pub mod model;
#[cfg(feature = "pool")]
pub mod pool;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod prune;
#[cfg(feature = "replica")]
pub mod replica;
pub mod search;
pub mod store;
// The feature `testing` turns on these two and nothing else, so that a build that has both compiles nothing twice.
#[cfg(all(feature = "pool", feature = "postgres"))]
pub mod testing;
#[cfg(feature = "tools")]
pub mod tools;
#[cfg(feature = "watch")]
pub mod watch;

/// The crates whose types stand in signatures, in the versions that this library takes.
pub use {serde_json, sqlx, time, uuid};
