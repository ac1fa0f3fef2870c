//! coderdb: under construction.
#[cfg(feature = "postgres")]
pub mod postgres;
