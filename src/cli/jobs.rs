//! `coderdb provisioner jobs`.

mod cancel;
mod get;
mod logs;
mod watch;

use std::{io, process::ExitCode};

use anstyle::AnsiColor;
use clap::{Args, Subcommand, ValueEnum, builder::EnumValueParser};
use indicatif::HumanDuration;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    connect::connect,
    error::{CliError, FAILED, USAGE},
    filter::{self, Filter, Trimmed},
    output::{Array, Format, json_lines, note, print, print_on, printable, rfc_3339},
    queue::{Queue, Reasons},
    resolve::OPERATOR,
    table::{Cell, Heading, Medium, Table, Truncation, one_line},
};
use crate::{
    authz::ReadJobs,
    model::{JobDetails, JobId, JobStatus, Label, Organization, PageRequest, ProvisionerType, Tags, WhyWaiting},
    store::jobs,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the newest jobs of an organization, oldest of them first
    #[command(visible_alias = "ls")]
    #[command(after_help = "Examples:\n  coderdb provisioner jobs list\n  coderdb provisioner jobs list --initiator \
                            prebuilds --status pending\n  coderdb provisioner jobs list --search \
                            'workspace:dave/api -status:pending'\n  coderdb provisioner \
                            jobs list -c 'id,status,worker name' --all -o csv\n\n`--initiator me` is \
                            the user that CODERDB_USER names. docs/search.md has the grammar of --search.")]
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
    /// At most so many jobs, the newest ones, oldest of them first; 50 if absent, 0 is --all
    #[arg(short, long, env = "CODER_PROVISIONER_JOB_LIST_LIMIT", allow_negative_numbers = true)]
    limit: Option<u32>,
    /// All jobs, newest first, as they are read
    #[arg(short, long)]
    all: bool,
    /// The columns of table, wide and csv
    #[arg(short = 'c', long = "column", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = Trimmed(EnumValueParser::<Column>::new()))]
    columns: Vec<Column>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// The columns, in the order of Coder's command line, and then others (domain: command line).
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
    #[value(name = "provisioner")]
    Provisioner,
}

impl Column {
    /// What is shown on a wide screen when nobody chooses.
    const WIDE: [Self; 15] = [
        Self::CreatedAt,
        Self::Id,
        Self::Type,
        Self::Provisioner,
        Self::TemplateDisplayName,
        Self::WorkspaceName,
        Self::WorkspaceBuildTransition,
        Self::Status,
        Self::Queue,
        Self::WorkerName,
        Self::StartedAt,
        Self::CompletedAt,
        Self::Tags,
        Self::ErrorCode,
        Self::Error,
    ];

    /// What is shown when nobody chooses.
    pub(super) const DEFAULT: [Self; 7] =
        [Self::CreatedAt, Self::Id, Self::Type, Self::TemplateDisplayName, Self::Status, Self::Queue, Self::Tags];

    fn titled(self) -> Heading {
        Heading { text: self.heading(), truncation: self.truncation() }
    }

    fn heading(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// An id is of use only when it is whole, and others say much more then.
    const fn truncation(self) -> Truncation {
        match self {
            Self::Id => Truncation::Last,
            Self::CreatedAt | Self::Status | Self::Queue | Self::ErrorCode => Truncation::Later,
            _ => Truncation::First,
        }
    }

    fn cell(self, row: &Row<'_>) -> Cell {
        let (details, job) = (row.details, &row.details.job);
        match self {
            Self::Id => job.id.to_string(),
            Self::CreatedAt => row.at(Some(job.created_at)),
            Self::StartedAt => row.at(job.started_at),
            Self::CompletedAt => row.at(job.completed_at),
            Self::CanceledAt => row.at(job.canceled_at),
            Self::Error => text(job.error.as_ref()),
            Self::ErrorCode => text(job.error_code.as_ref()),
            Self::Status => return Cell::colored(job.status.to_string(), color(job.status)),
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
            Self::Provisioner => job.provisioner.to_string(),
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
            Self::WorkspaceBuildTransition => text(details.workspace_build_transition.as_ref()),
            Self::LogsOverflowed => job.logs_overflowed.to_string(),
            Self::Organization => row.organization.name.clone(),
            Self::Queue => match row.queue.why(details).filter(WhyWaiting::is_stuck) {
                Some(why) => {
                    let why = if row.is_explained { format!(": {why}") } else { String::new() };
                    return Cell::colored(row.queue.position(details) + &why, AnsiColor::Red);
                }
                None => row.queue.position(details),
            },
        }
        .into()
    }
}

const fn color(status: JobStatus) -> AnsiColor {
    match status {
        JobStatus::Pending => AnsiColor::Yellow,
        JobStatus::Running => AnsiColor::Blue,
        JobStatus::Succeeded => AnsiColor::Green,
        JobStatus::Failed => AnsiColor::Red,
        JobStatus::Canceling | JobStatus::Canceled | JobStatus::Unknown => AnsiColor::BrightBlack,
    }
}

/// A job and what its cells need to know besides.
struct Row<'a> {
    details: &'a JobDetails,
    organization: &'a Organization,
    queue: &'a Queue,
    /// Whether the cell of the queue says why a job is stuck.
    is_explained: bool,
    /// The moment from which a person looks back; `None` for exact times.
    now: Option<OffsetDateTime>,
}

