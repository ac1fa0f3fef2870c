//! `coderdb provisioner jobs queue`.

use std::{process::ExitCode, time::Duration};

use clap::ValueEnum;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{
    connect::connect,
    error::CliError,
    organization::OrganizationArg,
    output::{Output, note, print, print_json, table},
    queue::brief,
    resolve::OPERATOR,
    values::some_length,
};
use crate::{
    authz::ReadJobs,
    model::{Share, ShareBy, Spread, Tags},
    store::queue,
};

/// See who has which part of the queue and of the daemons, and how long they wait
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb provisioner jobs queue --by initiator\n  coderdb provisioner jobs queue \
                        --by template --since 1h -o json\n\nWAITING FOR: how long those have waited that still wait, the \
                        median and the 95th percentile.\nSTARTED AFTER: the same of those that were created since then \
                        and have started.")]
pub(in crate::cli) struct Args {
    /// What the jobs of a line have in common
    #[arg(long, value_enum, default_value = "initiator")]
    by: By,
    /// How far back those jobs were created that have started
    #[arg(long, value_name = "AGE", value_parser = some_length, default_value = "24h")]
    since: Duration,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Who asked for them
    Initiator,
    /// Which template they build
    Template,
    /// Their tags
    Tags,
}

#[derive(Serialize)]
struct ShareJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a Tags>,
    waiting: i64,
    waiting_prebuilds: i64,
    waiting_share: f64,
    running: i64,
    running_share: f64,
    started: i64,
    waiting_for: Option<SpreadJson>,
    started_after: Option<SpreadJson>,
}

#[derive(Serialize)]
struct SpreadJson {
    p50_seconds: f64,
    p95_seconds: f64,
}

impl From<Spread> for SpreadJson {
    fn from(spread: Spread) -> Self {
        Self { p50_seconds: spread.p50.as_secs_f64(), p95_seconds: spread.p95.as_secs_f64() }
    }
}

impl<'a> From<&'a Share> for ShareJson<'a> {
    fn from(share: &'a Share) -> Self {
        Self {
            id: share.id,
            name: &share.name,
            tags: share.tags.as_ref(),
            waiting: share.waiting,
            waiting_prebuilds: share.waiting_prebuilds,
            waiting_share: share.waiting_share,
            running: share.running,
            running_share: share.running_share,
            started: share.started,
            waiting_for: share.waiting_for.map(SpreadJson::from),
            started_after: share.started_after.map(SpreadJson::from),
        }
    }
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let permit = ReadJobs::check(&OPERATOR, organization.id)?;
    let by = match args.by {
        By::Initiator => ShareBy::Initiator,
        By::Template => ShareBy::Template,
        By::Tags => ShareBy::Tags,
    };
    let shares = queue::shares(&mut database, &permit, by, OffsetDateTime::now_utc(), args.since).await?;
    match args.output {
        Output::Json => print_json(&shares.iter().map(ShareJson::from).collect::<Vec<_>>())?,
        Output::Table if shares.is_empty() => note("No job waits, runs or has started lately"),
        Output::Table => print(&table(
            &[by.as_str(), "waiting", "prebuilds", "running", "waiting for", "started", "started after"],
            shares.iter().map(cells),
        ))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn cells(share: &Share) -> [String; 7] {
    let part =
        |count: i64, part: f64| if count == 0 { "0".to_owned() } else { format!("{count} ({:.0}%)", part * 100.0) };
    let spread = |spread: Option<Spread>| {
        spread.map(|it| format!("{}, 95% {}", brief(it.p50), brief(it.p95))).unwrap_or_default()
    };
    let name = match (&share.tags, share.id) {
        (Some(tags), _) if *tags == Tags::untagged() => "untagged".to_owned(),
        (Some(tags), _) => tags.to_string(),
        (None, Some(id)) if share.name.is_empty() => id.to_string(),
        (None, None) => "(none)".to_owned(),
        (None, Some(_)) => share.name.clone(),
    };
    [
        name,
        part(share.waiting, share.waiting_share),
        share.waiting_prebuilds.to_string(),
        part(share.running, share.running_share),
        spread(share.waiting_for),
        share.started.to_string(),
        spread(share.started_after),
    ]
}
