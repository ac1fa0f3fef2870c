//! coderdb: under construction.

#[cfg(feature = "cli")]
pub mod demo;
pub mod model;
pub mod store;

pub use sqlx;
