//! `coderdb prebuilds guard`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    authz::{CancelJobs, ReadJobs, ReadPrebuildsSettings, WritePrebuildsSettings},
    cancel::{Outcome, Plan, Run, tally},
    cli::{
        connect::{Database, connect},
        error::{CliError, USAGE},
        organization::OrganizationArg,
        output::note,
        resolve::OPERATOR,
        signals::Signals,
        values::{length, some_length},
    },
    model::{ExpectedStatus, JobFilter, Organization, PrebuildsSettings, UserId},
    store::settings,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb prebuilds guard --max-waiting 50 --dry-run\n  coderdb prebuilds guard --max-waiting \
                  50 --pause --cancel\n  coderdb prebuilds guard --max-waiting 0 --pause --cancel --interval 5s\n\nLooks once \
                  per interval. While more jobs of prebuilds wait than --max-waiting, it pauses prebuilds and cancels the \
                  newest of these jobs beyond that number; jobs of people are never touched. Once fewer wait, and \
                  --resume-after is over, it resumes what it has paused itself, and so it does when it is ended by a signal."
)]
pub(in crate::cli) struct Args {
    /// How many jobs of prebuilds may wait
    #[arg(long, value_name = "JOBS")]
    max_waiting: usize,
    /// Pause prebuilds while more wait
    #[arg(long)]
    pause: bool,
    /// Cancel those that wait beyond that number, the newest first
    #[arg(long)]
    cancel: bool,
    /// How long prebuilds stay paused after too many were seen for the last time
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = length)]
    resume_after: Duration,
    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = some_length)]
    interval: Duration,
    /// Say what it would do, and change nothing; without --pause and --cancel, what both would do
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    organization: OrganizationArg,
}

/// What the guard knows of what it did and saw.
struct State {
    /// Whether it has paused prebuilds, and they still are.
    has_paused: bool,
    /// When too many waited, the last time.
    flooded_at: Option<Instant>,
}

/// What is to be done after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Acts {
    /// `Some(true)` to pause, `Some(false)` to resume.
    pause: Option<bool>,
    /// How many jobs to cancel.
    cancel: usize,
}

impl Args {
    /// With neither of the options, which only a dry run may lack, it decides on both.
    ///
    /// An operator who has paused prebuilds resumes them; the guard resumes only what it has paused.
    /// `quiet` is the time since too many were seen for the last time.
    fn decide(&self, waiting: usize, is_paused: bool, has_paused: bool, quiet: Duration) -> Acts {
        let is_flooded = waiting > self.max_waiting;
        let does_both = !(self.pause || self.cancel);
        let pause = match (is_flooded, is_paused) {
            (true, false) if self.pause || does_both => Some(true),
            (false, true) if has_paused && waiting < self.max_waiting.max(1) && quiet >= self.resume_after => {
                Some(false)
            }
            _ => None,
        };
        Acts { pause, cancel: if self.cancel || does_both { waiting.saturating_sub(self.max_waiting) } else { 0 } }
    }
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CliError> {
    if !(args.pause || args.cancel || args.dry_run) {
        return Err(CliError::new(USAGE, "nothing to do: give --pause, --cancel or both, or --dry-run"));
    }
    let mut signals = Signals::new()?;
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let mut database = Some(database);
    note(&format!("Guarding {}: at most {} jobs of prebuilds may wait", organization.name, args.max_waiting));
    let mut state = State { has_paused: false, flooded_at: None };
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            _ = ticks.tick() => {}
        }
        // A lost connection must not end the guard in the middle of a flood.
        match look(args, &organization, &mut database, &mut state).await {
            Ok(()) => {}
            Err(error) if error.is_unreachable() => {
                database = None;
                note(&format!("Trying again in {:?}: {}", args.interval, error.message()));
            }
            Err(error) => return Err(error),
        }
    };
    if state.has_paused {
        set_paused(&mut database, false).await?;
        note("Prebuilds are now resumed: the guard ends");
    }
    if let Some(database) = database {
        database.close().await;
    }
    Ok(signal.into())
}

async fn connected(database: &mut Option<Database>) -> Result<&mut Database, CliError> {
    if database.is_none() {
        *database = Some(connect().await?);
    }
    Ok(database.as_mut().expect("it was just put there"))
}

