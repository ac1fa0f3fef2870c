//! What stands in a path.

use std::str::FromStr;

use uuid::Uuid;

use super::{error::Failure, session::Session};
use crate::{
    authz::ReadOrganizations,
    model::{NameOrId, Organization, OrganizationId},
    store::{PgConnection, organizations},
};

/// The organization that is meant: an id, a name, or `default`.
pub(super) async fn organization(
    conn: &mut PgConnection,
    session: &Session,
    named: &str,
) -> Result<Organization, Failure> {
    let permit = ReadOrganizations::check(&session.actor);
    let Ok(meant) = named.parse::<NameOrId<OrganizationId>>();
    let found = match meant {
        NameOrId::Id(OrganizationId(id)) if id.is_nil() => organizations::default(conn, &permit).await,
        NameOrId::Name(name) if name == "default" => organizations::default(conn, &permit).await,
        meant => organizations::resolve(conn, &permit, &meant).await,
    };
    found.map_err(|error| Failure::from(error).at(&format!("Internal error fetching organization \"{named}\".")))
}

/// An id in a path.
pub(super) fn id<Id: From<Uuid>>(raw: &str) -> Result<Id, Failure> {
    Uuid::from_str(raw)
        .map(Id::from)
        .map_err(|why| Failure::bad_request(format!("Invalid UUID \"{raw}\".")).detail(why.to_string()))
}
