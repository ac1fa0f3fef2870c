//! `coderdb provisioner jobs cancel`.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use indicatif::{ProgressBar, ProgressStyle};
use time::OffsetDateTime;

use super::super::{
    confirm::is_confirmed,
    connect::{Database, connect},
    error::{CliError, FAILED, USAGE},
    filter::{self, Filter},
    output::{Output, note, print, print_json, table},
    resolve::OPERATOR,
    signals::{EndedBy, Signals},
    values::values,
};
use super::job_id;
use crate::{
    authz::{CancelJobs, ReadJobs},
    cancel::{self, Outcome, Plan, Report, Run, tally},
    model::{Entity, ExpectedStatus, JobId, JobStatus, JobType, Label, Organization},
    store::{self, jobs},
};

/// Ask for jobs to be canceled: named ones, or those that the same filters choose as with `list`
///
/// A job that waits is canceled at once; one that runs, when its daemon notices. With a --status, or a search that
/// leaves out a status, a job that has another one by then is left alone, and so is every job whose status is not the
/// one that --expect-status names.
///
/// Without ids and filters, ids are read from standard input. Run again, it goes on with what is left.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb provisioner jobs cancel c0de0000-0009-4000-8000-000000000031\n  coderdb \
                        provisioner jobs cancel -i prebuilds -s pending --dry-run\n  coderdb \
                        provisioner jobs cancel -i prebuilds -s pending --yes\n  coderdb provisioner \
                        jobs list -s running --all -o name |\n    coderdb provisioner jobs cancel --expect-status \
                        running\n\nExit codes: 0 everything that was chosen is canceled, or was in \
                        another state by then; 1 a job that was named is not canceled; 4 the database was lost on the \
                        way, and what was done is reported.")]
pub(in crate::cli) struct Args {
    /// The ids of jobs; `-` for those on standard input, separated by white space
    #[arg(value_name = "JOB")]
    named: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Leave every job alone whose status is another one
    #[arg(long, value_name = "STATUS", ignore_case = true, value_parser = values::<ExpectedStatus>(ExpectedStatus::ALL.iter().map(|v| v.as_str())))]
    expect_status: Option<ExpectedStatus>,
    /// Say what would be canceled, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before many are canceled
    #[arg(short, long)]
    yes: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    // In a shell loop over ids, standard input has the ids of the next rounds: it is read only if asked for.
    let from_input = args.named.iter().any(|id| id == "-");
    if from_input && args.named.len() > 1 {
        return Err(CliError::new(USAGE, "ids come as arguments or on standard input, not both"));
    }
    let named = if from_input { None } else { ids(args.named.iter().map(String::as_str))? };
    let query = args.filter.query()?;
    let is_filtered = filter::is_about_jobs(&query);
    if is_filtered && !args.named.is_empty() {
        return Err(CliError::new(USAGE, "either ids or filters say which jobs, not both"));
    }
    let named = match named {
        Some(ids) => Some(ids),
        None if is_filtered => None,
        None if from_input || !io::stdin().is_terminal() => Some(ids_of_input()?),
        None => {
            return Err(CliError::new(USAGE, "which jobs?")
                .next("name their ids, or filter them, as `coderdb provisioner jobs list` does"));
        }
    };
    let is_named = named.is_some();
    let is_one =
        matches!((named.as_deref(), from_input, args.dry_run, args.output), (Some([_]), false, false, Output::Table))
            && !args.named.is_empty();
    let wrapped = |error: CliError| if is_one { error.of(WHAT) } else { error };
    let mut database = connect().await.map_err(wrapped)?;
    let (organization, filter) = filter::resolve(&mut database, &query).await.map_err(wrapped)?;
    if let (true, Some([id])) = (is_one, named.as_deref()) {
        return one(database, &organization, *id, args.expect_status).await.map_err(wrapped);
    }
    let plan = if let Some(ids) = named {
        Plan::named(ids, args.expect_status)
    } else {
        let read = ReadJobs::check(&OPERATOR, organization.id)?;
        Plan::chosen(&mut database, &read, &filter, args.expect_status).await?
    };
    if args.dry_run {
        let permit = CancelJobs::check(&OPERATOR, organization.id)?;
        let reports = cancel::preview(&mut database, &permit, &plan).await?;
        report(&reports, args.output)?;
        database.close().await;
        return Ok(exit_code(is_named, &reports));
    }
    if !args.yes && plan.len() > 1 && !is_confirmed(&question(&plan, &organization))? {
        return Err(CliError::new(FAILED, "nothing was canceled"));
    }
    let (reports, ended) = cancel(&mut database, &organization, &plan).await?;
    report(&reports, args.output)?;
    end(database, ended, exit_code(is_named, &reports)).await
}

/// Says how it ended; the exit code of what was reported, unless it was stopped.
async fn end(database: Database, ended: Option<Ended>, code: ExitCode) -> Result<ExitCode, CliError> {
    match ended {
        None => {
            database.close().await;
            Ok(code)
        }
        Some(Ended::BySignal(signal)) => Ok(signal.into()),
        Some(Ended::By(error)) if error.is_retryable() => {
            Err(CliError::from(error).next("run the same command again: it goes on with what is left"))
        }
        Some(Ended::By(error)) => Err(error.into()),
    }
}

/// What failed, where one job is named.
const WHAT: &str = "cancel provisioner job";