async fn set_paused(database: &mut Option<Database>, reconciliation_paused: bool) -> Result<(), CliError> {
    let permit = WritePrebuildsSettings::check(&OPERATOR)?;
    let settings = PrebuildsSettings { reconciliation_paused };
    let _ = settings::set_prebuilds(connected(database).await?, &permit, settings).await?;
    Ok(())
}

/// One look, and what follows from it.
async fn look(
    args: &Args,
    organization: &Organization,
    database: &mut Option<Database>,
    state: &mut State,
) -> Result<(), CliError> {
    let conn = connected(database).await?;
    let is_paused = settings::prebuilds(conn, &ReadPrebuildsSettings::check(&OPERATOR)?).await?.reconciliation_paused;
    // Another operator has resumed them meanwhile.
    state.has_paused &= is_paused || args.dry_run;
    let filter = JobFilter { initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
    let read = ReadJobs::check(&OPERATOR, organization.id)?;
    let mut plan = Plan::chosen(conn, &read, &filter, Some(ExpectedStatus::Pending)).await?;
    let waiting = plan.len();
    if waiting > args.max_waiting {
        state.flooded_at = Some(Instant::now());
    }
    let quiet = state.flooded_at.map_or(Duration::MAX, |at| at.elapsed());
    let acts = args.decide(waiting, is_paused, state.has_paused, quiet);
    let would = if args.dry_run { "Would have: " } else { "" };
    let why = format!("{waiting} jobs of prebuilds wait, and {} may", args.max_waiting);
    if let Some(pause) = acts.pause {
        if !args.dry_run {
            set_paused(database, pause).await?;
            state.has_paused = pause;
        }
        note(&format!("{would}Prebuilds are now {}: {why}", if pause { "paused" } else { "resumed" }));
    }
    if acts.cancel > 0 {
        plan.truncate(acts.cancel);
        let canceled = if args.dry_run { acts.cancel } else { cancel(database, organization, &plan).await? };
        note(&format!("{would}{canceled} jobs of prebuilds canceled: {why}"));
    }
    Ok(())
}

async fn cancel(database: &mut Option<Database>, organization: &Organization, plan: &Plan) -> Result<usize, CliError> {
    let permit = CancelJobs::check(&OPERATOR, organization.id)?;
    let mut run = Run::new(plan);
    let conn = connected(database).await?;
    while let Some(batch) = run.next(conn, &permit, OffsetDateTime::now_utc()).await {
        batch?;
    }
    Ok(tally(&run.into_reports()).get(&Outcome::Canceled).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(max_waiting: usize, pause: bool, cancel: bool) -> Args {
        let organization = OrganizationArg { org: None };
        let (interval, resume_after) = (Duration::from_secs(1), Duration::from_mins(1));
        Args { max_waiting, pause, cancel, resume_after, interval, dry_run: false, organization }
    }

    #[test]
    fn decide_pauses_beyond_the_number_and_resumes_below_it_what_the_guard_has_paused() {
        let none = Acts { pause: None, cancel: 0 };
        let (now, later) = (Duration::ZERO, Duration::from_mins(1));
        let both = args(10, true, true);
        assert_eq!(both.decide(10, false, false, later), none);
        assert_eq!(both.decide(11, false, false, now), Acts { pause: Some(true), cancel: 1 });
        assert_eq!(both.decide(500, true, true, now), Acts { pause: None, cancel: 490 });
        assert_eq!(both.decide(10, true, true, later), none, "neither beyond nor below");
        assert_eq!(both.decide(9, true, true, now), none, "not for long enough");
        assert_eq!(both.decide(9, true, true, later), Acts { pause: Some(false), cancel: 0 });
        assert_eq!(both.decide(0, true, false, later), none, "an operator has paused them");
        assert_eq!(args(0, true, true).decide(0, true, true, later), Acts { pause: Some(false), cancel: 0 });
        assert_eq!(args(10, false, true).decide(20, false, false, now), Acts { pause: None, cancel: 10 });
        assert_eq!(args(10, false, false).decide(20, false, false, now), Acts { pause: Some(true), cancel: 10 });
        assert_eq!(args(10, true, false).decide(20, false, false, now), Acts { pause: Some(true), cancel: 0 });
    }
}
