//! `coderdb provisioner jobs`.

mod cancel;
mod get;
mod logs;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    connect::connect,
    error::CliError,
    filter::Filter,
    output::{Output, note, print, print_json, table},
    resolve::OPERATOR,
};
use crate::{
    authz::ReadJobs,
    model::{JobDetails, JobStatus, Organization, PageRequest},
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
    Get(get::Args),
    Cancel(cancel::Args),
    Logs(logs::Args),
    Watch(watch::Args),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// At most so many jobs, the newest ones; 0 for all
    #[arg(short, long, default_value = "50", env = "CODER_PROVISIONER_JOB_LIST_LIMIT", allow_negative_numbers = true)]
    limit: u32,
    /// The columns of the table
    #[arg(short = 'c', long = "column", value_enum, value_delimiter = ',', default_values_t = Column::DEFAULT)]
    columns: Vec<Column>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
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

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::List(args) => list(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Cancel(args) => cancel::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Watch(args) => watch::run(args).await,
    }
}

async fn list(args: List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let (organization, filter) = args.filter.resolve(&mut database).await?;
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
