//! An actor is loaded, or is a part of the product that says which.

fn main() {
    let _ = <coderdb::authz::Actor as Default>::default();
}
