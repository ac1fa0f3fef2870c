//! Users (domain: users).

use sqlx::PgConnection;

use super::{Error, Result, input, query::Query as _};
use crate::{
    authz::ReadUsers,
    model::{Entity, User, UserId, UserRef},
};

/// The user with this id, also a deleted one. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach it.
#[tracing::instrument(name = "db.users.get", skip_all)]
pub async fn get(conn: &mut PgConnection, permit: &ReadUsers, id: UserId) -> Result<User> {
    sqlx::query_file_as!(User, "queries/users/get.sql", id.0)
        .fetch_optional(conn)
        .of_query("users/get")
        .await?
        .filter(|user| permit.reaches(user.id))
        .ok_or_else(|| Error::not_found(Entity::User, id))
}

/// The user with this name in any case, deleted ones left out. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, or the permit does not reach it.
#[tracing::instrument(name = "db.users.by_username", skip_all)]
pub async fn by_username(conn: &mut PgConnection, permit: &ReadUsers, username: &str) -> Result<User> {
    input::text("username", username)?;
    sqlx::query_file_as!(User, "queries/users/by_username.sql", username)
        .fetch_optional(conn)
        .of_query("users/by_username")
        .await?
        .filter(|user| permit.reaches(user.id))
        .ok_or_else(|| Error::not_found(Entity::User, username))
}

/// The user that a person means (domain: users); `me` is the caller, if `me` is given. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is none, and for [`UserRef::Me`] without a caller.
pub async fn resolve(
    conn: &mut PgConnection,
    permit: &ReadUsers,
    user: &UserRef,
    me: Option<&UserRef>,
) -> Result<User> {
    match user {
        UserRef::Id(id) => get(conn, permit, *id).await,
        UserRef::Username(username) => by_username(conn, permit, username).await,
        UserRef::Me => match me {
            Some(UserRef::Id(id)) => get(conn, permit, *id).await,
            Some(UserRef::Username(username)) => by_username(conn, permit, username).await,
            Some(UserRef::Me) | None => Err(Error::not_found(Entity::User, "me")),
        },
    }
}
