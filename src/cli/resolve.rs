//! What people name on the command line, as ids.

use std::env;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::{complete, error::CliError, filter::filled};
use crate::{
    authz::{Actor, ReadOrganizations, ReadUsers, System},
    model::{NameOrId, Organization, OrganizationId, User, UserRef},
    store::{PgConnection, organizations, users},
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
        let permit = ReadOrganizations::check(&OPERATOR);
        Ok(match &self.org {
            Some(organization) => organizations::resolve(conn, &permit, organization).await?,
            None => organizations::default(conn, &permit).await?,
        })
    }
}

/// Whoever `me` is, if `CODERDB_USER` says so.
pub(super) fn me() -> Option<UserRef> {
    let me = env::var_os("CODERDB_USER").filter(|me| !me.is_empty());
    me.and_then(|me| me.to_string_lossy().parse().ok())
}

/// The user that is meant: an id, a username, or `me`, which `CODERDB_USER` defines.
pub(super) async fn user(conn: &mut PgConnection, user: &UserRef) -> Result<User, CliError> {
    Ok(users::resolve(conn, &ReadUsers::check(&OPERATOR)?, user, me().as_ref()).await?)
}
