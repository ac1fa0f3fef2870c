//! Integration tests.
mod postgres;
