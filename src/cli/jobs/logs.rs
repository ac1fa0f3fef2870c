//! `coderdb provisioner jobs logs`.

use std::process::ExitCode;

use clap::ValueEnum;

use super::super::{
    connect::connect,
    error::{CliError, FAILED},
    organization::OrganizationArg,
    output::{Array, json_lines, nobody_reads, note, print, print_on, printable, rfc_3339},
    resolve::OPERATOR,
    table::one_line,
};
use super::job_id;
use crate::{
    authz::{ReadJobLogs, ReadJobs},
    model::{JobLog, JobState, JobStatus},
    pool::{self, Pool},
    store::job_logs,
    watch::{self, Watcher},
};

/// Print what a job has logged
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb provisioner jobs logs c0de0000-0009-4000-8000-000000000022\n  coderdb \
                        provisioner jobs logs c0de0000-0009-4000-8000-000000000027 --follow\n  coderdb provisioner \
                        jobs logs c0de0000-0009-4000-8000-000000000022 -o jsonl\n\nExit codes with \
                        --follow: 0 the job has succeeded, 1 it has failed or is canceled.")]
pub(in crate::cli) struct Args {
    /// The id of the job
    #[arg(value_name = "JOB")]
    id: String,
    /// Go on with what it logs from now on, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only lines with a higher id than this
    #[arg(long, value_name = "ID", default_value_t = 0)]
    after: i64,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Lines,
}

/// How a log is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lines {
    /// Lines for people
    Table,
    /// JSON for machines: an array
    Json,
    /// JSON for machines: an object per line
    Jsonl,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let id = job_id(&args.id)?;
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let permit = ReadJobLogs::check(&OPERATOR, organization.id)?;
    let mut array = Array::default();
    if !args.follow {
        let lines = job_logs::after(&mut database, &permit, id, args.after).await?;
        if print_on(&text(&lines, args.output, &mut array)?)? {
            end(args.output, &array)?;
        }
        database.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let pool = Pool::new(database.options().clone(), pool::Settings::default());
    let watcher = Watcher::start(&pool, watch::Settings::default());
    let mut follower = watcher.follow(permit, id, args.after);
    loop {
        let lines = tokio::select! {
            lines = follower.next() => lines?,
            () = nobody_reads() => return Ok(ExitCode::SUCCESS),
        };
        let Some(lines) = lines else { break };
        if !print_on(&text(&lines, args.output, &mut array)?)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    end(args.output, &array)?;
    let read = ReadJobs::check(&OPERATOR, organization.id)?;
    let ended = watcher.wait(&read, id, pool::Settings::default().deadline).await?;
    note(&one_line(&how_it_ended(&ended)));
    database.close().await;
    Ok(if ended.status == JobStatus::Succeeded { ExitCode::SUCCESS } else { FAILED.into() })
}

fn how_it_ended(job: &JobState) -> String {
    let error = job.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let code = job.error_code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
    format!("Job {}{error}{code}", job.status)
}

fn text(lines: &[JobLog], output: Lines, array: &mut Array) -> Result<String, CliError> {
    match output {
        Lines::Table => Ok(lines.iter().map(|line| log_line(line) + "\n").collect()),
        Lines::Json => array.push(lines),
        Lines::Jsonl => json_lines(lines),
    }
}

fn end(output: Lines, array: &Array) -> Result<(), CliError> {
    print(if output == Lines::Json { array.end() } else { "" })
}

/// A line of a log for people.
pub(super) fn log_line(line: &JobLog) -> String {
    let at = rfc_3339(line.created_at);
    printable(&format!("{at}  {:5}  {}  {}", line.level, line.stage, line.output)).replace('\n', " ")
}
