//! Which permits are replica-safe is decided where permits are.

struct Anything;

impl coderdb::authz::ReplicaSafe for Anything {}

fn main() {}
