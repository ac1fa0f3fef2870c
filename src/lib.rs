//! coderdb: under construction.

pub mod model;
pub mod store;

pub use sqlx;
