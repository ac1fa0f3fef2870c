//! Which permits may lag is decided where permits are.

impl coderdb::authz::MayLag for coderdb::authz::ReadQuota {}

fn main() {}
