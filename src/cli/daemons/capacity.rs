//! `coderdb provisioner daemons capacity`.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;
use time::OffsetDateTime;

use super::super::{
    connect::connect,
    error::CliError,
    organization::OrganizationArg,
    output::{Output, note, print, print_json, rfc_3339, table},
    queue::{WINDOW, brief},
    resolve::OPERATOR,
    values::{some_length, tag},
};
use crate::{
    authz::{ReadJobs, ReadQueue},
    model::{Capacity, FurtherDaemons, Label, ProvisionerType, Tags},
    store::{jobs::STALE_INTERVAL, queue},
};

/// The newest jobs of the window, at the most.
const JOBS: u32 = 50_000;

/// See how many daemons it takes for jobs to start in time, by those of the last days
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb provisioner daemons capacity --target-wait 30s\n  coderdb provisioner daemons \
                        capacity --what-if 'gpu=true:+3'\n  coderdb provisioner daemons capacity --since 24h -o \
                        json\n\nThe recorded jobs are played again with the daemons of now. A wait is what 95 % of \
                        the jobs\nthat people asked for stay within; prebuilds wait longer. NEEDED counts daemons \
                        that take\nthese jobs alone: tag sets that share daemons need fewer together."
)]
pub(in crate::cli) struct Args {
    /// How long jobs may wait
    #[arg(long, value_name = "DURATION", value_parser = some_length, default_value = "30s")]
    target_wait: Duration,
    /// More daemons with these tags; may be repeated. They have scope=organization and no owner unless the tags say otherwise
    #[arg(long = "what-if", value_name = "KEY=VALUE,...:+N", value_parser = further)]
    what_if: Vec<FurtherDaemons>,
    /// How far back jobs count; the newest 50,000 at the most
    #[arg(long, value_name = "AGE", value_parser = some_length, default_value = "168h")]
    since: Duration,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// `gpu=true,env=aws:+3`, and `:+3` for daemons without tags.
fn further(text: &str) -> Result<FurtherDaemons, String> {
    let expected = || "expected KEY=VALUE,KEY=VALUE:+N, or :+N for daemons without tags".to_owned();
    let (pairs, count) = text.rsplit_once(":+").ok_or_else(expected)?;
    let mut tags = Tags::untagged();
    for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = tag(pair)?;
        tags.0.insert(key, value);
    }
    let count = count.parse().ok().filter(|count| (1..=10_000).contains(count));
    Ok(FurtherDaemons { tags, count: count.ok_or_else(expected)? })
}

#[derive(Serialize)]
struct CapacityJson<'a> {
    tags: &'a Tags,
    provisioner: &'a Label<ProvisionerType>,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    jobs: usize,
    prebuilds: usize,
    jobs_per_hour: f64,
    service_p50_seconds: Option<f64>,
    service_p95_seconds: Option<f64>,
    busy: Option<f64>,
    daemons: usize,
    daemons_needed: usize,
    recorded_wait_p95_seconds: Option<f64>,
    wait_p95_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what_if_wait_p95_seconds: Option<f64>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let (whole, read) = (ReadQueue::check(&OPERATOR)?, ReadJobs::check(&OPERATOR, organization.id)?);
    let now = OffsetDateTime::now_utc();
    let history = queue::history(&mut database, &read, now, args.since, JOBS).await?;
    let view = queue::snapshot(&mut database, &whole, now, STALE_INTERVAL).await?.of(&read);
    database.close().await;
    let all = view.capacity(&history, args.target_wait, &args.what_if);
    let is_further = !args.what_if.is_empty();
    match args.output {
        Output::Json => print_json(&all.iter().map(|it| json(it, is_further)).collect::<Vec<_>>())?,
        Output::Table if all.is_empty() => note("No jobs were recorded in that time"),
        Output::Table => {
            let mut headings =
                vec!["tags", "provisioner", "jobs/h", "service", "busy", "daemons", "needed", "recorded wait", "wait"];
            headings.extend(is_further.then_some("wait then"));
            print(&table(&headings, all.iter().map(|it| cells(it, is_further))))?;
            let since = rfc_3339(all[0].since.truncate_to_second());
            note(&format!(
                "95 % of the jobs of people stay within a wait; by the jobs since {since}, target {}",
                brief(args.target_wait)
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits without end have no number.
fn seconds(length: Option<Duration>) -> Option<f64> {
    length.filter(|length| *length < WINDOW * 1_000).map(|length| length.as_secs_f64())
}

fn json(it: &Capacity, is_further: bool) -> CapacityJson<'_> {
    CapacityJson {
        tags: &it.tags,
        provisioner: &it.provisioner,
        since: it.since,
        jobs: it.jobs,
        prebuilds: it.prebuilds,
        jobs_per_hour: it.jobs_per_hour,
        service_p50_seconds: seconds(it.service_p50),
        service_p95_seconds: seconds(it.service_p95),
        busy: it.busy,
        daemons: it.daemons,
        daemons_needed: it.needed,
        recorded_wait_p95_seconds: seconds(it.recorded_wait_p95),
        wait_p95_seconds: seconds(it.wait_p95),
        what_if_wait_p95_seconds: seconds(it.further_wait_p95).filter(|_| is_further),
    }
}

fn cells(it: &Capacity, is_further: bool) -> Vec<String> {
    let wait = |wait: Option<Duration>| wait.map_or_else(|| "never starts".to_owned(), brief);
    let service = |length: Option<Duration>| length.map_or_else(|| "?".to_owned(), brief);
    let tags = if it.tags == Tags::untagged() { "untagged".to_owned() } else { it.tags.to_string() };
    let mut cells = vec![
        tags,
        it.provisioner.to_string(),
        format!("{:.1}", it.jobs_per_hour),
        format!("{}, 95% {}", service(it.service_p50), service(it.service_p95)),
        it.busy.map(|busy| format!("{:.0}%", busy * 100.0)).unwrap_or_default(),
        it.daemons.to_string(),
        it.needed.to_string(),
        it.recorded_wait_p95.map(brief).unwrap_or_default(),
        wait(it.wait_p95),
    ];
    cells.extend(is_further.then(|| wait(it.further_wait_p95)));
    cells
}
