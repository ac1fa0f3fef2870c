//! Who asks: users with their roles (domain: roles).

use serde_json::Value;
use sqlx::PgConnection;

use super::{Error, Result, StoredJson, Text, query::Query as _};
use crate::{
    authz::{Actor, CustomPermission, LoadActors},
    model::{Entity, OrganizationId, UserId},
};

struct RolesRow {
    site_roles: Vec<Text>,
    organization_id: Option<OrganizationId>,
    organization_roles: Option<Vec<Text>>,
    custom_roles: Option<StoredJson>,
}

impl RolesRow {
    fn membership(self) -> Option<(OrganizationId, Vec<String>, Vec<CustomPermission>)> {
        let permissions = permissions(&self.custom_roles.and_then(|stored| stored.0).unwrap_or_default());
        Some((self.organization_id?, texts(self.organization_roles?), permissions))
    }
}

pub(super) fn texts(stored: Vec<Text>) -> Vec<String> {
    stored.into_iter().map(String::from).collect()
}

/// The permissions in a list of lists. What does not look like one gives nothing.
pub(super) fn permissions(roles: &Value) -> Vec<CustomPermission> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let permission = |stored: Value| {
        let text = |key: &str| Some(stored.get(key)?.as_str()?.to_owned());
        let negate = stored.get("negate").is_some_and(|negate| *negate == Value::Bool(true));
        Some(CustomPermission { negate, resource_type: text("resource_type")?, action: text("action")? })
    };
    list(roles).iter().flat_map(list).filter_map(permission).collect()
}

/// The user as an actor, with the roles that the database holds now, the custom roles of organizations included. One round
/// trip.
///
/// # Errors
/// [`Error::NotFound`] when there is no such user, or the user is deleted or suspended and may do nothing.
#[tracing::instrument(name = "db.actors.load", skip_all)]
pub async fn load(conn: &mut PgConnection, _permit: &LoadActors, user: UserId) -> Result<Actor> {
    let rows = sqlx::query_file_as!(RolesRow, "queries/actors/load.sql", user.0)
        .fetch_all(conn)
        .of_query("actors/load")
        .await?;
    let Some(first) = rows.first() else { return Err(Error::not_found(Entity::User, user)) };
    let site = texts(first.site_roles.clone());
    Ok(Actor::user(user, &site, rows.into_iter().filter_map(RolesRow::membership)))
}
