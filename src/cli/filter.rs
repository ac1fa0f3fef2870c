//! The arguments that choose jobs, shared by all commands about jobs.

use clap::{ArgMatches, Args, FromArgMatches, parser::ValueSource};
use clap_complete::ArgValueCompleter;
use time::OffsetDateTime;

use super::{
    complete,
    error::{CliError, FAILED, USAGE},
    organization::OrganizationArg,
    resolve::{OPERATOR, me},
    table::one_line,
    values::{filled, tag, values},
};
use crate::{
    model::{JobFilter, JobId, JobStatus, NameOrId, Organization, TemplateId, Transition, UserRef, WorkspaceId},
    search::{Condition, Query, ResolveError, Term},
    store::PgConnection,
};

/// The organization, and which of its jobs. What is asked for twice, by flags or in the search, is a mistake.
#[derive(Debug)]
pub(super) struct Filter {
    flags: Box<Flags>,
    /// The keys of what only variables ask for: the search may ask for something else.
    defaults: Vec<&'static str>,
}

impl FromArgMatches for Filter {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_default = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
        let keys = [("status", "status"), ("initiator", "initiator"), ("org", "organization")];
        let defaults = keys.into_iter().filter(|(id, _)| is_default(id)).map(|(_, key)| key).collect();
        Ok(Self { flags: Box::new(Flags::from_arg_matches(matches)?), defaults })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Filter {
    fn augment_args(command: clap::Command) -> clap::Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Flags::augment_args_for_update(command)
    }
}

#[derive(Debug, Args)]
struct Flags {
    /// Only jobs with one of these statuses
    #[arg(short, long, value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = values::<JobStatus>(JobStatus::ALL.iter().map(|v| v.as_str())))]
    status: Vec<JobStatus>,
    // In a comment, it would lose its full stop.
    #[arg(short, long, help = "Filter by initiator (user ID or username).", value_name = "USER", value_parser = filled::<UserRef>())]
    initiator: Option<UserRef>,
    /// Only jobs whose build does this to its workspace
    #[arg(long, ignore_case = true, value_parser = values::<Transition>(Transition::ALL.iter().map(|v| v.as_str())))]
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

impl Filter {
    /// All that was asked for as one query: a flag is another way to write a term.
    pub(super) fn query(self) -> Result<Query, CliError> {
        let (flags, defaults) = (*self.flags, self.defaults);
        let list = |is_empty: bool, condition| (!is_empty).then_some(condition);
        let asked = [
            list(flags.status.is_empty(), Condition::Status(flags.status)),
            flags.initiator.map(Condition::Initiator),
            flags.transition.map(Condition::Transition),
            flags.template.map(Condition::Template),
            flags.workspace.map(Condition::Workspace),
            list(flags.ids.is_empty(), Condition::Id(flags.ids)),
            flags.organization.org.map(Condition::Organization),
        ];
        let tags = flags.tags.into_iter().map(|(key, value)| Condition::Tag(key, value));
        let mut query = flags.search.unwrap_or_default();
        let searched: Vec<_> = query.terms().iter().map(|term| term.condition.key()).collect();
        for condition in asked.into_iter().flatten().chain(tags) {
            if defaults.contains(&condition.key()) && searched.contains(&condition.key()) {
                continue;
            }
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
                Self::new(FAILED, said).next(one_line(&format!("name one of them: {}", candidates.join(", "))))
            }
        }
    }
}
