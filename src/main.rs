//! The `coderdb` binary.
fn main() {}
