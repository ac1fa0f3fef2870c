//! Which jobs: the same arguments wherever jobs are chosen.

use std::{error::Error, str::FromStr};

use clap::{
    Args,
    builder::{StringValueParser, TypedValueParser},
};
use clap_complete::ArgValueCompleter;
use time::OffsetDateTime;

use super::{
    complete,
    error::{CliError, FAILED, USAGE},
    resolve::{OPERATOR, OrganizationArg, me},
};
use crate::{
    model::{JobFilter, JobId, JobStatus, NameOrId, Organization, Tags, TemplateId, Transition, UserRef, WorkspaceId},
    search::{Condition, Query, ResolveError, Term},
    store::PgConnection,
};

/// The organization, and which of its jobs. What is asked for twice, by flags or in the search, is a mistake.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only jobs with one of these statuses
    #[arg(short, long, value_delimiter = ',')]
    #[arg(value_parser = values::<JobStatus>(JobStatus::ALL.iter().map(|v| v.as_str())))]
    status: Vec<JobStatus>,
    /// Filter by initiator (user ID or username).
    #[arg(short, long, value_name = "USER", value_parser = filled::<UserRef>())]
    initiator: Option<UserRef>,
    /// Only jobs whose build does this to its workspace
    #[arg(long, value_parser = values::<Transition>(Transition::ALL.iter().map(|v| v.as_str())))]
    transition: Option<Transition>,
    /// Only jobs with a version of this template, by name or id
    #[arg(long, value_parser = filled::<NameOrId<TemplateId>>())]
    template: Option<NameOrId<TemplateId>>,
    /// Only jobs that build this workspace, by name, owner/name or id
    #[arg(long, value_parser = filled::<NameOrId<WorkspaceId>>())]
    workspace: Option<NameOrId<WorkspaceId>>,
    /// Only jobs with this tag; several must all be there
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Only these jobs
    #[arg(long = "id", value_name = "JOB", value_delimiter = ',')]
    ids: Vec<JobId>,
    /// Only jobs that match, as in `initiator:prebuilds -status:failed created:>1h`
    #[arg(short = 'q', long, value_name = "QUERY", value_parser = filled::<Query>())]
    #[arg(allow_hyphen_values = true)]
    #[arg(add = ArgValueCompleter::new(complete::search))]
    search: Option<Query>,
    #[command(flatten)]
    organization: OrganizationArg,
}

/// A parser for a closed set, whose values the help and the errors list.
pub(super) fn values<T>(all: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    clap::builder::PossibleValuesParser::new(all.collect::<Vec<_>>()).try_map(|text| text.parse())
}

/// A parser for what chooses something: what a script forgot to set must not choose everything.
pub(super) fn filled<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    StringValueParser::new().try_map(|text| -> Result<T, Box<dyn Error + Send + Sync>> {
        if text.trim().is_empty() {
            return Err("it is empty; leave the option out to choose everything".into());
        }
        Ok(text.parse()?)
    })
}

pub(super) fn tag(text: &str) -> Result<(String, String), String> {
    Tags::pair(text).ok_or_else(|| "expected KEY=VALUE".to_owned())
}

impl Filter {
    /// All that was asked for as one query: a flag is another way to write a term.
    pub(super) fn query(self) -> Result<Query, CliError> {
        let list = |is_empty: bool, condition| (!is_empty).then_some(condition);
        let flags = [
            list(self.status.is_empty(), Condition::Status(self.status)),
            self.initiator.map(Condition::Initiator),
            self.transition.map(Condition::Transition),
            self.template.map(Condition::Template),
            self.workspace.map(Condition::Workspace),
            list(self.ids.is_empty(), Condition::Id(self.ids)),
            self.organization.org.map(Condition::Organization),
        ];
        let tags = self.tags.into_iter().map(|(key, value)| Condition::Tag(key, value));
        let mut query = self.search.unwrap_or_default();
        for condition in flags.into_iter().flatten().chain(tags) {
            query
                .push(Term { negated: false, condition })
                .map_err(|problem| CliError::new(USAGE, problem.to_string()))?;
        }
        Ok(query)
    }
}

/// Whether it asks for anything but an organization.
pub(super) fn is_about_jobs(query: &Query) -> bool {
    query.terms().iter().any(|term| !matches!(term.condition, Condition::Organization(_)))
}

/// The organization and the filter that are meant: one round trip for the organization, and one for each name.
pub(super) async fn resolve(conn: &mut PgConnection, query: &Query) -> Result<(Organization, JobFilter), CliError> {
    let (me, now) = (me(), OffsetDateTime::now_utc());
    query.resolve(conn, &OPERATOR, me.as_ref(), now).await.map_err(CliError::from)
}

impl From<ResolveError> for CliError {
    fn from(error: ResolveError) -> Self {
        let said = error.to_string();
        match error {
            ResolveError::Store(error) => error.into(),
            ResolveError::Ambiguous { candidates, .. } => {
                Self::new(FAILED, said).next(format!("name one of them: {}", candidates.join(", ")))
            }
        }
    }
}
