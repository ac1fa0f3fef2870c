//! `coderdb provisioner jobs`.

mod cancel;
mod column;
mod explain;
mod get;
mod logs;
mod prune;
mod shares;
mod watch;

use std::{io, process::ExitCode};

use clap::{Args, Subcommand, builder::EnumValueParser};
use serde::Serialize;
use time::OffsetDateTime;

pub(super) use self::column::Column;
use self::column::Row;
use super::{
    connect::connect,
    error::{CliError, FAILED, USAGE},
    filter::{self, Filter},
    output::{Array, Format, json_lines, note, print, print_on, printable},
    queue::{Queue, Reasons},
    resolve::OPERATOR,
    table::{Medium, Table, one_line},
    values::Trimmed,
};
use crate::{
    authz::ReadJobs,
    model::{JobDetails, JobId, Label, Organization, PageRequest, ProvisionerType, Tags, WhyWaiting},
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
    Explain(explain::Args),
    Queue(shares::Args),
    Cancel(cancel::Args),
    Logs(logs::Args),
    Prune(prune::Args),
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

/// The id that is meant, in the words of Coder's command line (domain: command line).
fn job_id(text: &str) -> Result<JobId, CliError> {
    text.trim().parse().map_err(|_| CliError::new(USAGE, format!("invalid job ID: {}", one_line(text))))
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::List(args) => list(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Queue(args) => shares::run(args).await,
        Command::Cancel(args) => cancel::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Prune(args) => prune::run(&args).await,
        Command::Watch(args) => watch::run(args).await,
    }
}

/// How many jobs are read at once when all are wanted: memory does not grow with their number.
const PAGE: u32 = 2_000;

/// How many jobs are listed without `--limit` (domain: command line).
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
        if printer.columns.contains(&Column::ExpectedWait) {
            printer.queue.expect(&mut database, permit.organization(), None).await?;
        }
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
    // With `--limit`, the user expects that the list is cut.
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

    /// Prints these jobs. Returns whether the reader is still there.
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
