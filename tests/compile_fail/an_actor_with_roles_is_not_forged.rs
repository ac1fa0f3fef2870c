//! Roles come from the database: only `store::actors::load` makes a user.

use coderdb::{authz::Actor, model::UserId};

fn main() {
    let user = UserId::from(uuid::Uuid::nil());
    let _ = Actor::user(user, &["owner".to_owned()], []);
    let _ = Actor(());
}
