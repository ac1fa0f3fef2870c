//! coderdb: under construction.
