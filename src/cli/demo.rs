//! `coderdb demo`.

use std::{fmt, process::ExitCode};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    connect::connect,
    error::{CliError, FAILED, USAGE},
    jobs::{Column, job_table},
    migrate,
    output::{note, print},
    queue::Queue,
    quota::quota_table,
    resolve::OPERATOR,
    signals::Signals,
};
use crate::{
    authz::{ReadJobs, ReadOrganizations, ReadQuota, ReadUsers},
    demo::{self, DemoOptions, Outcome, Progress, Regime, Scale, Step},
    model::{JobFilter, PageRequest},
    store::{jobs, organizations, quota, users},
};

/// Migrate, load a small organization, and show its jobs and quota
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb demo\n  coderdb demo --scale 1000000\n  coderdb demo --scale 100000 --regime \
                        storm\n\nA second run changes nothing."
)]
pub(super) struct Args {
    /// Also load a large organization with this many jobs, to measure with
    #[arg(long, value_name = "JOBS", value_parser = clap::value_parser!(u64).range(Scale::MIN_JOBS..=Scale::MAX_JOBS))]
    scale: Option<u64>,
    /// What the queue of the large organization looks like
    #[arg(long, value_enum, default_value = "calm", requires = "scale")]
    regime: RegimeArg,
    /// The moment that the demo calls now, such as 2026-05-07T09:00:00Z; this one, if absent
    #[arg(long, value_name = "TIME", env = "CODERDB_DEMO_AT", value_parser = moment)]
    at: Option<OffsetDateTime>,
    /// Stay, and keep the daemons online and a build logging, until Ctrl-C
    #[arg(long)]
    live: bool,
    /// Load even if the database holds rows of others
    #[arg(long)]
    allow_existing: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RegimeArg {
    /// 200 jobs wait
    Calm,
    /// 50,000 jobs wait, nine of ten for prebuilds
    Storm,
}

/// The users whose quota is shown: some within their budgets, some at the limit, and the prebuilds user.
const PEOPLE: [&str; 5] = ["dave", "erin", "grace", "heidi", "prebuilds"];

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    if !args.allow_existing {
        demo::check(&mut database).await?;
    }
    let applied = migrate::up(&mut database, crate::migrate::MigrateOptions::default()).await?;
    print(&format!("{}\n", migrate::report(&applied)))?;

    let regime = match args.regime {
        RegimeArg::Calm => Regime::Calm,
        RegimeArg::Storm => Regime::Storm,
    };
    let scale = args.scale.map(|jobs| Scale { jobs, regime });
    let at = args.at.unwrap_or_else(OffsetDateTime::now_utc);
    let options = DemoOptions { allow_existing: args.allow_existing, scale, at };
    let bar = ProgressBar::no_length();
    let outcome = demo::load(&mut database, &options, |progress| show(&bar, progress)).await?;
    bar.finish_and_clear();
    print(&match outcome {
        Outcome::AlreadyLoaded { .. } => "The demo is loaded already.\n\n".to_owned(),
        Outcome::Loaded { jobs, elapsed, .. } => format!("Loaded {jobs} jobs in {} ms\n\n", elapsed.as_millis()),
    })?;

    let organization =
        organizations::by_name(&mut database, &ReadOrganizations::check(&OPERATOR), demo::ORGANIZATION).await?;
    let mut jobs = jobs::list(
        &mut database,
        &ReadJobs::check(&OPERATOR, organization.id)?,
        &JobFilter::default(),
        PageRequest::first(50),
    )
    .await?
    .rows;
    jobs.sort_by_key(|details| details.job.created_at);
    // The daemons of the demo are online at its own time.
    let (Outcome::Loaded { at, .. } | Outcome::AlreadyLoaded { at, .. }) = outcome;
    let mut queue = Queue::default();
    queue.look_up(&mut database, organization.id, &jobs, at).await?;
    print(&format!("{}\n", job_table(&Column::DEFAULT, &jobs, &organization, &queue)))?;

    let mut usage = Vec::new();
    for name in PEOPLE {
        let user = users::by_username(&mut database, &ReadUsers::check(&OPERATOR)?, name).await?;
        let quota = quota::usage(&mut database, &ReadQuota::check(&OPERATOR, user.id, organization.id)?).await?;
        usage.push((user, quota));
    }
    print(&quota_table(usage.iter().map(|(user, quota)| (user, &organization, *quota))))?;
    if args.live {
        note("daemons are online and a build logs until Ctrl-C");
        let mut signals = Signals::new()?;
        tokio::select! {
            ended = demo::live(&mut database, at) => ended?,
            _ = signals.next() => {}
        }
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    let read = OffsetDateTime::parse(text, &Rfc3339);
    read.map_err(|_| "expected a time such as 2026-05-07T09:00:00Z".to_owned())
}

/// A bar for each step that takes long, on a terminal; one after the other in the same line.
fn show(bar: &ProgressBar, progress: Progress) {
    let (what, unit) = match progress.step {
        Step::Jobs => ("loading jobs", "{human_pos}/{human_len} ({rate}, {eta} left)"),
        Step::Indexes => ("building indexes", "{pos}/{len}"),
        Step::Vacuum => ("collecting statistics", ""),
        _ => return,
    };
    if bar.message() != what {
        let style = ProgressStyle::with_template(&format!("{{msg:22}} {{wide_bar}} {unit}"));
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("rate", |state: &ProgressState, line: &mut dyn fmt::Write| {
            // A line that cannot be drawn is no reason to stop.
            let _ = write!(line, "{:.0}/s", state.per_sec());
        }));
        bar.set_message(what);
        bar.reset();
    }
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

impl From<demo::Error> for CliError {
    fn from(error: demo::Error) -> Self {
        match error {
            demo::Error::Store(error) => error.into(),
            demo::Error::Foreign { .. } | demo::Error::InUse { .. } => {
                Self::new(FAILED, error.to_string()).next("use another database, or add --allow-existing")
            }
            demo::Error::OutOfRange { .. } => Self::new(USAGE, error.to_string()),
            _ => Self::new(FAILED, error.to_string()),
        }
    }
}
