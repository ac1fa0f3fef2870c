//! Which permits may lag is decided where permits are.

struct Anything;

impl coderdb::authz::MayLag for Anything {}

fn main() {}
