//! Which jobs: the same arguments wherever jobs are chosen.

use std::str::FromStr;

use clap::{Args, builder::TypedValueParser};

use super::{
    error::CliError,
    resolve::{self, OrganizationArg},
};
use crate::{
    model::{JobFilter, JobId, JobStatus, NameOrId, Organization, Tags, TemplateId, Transition, UserRef, WorkspaceId},
    store::PgConnection,
};

/// The organization, and which of its jobs.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only jobs with one of these statuses
    #[arg(short, long, value_delimiter = ',')]
    #[arg(value_parser = values::<JobStatus>(JobStatus::ALL.iter().map(|v| v.as_str())))]
    status: Vec<JobStatus>,
    /// Filter by initiator (user ID or username).
    #[arg(short, long, value_name = "USER")]
    pub(super) initiator: Option<UserRef>,
    /// Only jobs whose build does this to its workspace
    #[arg(long, value_parser = values::<Transition>(Transition::ALL.iter().map(|v| v.as_str())))]
    transition: Option<Transition>,
    /// Only jobs with a version of this template, by name or id
    #[arg(long)]
    template: Option<NameOrId<TemplateId>>,
    /// Only jobs that build this workspace, by name, owner/name or id
    #[arg(long)]
    workspace: Option<NameOrId<WorkspaceId>>,
    /// Only jobs with this tag; several must all be there
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Only these jobs
    #[arg(long = "id", value_name = "JOB", value_delimiter = ',')]
    ids: Vec<JobId>,
    #[command(flatten)]
    organization: OrganizationArg,
}

/// A parser for a closed set, whose values the help and the errors list.
pub(super) fn values<T>(all: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    clap::builder::PossibleValuesParser::new(all.collect::<Vec<_>>()).try_map(|text| text.parse())
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

impl Filter {
    /// The organization and the filter that are meant: one round trip for each name among them.
    pub(super) async fn resolve(self, conn: &mut PgConnection) -> Result<(Organization, JobFilter), CliError> {
        let organization = self.organization.resolve(conn).await?;
        let mut filter = JobFilter { status: self.status, ids: self.ids, ..JobFilter::default() };
        filter.transition = self.transition;
        filter.tags = (!self.tags.is_empty()).then(|| Tags::from_iter(self.tags));
        if let Some(initiator) = self.initiator.filter(|user| *user != UserRef::Username(String::new())) {
            filter.initiator = Some(resolve::user(conn, "initiator", &initiator).await?.id);
        }
        if let Some(template) = &self.template {
            filter.template = Some(resolve::template(conn, organization.id, template).await?);
        }
        if let Some(workspace) = &self.workspace {
            filter.workspace = Some(resolve::workspace(conn, organization.id, workspace).await?);
        }
        Ok((organization, filter))
    }
}
