//! coderdb: under construction.

pub mod migrate;
pub mod model;
pub mod store;

pub use sqlx;
