//! What people name on the command line, as ids.

use std::env;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::{
    complete,
    error::{CliError, FAILED},
    filter::filled,
};
use crate::{
    authz::{Actor, ReadOrganizations, ReadUsers, System},
    model::{NameOrId, Organization, OrganizationId, User, UserRef},
    store::{self, PgConnection, organizations, users},
};

/// Whoever runs the command line has the password of the database.
pub(super) const OPERATOR: Actor = Actor::system(System::Operator);

#[derive(Debug, Args)]
pub(super) struct OrganizationArg {
    /// The organization, by name or id; the default organization if absent
    #[arg(short = 'O', long = "org", value_name = "ORGANIZATION", env = "CODER_ORGANIZATION")]
    #[arg(value_parser = filled::<NameOrId<OrganizationId>>())]
    #[arg(add = ArgValueCandidates::new(complete::organizations))]
    pub(super) org: Option<NameOrId<OrganizationId>>,
}

impl OrganizationArg {
    pub(super) async fn resolve(&self, conn: &mut PgConnection) -> Result<Organization, CliError> {
        match &self.org {
            Some(organization) => {
                Ok(organizations::resolve(conn, &ReadOrganizations::of(&OPERATOR), organization).await?)
            }
            None => default(conn).await,
        }
    }
}

async fn default(conn: &mut PgConnection) -> Result<Organization, CliError> {
    match organizations::default(conn, &ReadOrganizations::of(&OPERATOR)).await {
        Err(store::Error::NotFound { .. }) => Err(CliError::no_default_organization()),
        found => Ok(found?),
    }
}

/// What to do about a `me` that is nobody.
pub(super) const WHO_IS_ME: &str = "set CODERDB_USER to the username or id that `me` stands for";

/// Whoever `me` is, if `CODERDB_USER` says so.
pub(super) fn me() -> Option<UserRef> {
    let me = env::var_os("CODERDB_USER").filter(|me| !me.is_empty());
    me.and_then(|me| me.to_string_lossy().parse().ok())
}

/// The user that the text means: an id, a username, or `me`, which `CODERDB_USER` defines.
pub(super) async fn user(conn: &mut PgConnection, what: &str, text: &UserRef) -> Result<User, CliError> {
    match users::resolve(conn, &ReadUsers::check(&OPERATOR)?, text, me().as_ref()).await {
        Err(store::Error::NotFound { key, .. }) => {
            let error = CliError::new(FAILED, format!("{what} not found: {key}"));
            Err(if key == "me" { error.next(WHO_IS_ME) } else { error })
        }
        found => Ok(found?),
    }
}
