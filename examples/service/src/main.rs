//! A service that uses the library alone.
fn main() {}
