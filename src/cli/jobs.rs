//! `coderdb provisioner jobs`.

use std::{process::ExitCode, str::FromStr};

use clap::{Args, Subcommand, ValueEnum, builder::TypedValueParser};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    connect::connect,
    error::CliError,
    output::{Output, note, print, print_json, table},
    resolve::{self, OPERATOR, OrganizationArg},
};
use crate::{
    authz::ReadJobs,
    model::{
        JobDetails, JobFilter, JobId, JobStatus, NameOrId, Organization, PageRequest, Tags, TemplateId, Transition,
        UserRef, WorkspaceId,
    },
    store::jobs,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the newest jobs of an organization, oldest of them first
    #[command(visible_alias = "ls")]
    #[command(after_help = "Examples:\n  coderdb provisioner jobs list\n  coderdb provisioner jobs list --initiator \
                            prebuilds --status pending\n  coderdb provisioner jobs list --workspace alice/dev \
                            --transition start -o json\n  coderdb provisioner jobs list -c 'id,status,worker \
                            name,error code' --limit 0\n\n`--initiator me` is the user that CODERDB_USER names.")]
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only jobs with one of these statuses
    #[arg(short, long, value_delimiter = ',', env = "CODER_PROVISIONER_JOB_LIST_STATUS")]
    #[arg(value_parser = values::<JobStatus>(JobStatus::ALL.iter().map(|v| v.as_str())))]
    status: Vec<JobStatus>,
    /// At most so many jobs, the newest ones; 0 for all
    #[arg(short, long, default_value = "50", env = "CODER_PROVISIONER_JOB_LIST_LIMIT", allow_negative_numbers = true)]
    limit: u32,
    /// Filter by initiator (user ID or username).
    #[arg(short, long, value_name = "USER", env = "CODER_PROVISIONER_JOB_LIST_INITIATOR")]
    initiator: Option<UserRef>,
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
    /// The columns of the table
    #[arg(short = 'c', long = "column", value_enum, value_delimiter = ',', default_values_t = Column::DEFAULT)]
    columns: Vec<Column>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// A parser for a closed set, whose values the help and the errors list.
fn values<T>(all: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
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

/// The columns, in the order of domain 11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Column {
    #[value(name = "id")]
    Id,
    #[value(name = "created at")]
    CreatedAt,
    #[value(name = "started at")]
    StartedAt,
    #[value(name = "completed at")]
    CompletedAt,
    #[value(name = "canceled at")]
    CanceledAt,
    #[value(name = "error")]
    Error,
    #[value(name = "error code")]
    ErrorCode,
    #[value(name = "status")]
    Status,
    #[value(name = "worker id")]
    WorkerId,
    #[value(name = "worker name")]
    WorkerName,
    #[value(name = "file id")]
    FileId,
    #[value(name = "tags")]
    Tags,
    #[value(name = "queue position")]
    QueuePosition,
    #[value(name = "queue size")]
    QueueSize,
    #[value(name = "organization id")]
    OrganizationId,
    #[value(name = "initiator id")]
    InitiatorId,
    #[value(name = "template version id")]
    TemplateVersionId,
    #[value(name = "workspace build id")]
    WorkspaceBuildId,
    #[value(name = "type")]
    Type,
    #[value(name = "available workers")]
    AvailableWorkers,
    #[value(name = "template version name")]
    TemplateVersionName,
    #[value(name = "template id")]
    TemplateId,
    #[value(name = "template name")]
    TemplateName,
    #[value(name = "template display name")]
    TemplateDisplayName,
    #[value(name = "template icon")]
    TemplateIcon,
    #[value(name = "workspace id")]
    WorkspaceId,
    #[value(name = "workspace name")]
    WorkspaceName,
    #[value(name = "workspace build transition")]
    WorkspaceBuildTransition,
    #[value(name = "logs overflowed")]
    LogsOverflowed,
    #[value(name = "organization")]
    Organization,
    #[value(name = "queue")]
    Queue,
}

impl Column {
    /// What is shown when nobody chooses.
    pub(super) const DEFAULT: [Self; 7] =
        [Self::CreatedAt, Self::Id, Self::Type, Self::TemplateDisplayName, Self::Status, Self::Queue, Self::Tags];

    fn heading(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn cell(self, details: &JobDetails, organization: &Organization) -> String {
        let job = &details.job;
        match self {
            Self::Id => job.id.to_string(),
            Self::CreatedAt => at(Some(job.created_at)),
            Self::StartedAt => at(job.started_at),
            Self::CompletedAt => at(job.completed_at),
            Self::CanceledAt => at(job.canceled_at),
            Self::Error => text(job.error.as_ref()),
            Self::ErrorCode => text(job.error_code.as_ref()),
            Self::Status => job.status.to_string(),
            Self::WorkerId => text(job.worker_id),
            Self::WorkerName => details.worker_name.clone(),
            Self::FileId => job.file_id.to_string(),
            Self::Tags => job.tags.to_string(),
            Self::QueuePosition => details.queue_position.to_string(),
            Self::QueueSize => details.queue_size.to_string(),
            Self::OrganizationId => job.organization_id.to_string(),
            Self::InitiatorId => job.initiator_id.to_string(),
            Self::TemplateVersionId => text(job.input.template_version_id),
            Self::WorkspaceBuildId => text(job.input.workspace_build_id),
            Self::Type => job.job_type.to_string(),
            Self::AvailableWorkers => {
                details.available_workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
            Self::TemplateVersionName => details.template_version_name.clone(),
            Self::TemplateId => text(details.template_id),
            Self::TemplateName => details.template_name.clone(),
            Self::TemplateDisplayName => details.template_display_name.clone(),
            Self::TemplateIcon => details.template_icon.clone(),
            Self::WorkspaceId => text(details.workspace_id),
            Self::WorkspaceName => details.workspace_name.clone(),
            Self::WorkspaceBuildTransition => text(details.workspace_build_transition),
            Self::LogsOverflowed => job.logs_overflowed.to_string(),
            Self::Organization => organization.name.clone(),
            Self::Queue if job.status == JobStatus::Pending => {
                format!("{}/{}", details.queue_position, details.queue_size)
            }
            Self::Queue => String::new(),
        }
    }
}

fn at(time: Option<OffsetDateTime>) -> String {
    text(time.and_then(|time| time.format(&Rfc3339).ok()))
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

pub(super) async fn run(Command::List(args): Command) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let mut filter = JobFilter { status: args.status, ids: args.ids, ..JobFilter::default() };
    filter.transition = args.transition;
    filter.tags = (!args.tags.is_empty()).then(|| Tags::from_iter(args.tags));
    if let Some(initiator) = args.initiator.filter(|user| *user != UserRef::Username(String::new())) {
        filter.initiator = Some(resolve::user(&mut database, "initiator", &initiator).await?.id);
    }
    if let Some(template) = &args.template {
        filter.template = Some(resolve::template(&mut database, organization.id, template).await?);
    }
    if let Some(workspace) = &args.workspace {
        filter.workspace = Some(resolve::workspace(&mut database, organization.id, workspace).await?);
    }
    let page = PageRequest { limit: (args.limit > 0).then_some(args.limit), after: None };
    let mut jobs = jobs::list(&mut database, &ReadJobs::check(&OPERATOR, organization.id)?, &filter, page).await?.rows;
    // The limit keeps the newest; people read them oldest first.
    jobs.sort_by_key(|details| details.job.created_at);
    match args.output {
        Output::Json => print_json(&jobs.iter().map(|job| Listed::new(job, &organization)).collect::<Vec<_>>())?,
        Output::Table if jobs.is_empty() => note("No provisioner jobs found"),
        Output::Table => print(&job_table(&args.columns, &jobs, &organization))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// A line per job.
pub(super) fn job_table(columns: &[Column], jobs: &[JobDetails], organization: &Organization) -> String {
    let headings: Vec<_> = columns.iter().map(|column| column.heading()).collect();
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    table(&headings, jobs.iter().map(|job| columns.iter().map(|column| column.cell(job, organization))))
}

/// The JSON of a job (domain 10.3), with the name of its organization (domain 11.1).
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    job: &'a JobDetails,
    organization_name: &'a str,
}

impl<'a> Listed<'a> {
    fn new(job: &'a JobDetails, organization: &'a Organization) -> Self {
        Self { job, organization_name: &organization.name }
    }
}
