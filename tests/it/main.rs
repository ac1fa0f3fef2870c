//! Integration tests.

mod demo;
mod support;
