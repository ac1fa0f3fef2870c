//! What people name on the command line, as ids.

use std::env;

use super::error::CliError;
use crate::{
    authz::{Actor, ReadUsers, System},
    model::{User, UserRef},
    store::{PgConnection, users},
};

/// The user of the command line has the password of the database, and so may do everything.
pub(super) const OPERATOR: Actor = Actor::system(System::Operator);

/// The user that `CODERDB_USER` names, for `me`; `None` if it is not set.
pub(super) fn me() -> Option<UserRef> {
    let me = env::var_os("CODERDB_USER").filter(|me| !me.is_empty());
    me.and_then(|me| me.to_string_lossy().parse().ok())
}

/// The user that is meant: an id, a username, or `me`, which `CODERDB_USER` defines.
pub(super) async fn user(conn: &mut PgConnection, user: &UserRef) -> Result<User, CliError> {
    Ok(users::resolve(conn, &ReadUsers::check(&OPERATOR)?, user, me().as_ref()).await?)
}
