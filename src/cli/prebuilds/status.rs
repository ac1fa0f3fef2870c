//! `coderdb prebuilds status`.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    authz::{MaintainPrebuilds, ReadJobs, ReadPrebuildsSettings, ReadQueue, ReadQuota},
    cli::{
        connect::{Database, connect},
        error::CliError,
        organization::OrganizationArg,
        output::{Output, print, print_json, rfc_3339, table},
        resolve::OPERATOR,
        values::length,
    },
    model::{OrganizationId, PresetPrebuilds, Quota, UserId},
    store::{self, jobs::STALE_INTERVAL},
};

/// How long failures count.
const LOOKBACK: Duration = Duration::from_hours(1);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb prebuilds status\n  coderdb prebuilds status --org coder -o json\n\nELIGIBLE \
                  prebuilds can be claimed: all of their agents are ready. FAILED counts those of the last hour. After \
                  failures, the reconciler waits until BACK-OFF UNTIL; a preset that is HARD LIMITED gets no more until its \
                  template changes. HOLDS is what they consume of the prebuilds user's quota, in credits."
)]
pub(in crate::cli) struct Args {
    /// How long the reconciler waits for each failure since the last success
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = length)]
    backoff_interval: Duration,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// The status as machines read it.
#[derive(Serialize)]
struct Shown<'a> {
    reconciliation_paused: bool,
    /// All jobs of the organization that a daemon could take, and those of prebuilds among them.
    waiting: Waiting,
    /// Of the prebuilds user, in credits.
    credits_consumed: i64,
    budget: i64,
    presets: Vec<Preset<'a>>,
}

#[derive(Default, Serialize)]
struct Waiting {
    jobs: i64,
    prebuilds: i64,
}

#[derive(Serialize)]
struct Preset<'a> {
    #[serde(flatten)]
    preset: &'a PresetPrebuilds,
    backoff_until: Option<String>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let settings = store::settings::prebuilds(&mut database, &ReadPrebuildsSettings::check(&OPERATOR)?).await?;
    let organization = match args.organization.resolve(&mut database).await {
        Ok(organization) => Some(organization.id),
        // The settings are of the whole site; a site without a default organization has no presets to show.
        Err(error) if args.organization.org.is_none() && !error.is_unreachable() => None,
        Err(error) => return Err(error),
    };
    let now = OffsetDateTime::now_utc();
    let found = match organization {
        Some(organization) => Some(look(&mut database, organization, now).await?),
        None => None,
    };
    database.close().await;
    let backoff = |preset: &PresetPrebuilds| preset.backoff_until(args.backoff_interval).filter(|until| *until > now);
    let Found { presets, waiting, quota } = found.unwrap_or_default();
    match args.output {
        Output::Json => print_json(&Shown {
            reconciliation_paused: settings.reconciliation_paused,
            waiting,
            credits_consumed: quota.credits_consumed,
            budget: quota.budget,
            presets: presets
                .iter()
                .map(|preset| Preset { preset, backoff_until: backoff(preset).map(rfc_3339) })
                .collect(),
        })?,
        Output::Table => {
            let paused = if settings.reconciliation_paused { "paused" } else { "not paused" };
            print(&format!("Prebuilds are {paused}.\n"))?;
            if waiting.prebuilds > 0 || !presets.is_empty() {
                print(&format!(
                    "{} of {} waiting jobs are of the prebuilds user, who consumes {} of {} credits.\n",
                    waiting.prebuilds, waiting.jobs, quota.credits_consumed, quota.budget,
                ))?;
            }
            if !presets.is_empty() {
                print(&format!("\n{}", presets_table(&presets, backoff)))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was found in an organization.
#[derive(Default)]
struct Found {
    presets: Vec<PresetPrebuilds>,
    waiting: Waiting,
    quota: Quota,
}

async fn look(database: &mut Database, organization: OrganizationId, now: OffsetDateTime) -> Result<Found, CliError> {
    let permit = MaintainPrebuilds::check(&OPERATOR, organization)?;
    let presets = store::prebuilds::status(database, &permit, now, LOOKBACK).await?;
    let (jobs, queue) = (ReadJobs::check(&OPERATOR, organization)?, ReadQueue::check(&OPERATOR)?);
    let queue = store::queue::snapshot(database, &queue, now, STALE_INTERVAL).await?.of(&jobs);
    let mut waiting = Waiting::default();
    for tags in queue.by_tags() {
        waiting.jobs += tags.jobs;
        waiting.prebuilds += tags.prebuilds;
    }
    let permit = ReadQuota::check(&OPERATOR, UserId::PREBUILDS, organization)?;
    let quota = store::quota::usage(database, &permit).await?;
    Ok(Found { presets, waiting, quota })
}

fn presets_table(presets: &[PresetPrebuilds], backoff: impl Fn(&PresetPrebuilds) -> Option<OffsetDateTime>) -> String {
    let headings = [
        "template",
        "preset",
        "wanted",
        "running",
        "eligible",
        "starting",
        "waiting",
        "waiting since",
        "failed",
        "back-off until",
        "status",
        "holds",
    ];
    let time = |at: Option<OffsetDateTime>| at.map_or_else(String::new, |at| rfc_3339(at.truncate_to_second()));
    table(
        &headings,
        presets.iter().map(|preset| {
            let status = match preset.status.as_str() {
                _ if !preset.is_active => "not active",
                "hard_limited" => "hard limited",
                status => status,
            };
            [
                preset.template_name.clone(),
                preset.preset_name.clone(),
                preset.wanted.to_string(),
                preset.running.to_string(),
                preset.eligible.to_string(),
                preset.starting.to_string(),
                preset.waiting.to_string(),
                time(preset.waiting_since),
                preset.failed.to_string(),
                time(backoff(preset)),
                status.to_owned(),
                preset.credits.to_string(),
            ]
        }),
    )
}
