//! The organization that a command is about.

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::{complete, error::CliError, resolve::OPERATOR, values::filled};
use crate::{
    authz::ReadOrganizations,
    model::{NameOrId, Organization, OrganizationId},
    store::{PgConnection, organizations},
};

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
