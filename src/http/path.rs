//! The parameters in a path.

use std::str::FromStr;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{error::Failure, session::Session};
use crate::{
    authz::ReadOrganizations,
    model::{NameOrId, Organization, OrganizationId},
    store::{PgConnection, organizations},
};

/// The parts of a path, as texts. What is no UTF-8 is answered like every other fault.
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(parts)) => Ok(Self(parts)),
            Err(rejection) => Err(Failure::bad_request("Invalid path.").detail(rejection.body_text())),
        }
    }
}

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
