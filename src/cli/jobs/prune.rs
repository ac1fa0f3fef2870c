//! `coderdb provisioner jobs prune`.

use std::{process::ExitCode, time::Duration};

use clap_complete::ArgValueCandidates;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::sleep;

use super::super::{
    complete,
    confirm::is_confirmed,
    connect::{Database, connect},
    error::{CliError, FAILED},
    output::{Output, note, print, print_json, rfc_3339, table},
    resolve::OPERATOR,
    signals::{EndedBy, Signals},
    values::{age, filled},
};
use crate::{
    authz::{PruneJobs, ReadOrganizations},
    model::{NameOrId, Organization, OrganizationId},
    prune::{self, Pruned, Run},
    store::{self, jobs, organizations},
};

/// How often autovacuum is asked about, and how often it is asked again while it is behind.
const LOOK: Duration = Duration::from_secs(1);

/// How long it is waited for: an old transaction may hold it back for hours.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// Delete old jobs with their builds, logs, timings and agents, or their logs alone
///
/// A job goes if it was created and ended before the time, and nothing needs it: the newest build of a workspace stays, and so
/// does every build since the last one that left a state; what a chat is bound to, and the import of a version of a template.
/// With --logs-only the jobs stay, and the logs of imports go, too.
///
/// It works in batches of 25 ms, rests as long after each, and waits while autovacuum has not come to what it has deleted.
/// Ended at any moment, it loses nothing: run it again, and it goes on with what is left.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb provisioner jobs prune --older-than 90d --dry-run\n  coderdb provisioner jobs \
                        prune --older-than 90d --yes\n  coderdb provisioner jobs prune --older-than 30d --logs-only -O coder\n\n\
                        Exit codes: 0 nothing is left that is old enough; 4 the database was lost on the way, and what was \
                        done is reported."
)]
pub(in crate::cli) struct Args {
    /// How long ago a job was created and ended, at least
    #[arg(long, value_name = "DURATION", value_parser = age)]
    older_than: Duration,
    /// Delete the logs, and leave the jobs
    #[arg(long)]
    logs_only: bool,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before anything is deleted
    #[arg(short, long)]
    yes: bool,
    /// The organization, by name or id; all of them if absent
    #[arg(short = 'O', long = "org", value_name = "ORGANIZATION", value_parser = filled::<NameOrId<OrganizationId>>())]
    #[arg(add = ArgValueCandidates::new(complete::organizations))]
    org: Option<NameOrId<OrganizationId>>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// What is reported of an organization.
#[derive(Serialize)]
struct Report<'a> {
    organization: &'a str,
    dry_run: bool,
    #[serde(flatten)]
    pruned: Pruned,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CliError> {
    let before = OffsetDateTime::now_utc() - args.older_than;
    let mut database = connect().await?;
    let read = ReadOrganizations::check(&OPERATOR);
    let organizations = match &args.org {
        Some(organization) => vec![organizations::resolve(&mut database, &read, organization).await?],
        None => organizations::list(&mut database, &read).await?,
    };
    let mut reports = Vec::new();
    if args.dry_run {
        for organization in &organizations {
            let permit = PruneJobs::check(&OPERATOR, organization.id)?;
            let pruned = prune::preview(&mut database, &permit, before, args.logs_only).await?;
            reports.push(Report { organization: &organization.name, dry_run: true, pruned });
        }
        report(args.output, &reports)?;
        database.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let what = if args.logs_only { "the logs of the jobs" } else { "the jobs" };
    let whose = args.org.as_ref().map_or_else(String::new, |_| format!(" of {}", organizations[0].name));
    let question =
        format!("Delete {what}{whose} that were created and ended before {}?", rfc_3339(before.truncate_to_second()));
    if !args.yes && !is_confirmed(&question)? {
        return Err(CliError::new(FAILED, "nothing was deleted"));
    }
    let (mut signals, mut ended) = (Signals::new()?, None);
    for organization in &organizations {
        let (pruned, end) = prune(&mut database, &mut signals, organization, before, args.logs_only).await?;
        reports.push(Report { organization: &organization.name, dry_run: false, pruned });
        ended = end;
        if ended.is_some() {
            break;
        }
    }
    report(args.output, &reports)?;
    match ended {
        None => {
            database.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Some(Ended::BySignal(signal)) => Ok(signal.into()),
        Some(Ended::By(error)) => {
            Err(CliError::from(error).next("run the same command again: it goes on with what is left"))
        }
    }
}

/// Why not everything was looked at.
enum Ended {
    By(store::Error),
    BySignal(EndedBy),
}

/// Deletes batch by batch, until nothing is left, an error or a signal. The batch under way is waited for.
async fn prune(
    database: &mut Database,
    signals: &mut Signals,
    organization: &Organization,
    before: OffsetDateTime,
    logs_only: bool,
) -> Result<(Pruned, Option<Ended>), CliError> {
    let permit = PruneJobs::check(&OPERATOR, organization.id)?;
    let mut run = Run::new(before, logs_only);
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut next_look = tokio::time::Instant::now() + LOOK;
    let ended = loop {
        match run.next(database, &permit).await {
            None => break None,
            Some(Err(error)) => break Some(Ended::By(error)),
            Some(Ok(_)) => {}
        }
        let Pruned { seen, jobs, log_lines, .. } = run.total();
        bar.set_message(format!(
            "{}: {} of {} old jobs, {} log lines deleted",
            organization.name,
            HumanCount(jobs),
            HumanCount(seen),
            HumanCount(log_lines)
        ));
        let rest = async {
            sleep(run.took()).await;
            if tokio::time::Instant::now() >= next_look {
                wait_for_autovacuum(database, &permit, &bar).await?;
                next_look = tokio::time::Instant::now() + LOOK;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            signal = signals.next() => break Some(Ended::BySignal(signal)),
            rested = rest => if let Err(error) = rested { break Some(Ended::By(error)) },
        }
    };
    bar.finish_and_clear();
    Ok((run.total(), ended))
}

/// Waits while dead rows are left that autovacuum has not come to.
async fn wait_for_autovacuum(database: &mut Database, permit: &PruneJobs, bar: &ProgressBar) -> store::Result<()> {
    let began = tokio::time::Instant::now();
    while let Some(dead) = jobs::dead_rows(database, permit).await? {
        if began.elapsed() > LONGEST_WAIT {
            let minutes = LONGEST_WAIT.as_secs() / 60;
            note(&format!(
                "autovacuum has not come to {} for {minutes} minutes: is an old transaction open?",
                dead.table
            ));
            return Ok(());
        }
        bar.set_message(format!(
            "waiting for autovacuum: {} dead rows in {}",
            HumanCount(dead.dead_rows.unsigned_abs()),
            dead.table
        ));
        sleep(LOOK).await;
    }
    Ok(())
}

fn report(output: Output, reports: &[Report<'_>]) -> Result<(), CliError> {
    match output {
        Output::Json => print_json(&reports)?,
        Output::Table => print(&table(
            &["organization", "old jobs", "deleted", "log lines", "logs"],
            reports.iter().map(|report| {
                let Pruned { seen, jobs, log_lines, log_bytes } = report.pruned;
                let lines = if report.dry_run { String::new() } else { log_lines.to_string() };
                [
                    report.organization.to_owned(),
                    seen.to_string(),
                    jobs.to_string(),
                    lines,
                    HumanBytes(log_bytes).to_string(),
                ]
            }),
        ))?,
    }
    if reports.iter().any(|report| report.dry_run) {
        note("Nothing was deleted: this is what would be");
    }
    Ok(())
}