impl Row<'_> {
    fn at(&self, time: Option<OffsetDateTime>) -> String {
        match (time, self.now) {
            (Some(time), Some(now)) => ago(now, time),
            (time, _) => text(time.map(rfc_3339)),
        }
    }

    fn cells(&self, columns: &[Column]) -> Vec<Cell> {
        columns.iter().map(|column| column.cell(self)).collect()
    }
}

/// How long ago, as people say it.
fn ago(now: OffsetDateTime, time: OffsetDateTime) -> String {
    let length = HumanDuration((now - time).unsigned_abs());
    if time > now { format!("in {length}") } else { format!("{length} ago") }
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The id that is meant, in the words of Coder's command line (domain: command line).
fn job_id(text: &str) -> Result<JobId, CliError> {
    text.trim().parse().map_err(|_| CliError::new(USAGE, format!("invalid job ID: {}", one_line(text))))
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

/// How many jobs are read at once when all are wanted: memory does not grow with their number.
const PAGE: u32 = 2_000;

/// How many jobs are listed when nobody says (domain: command line).
const LIMIT: u32 = 50;

async fn list(args: List) -> Result<ExitCode, CliError> {
    let query = args.filter.query()?;
    let mut database = connect().await?;
    let (organization, filter) = filter::resolve(&mut database, &query).await?;
    let permit = ReadJobs::check(&OPERATOR, organization.id)?;
    let mut printer = Printer::new(args.output, args.columns, organization);
    let limit = if args.all { 0 } else { args.limit.unwrap_or(LIMIT) };
    let mut page = PageRequest::first(if limit == 0 { PAGE } else { limit });
    let mut is_cut = false;
    loop {
        let listed = jobs::list(&mut database, &permit, &filter, page).await?;
        is_cut |= listed.next.is_some() && limit > 0;
        let next = listed.next.filter(|_| limit == 0);
        let mut rows = listed.rows;
        if limit > 0 {
            // The limit keeps the newest; people read them oldest first.
            rows.sort_by_key(|details| (details.job.created_at, details.job.id));
        }
        printer.queue.look_up(&mut database, permit.organization(), &rows, OffsetDateTime::now_utc()).await?;
        match next {
            Some(next) if printer.page(&rows)? => page = PageRequest::after(next, PAGE),
            Some(_) => break,
            None => {
                printer.page(&rows)?;
                break;
            }
        }
    }
    printer.finish()?;
    // Whoever gave a limit knows of it.
    if is_cut && args.limit.is_none() {
        note(&format!("the newest {LIMIT} are shown; --all shows the rest"));
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Prints jobs page by page.
struct Printer {
    format: Format,
    columns: Vec<Column>,
    organization: Organization,
    queue: Queue,
    reasons: Reasons,
    table: Table,
    array: Array,
    now: Option<OffsetDateTime>,
    /// How many jobs it has printed.
    count: u64,
}

impl Printer {
    fn new(format: Format, columns: Vec<Column>, organization: Organization) -> Self {
        let columns = match format {
            _ if !columns.is_empty() => columns,
            Format::Wide => Column::WIDE.to_vec(),
            _ => Column::DEFAULT.to_vec(),
        };
        let medium = Medium::stdout();
        let medium = if format == Format::Table { medium } else { Medium { width: None, ..medium } };
        Self {
            table: Table::new(columns.iter().map(|column| column.titled()), medium),
            now: (format == Format::Table && medium.is_live).then(OffsetDateTime::now_utc),
            array: Array::default(),
            format,
            columns,
            organization,
            queue: Queue::default(),
            reasons: Reasons::default(),
            count: 0,
        }
    }

    /// Prints these, and says whether anybody reads on.
    fn page(&mut self, jobs: &[JobDetails]) -> Result<bool, CliError> {
        let is_first = self.count == 0;
        self.count += jobs.len() as u64;
        let listed = |job| Listed::new(job, &self.organization, &self.queue);
        let mut text = String::new();
        match self.format {
            Format::Table | Format::Wide if jobs.is_empty() => {}
            Format::Table | Format::Wide => {
                let (queue, is_explained) = (&self.queue, self.format == Format::Wide);
                let (organization, now) = (&self.organization, self.now);
                let cells = |details| Row { details, organization, queue, is_explained, now }.cells(&self.columns);
                text = self.table.page(jobs.iter().map(cells).collect());
                self.reasons.count(jobs, &self.queue);
            }
            Format::Json => text = self.array.push(jobs.iter().map(listed))?,
            Format::Jsonl => text = json_lines(jobs.iter().map(listed))?,
            Format::Csv => text = self.csv(jobs, is_first)?,
            Format::Name => text.extend(jobs.iter().map(|job| format!("{}\n", job.job.id))),
        }
        print_on(&text)
    }

    fn csv(&self, jobs: &[JobDetails], is_first: bool) -> Result<String, CliError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if is_first {
            writer.write_record(self.columns.iter().map(|column| column.heading())).map_err(io::Error::from)?;
        }
        for details in jobs {
            let (organization, queue) = (&self.organization, &self.queue);
            let row = Row { details, organization, queue, is_explained: false, now: None };
            let cells = row.cells(&self.columns).into_iter().map(|cell| printable(cell.text()));
            writer.write_record(cells).map_err(io::Error::from)?;
        }
        let bytes = writer.into_inner().map_err(|error| CliError::new(FAILED, error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| CliError::new(FAILED, error.to_string()))
    }

    /// Prints what comes behind the last job.
    fn finish(&self) -> Result<(), CliError> {
        match self.format {
            Format::Json => print(self.array.end()),
            Format::Table | Format::Wide if self.count == 0 => {
                note("No provisioner jobs found");
                Ok(())
            }
            Format::Table => {
                self.reasons.tell();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A line per job, the same at any time and on any terminal.
pub(super) fn job_table(columns: &[Column], jobs: &[JobDetails], organization: &Organization, queue: &Queue) -> String {
    let row = |details| Row { details, organization, queue, is_explained: false, now: None };
    let rows = jobs.iter().map(|details| row(details).cells(columns));
    Table::new(columns.iter().map(|column| column.titled()), Medium::default()).page(rows.collect())
}

/// The JSON of a job (domain: job json), with the name of its organization (domain: command line), and why it waits
/// (domain: reasons beside positions).
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    job: &'a JobDetails,
    organization_name: &'a str,
    provisioner: &'a Label<ProvisionerType>,
    queue_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_tags: Option<Tags>,
}

impl<'a> Listed<'a> {
    fn new(job: &'a JobDetails, organization: &'a Organization, queue: &Queue) -> Self {
        let why = queue.why(job);
        let queue_state = why.as_ref().map_or("not_queued", WhyWaiting::as_str);
        let missing_tags = match why {
            Some(WhyWaiting::NoDaemonHasTags { missing, .. }) => Some(missing),
            _ => None,
        };
        let (organization_name, provisioner) = (&organization.name, &job.job.provisioner);
        Self { job, organization_name, provisioner, queue_state, missing_tags }
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn a_person_reads_how_long_ago() {
        let now = datetime!(2026-05-07 12:00 UTC);
        for (time, said) in [
            (now - Duration::seconds(5), "5 seconds ago"),
            (now - Duration::hours(2), "2 hours ago"),
            (now - Duration::days(3), "3 days ago"),
            (now + Duration::minutes(10), "in 10 minutes"),
            (now, "0 seconds ago"),
        ] {
            assert_eq!(ago(now, time), said);
        }
    }
}
