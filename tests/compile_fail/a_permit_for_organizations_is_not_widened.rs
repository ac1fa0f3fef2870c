//! The one permit that holds several organizations keeps them to itself.

use coderdb::authz::ReadOrganizations;

fn widened(mut permit: ReadOrganizations) -> ReadOrganizations {
    permit.only = None;
    permit
}

fn main() {}