/// One job, in the words of Coder's command line (domain: command line).
async fn one(
    mut database: Database,
    organization: &Organization,
    id: JobId,
    expected: Option<ExpectedStatus>,
) -> Result<ExitCode, CliError> {
    let read = ReadJobs::check(&OPERATOR, organization.id)?;
    let found = jobs::by_ids(&mut database, &read, &[id]).await?;
    let missing = || CliError::from(store::Error::not_found(Entity::Job, id));
    let what = match &found.first().ok_or_else(missing)?.job_type {
        Label::Known(JobType::WorkspaceBuild) => "workspace build",
        Label::Known(JobType::TemplateVersionImport) => "template version import",
        Label::Known(JobType::TemplateVersionDryRun) => "template version dry run",
        Label::Unknown(label) => label.as_str(),
    };
    print(&format!("Canceling {what} job {id}...\n"))?;
    let (reports, ended) = cancel(&mut database, organization, &Plan::named(vec![id], expected)).await?;
    let Some(report) = reports.first() else { return Err(missing()) };
    let refused = match (report.outcome, report.refusal()) {
        (_, Some(refusal)) => refusal,
        (Outcome::Canceled | Outcome::Canceling | Outcome::WouldBeCanceled, _) => {
            // One that runs ends when its daemon learns of it, and may still succeed.
            let is_canceled = report.outcome == Outcome::Canceled;
            print(if is_canceled { "Job canceled\n" } else { "Job cancel requested\n" })?;
            return end(database, ended, ExitCode::SUCCESS).await;
        }
        (Outcome::NotFound, _) => return Err(missing()),
        _ => {
            note(&format!("1 {}", report.outcome.words()));
            return end(database, ended, FAILED.into()).await;
        }
    };
    match ended {
        Some(Ended::BySignal(signal)) => Err(CliError::new(signal as u8, refused)),
        _ => Err(CliError::new(FAILED, refused)),
    }
}

/// The ids; `None` when there are none.
fn ids<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Option<Vec<JobId>>, CliError> {
    let ids = texts.map(job_id).collect::<Result<Vec<_>, _>>()?;
    Ok((!ids.is_empty()).then_some(ids))
}

/// The ids on standard input, all of them before anything is done.
fn ids_of_input() -> Result<Vec<JobId>, CliError> {
    let text = io::read_to_string(io::stdin().lock())?;
    Ok(ids(text.split_whitespace())?.unwrap_or_default())
}

fn question(plan: &Plan, organization: &Organization) -> String {
    let statuses = plan.expected().map(ExpectedStatus::as_str).collect::<Vec<_>>().join(" or ");
    let space = if statuses.is_empty() { "" } else { " " };
    format!("Cancel {} {statuses}{space}provisioner jobs of {}?", plan.len(), organization.name)
}

/// Why not everything was tried.
enum Ended {
    By(store::Error),
    BySignal(EndedBy),
}

/// Cancels the jobs batch by batch, until an error or a signal.
async fn cancel(
    database: &mut Database,
    organization: &Organization,
    plan: &Plan,
) -> Result<(Vec<Report>, Option<Ended>), CliError> {
    let permit = CancelJobs::check(&OPERATOR, organization.id)?;
    let mut signals = Signals::new()?;
    let bar = ProgressBar::new(plan.len() as u64);
    let style = ProgressStyle::with_template("canceling jobs {wide_bar} {human_pos}/{human_len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut run = Run::new(plan);
    let mut signaled = None;
    let ended = loop {
        let answer = {
            let batch = run.next(database, &permit, OffsetDateTime::now_utc());
            tokio::pin!(batch);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut batch => break answer,
                    // The first one waits for the batch; the second one for nothing.
                    signal = signals.next() => if signaled.replace(signal).is_some() { break None },
                }
            }
        };
        match (answer, signaled) {
            (Some(Err(error)), _) => break Some(Ended::By(error)),
            (_, Some(signal)) => break Some(Ended::BySignal(signal)),
            (None, None) => break None,
            (Some(Ok(jobs)), None) => bar.inc(jobs as u64),
        }
    };
    bar.finish_and_clear();
    Ok((run.into_reports(), ended))
}

/// A line per job, and how many there are of each outcome, also when nothing can be printed.
fn report(reports: &[Report], output: Output) -> Result<(), CliError> {
    let printed = print_report(reports, output);
    let mut text = String::new();
    for (outcome, count) in tally(reports) {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{count} {}", outcome.words());
    }
    note(if text.is_empty() { "No provisioner jobs to cancel" } else { &text });
    printed
}

fn print_report(reports: &[Report], output: Output) -> Result<(), CliError> {
    match output {
        Output::Json => print_json(&reports)?,
        Output::Table if reports.is_empty() => {}
        Output::Table => {
            let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
            print(&table(
                &["id", "type", "status", "outcome"],
                reports.iter().map(|report| {
                    [
                        report.id.to_string(),
                        text(report.job_type.as_ref().map(Label::as_str)),
                        text(report.status.map(JobStatus::as_str)),
                        report.outcome.words().to_owned(),
                    ]
                }),
            ))?;
        }
    }
    Ok(())
}

/// What was named must be canceled, and a single one now; what was chosen may have left the set meanwhile.
fn exit_code(is_named: bool, reports: &[Report]) -> ExitCode {
    let was_before = |report: &Report| report.outcome == Outcome::AlreadyCanceled;
    let is_done = match reports {
        _ if !is_named => true,
        [one] => one.outcome.is_as_wanted() && !was_before(one),
        several => several.iter().all(|report| report.outcome.is_as_wanted()),
    };
    if is_done { ExitCode::SUCCESS } else { FAILED.into() }
}
