//! `coderdb provisioner jobs explain`.

use std::{fmt::Write as _, process::ExitCode};

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    super::{
        connect::connect,
        error::CliError,
        organization::OrganizationArg,
        output::{Output, print, print_json, printable},
        queue::{ASSUMES, Queue, WINDOW, WaitJson, in_words},
        resolve::OPERATOR,
    },
    job_id,
};
use crate::{
    authz::{ReadDaemons, ReadJobs},
    model::{
        Ahead, DaemonFilter, DaemonId, DaemonStatus, ExpectedWait, JobDetails, JobId, JobStatus, QueuePosition,
        WhyWaiting,
    },
    store::{PgConnection, daemons, jobs, jobs::STALE_INTERVAL},
};

/// Say why a job waits, what to do about it, and how much longer it takes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  coderdb provisioner jobs explain c0de0000-0009-4000-8000-000000000022\n\nThe expected \
                        wait goes by how long jobs took in the last 7 days: half of the times it is less,\nand 8 of 10 \
                        times in the span that stands behind it."
)]
pub(in crate::cli) struct Args {
    /// The id of the job
    #[arg(value_name = "JOB")]
    id: String,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Serialize)]
struct Explained {
    id: JobId,
    status: JobStatus,
    /// A name for machines, as in a listing.
    queue_state: &'static str,
    waits_because: Option<String>,
    next_step: Option<String>,
    #[serde(skip)]
    position: Option<QueuePosition>,
    #[serde(skip)]
    wait: Option<ExpectedWait>,
    expected_wait: Option<WaitJson>,
    ahead: Option<AheadJson>,
    daemons: Vec<Able>,
}

#[derive(Serialize)]
struct AheadJson {
    people: i64,
    prebuilds: i64,
}

/// A daemon that could take it.
#[derive(Serialize)]
struct Able {
    id: DaemonId,
    name: String,
    status: DaemonStatus,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let id = job_id(&args.id)?;
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let permit = ReadJobs::check(&OPERATOR, organization.id)?;
    let job = jobs::get(&mut database, &permit, id).await?;
    let explained = explain(&mut database, &permit, job).await?;
    match args.output {
        Output::Json => print_json(&explained)?,
        Output::Table => print(&explained.text())?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn explain(conn: &mut PgConnection, permit: &ReadJobs, job: JobDetails) -> Result<Explained, CliError> {
    let (now, id, organization) = (OffsetDateTime::now_utc(), job.job.id, permit.organization());
    let mut queue = Queue::default();
    queue.look_up(conn, organization, std::slice::from_ref(&job), now).await?;
    let why = queue.why(&job);
    let mut able = Vec::new();
    if why.is_some() && job.job.started_at.is_none() {
        queue.expect(conn, organization, Some(&[id])).await?;
        let permit = ReadDaemons::check(&OPERATOR, organization)?;
        let ids = daemons::eligible(conn, &permit, &[id]).await?.iter().map(|it| it.daemon.id).collect::<Vec<_>>();
        if !ids.is_empty() {
            let filter = DaemonFilter { ids, ..DaemonFilter::default() };
            let found = daemons::list(conn, &permit, &filter, now, STALE_INTERVAL).await?;
            able.extend(found.into_iter().map(|it| Able { id: it.daemon.id, name: it.daemon.name, status: it.status }));
        }
    }
    let wait = queue.expected_wait(id);
    let ahead = why.as_ref().filter(|why| !why.is_stuck()).and_then(|_| queue.view()?.ahead(id));
    Ok(Explained {
        id,
        status: job.job.status,
        queue_state: why.as_ref().map_or("not_queued", WhyWaiting::as_str),
        waits_because: why.as_ref().map(ToString::to_string),
        next_step: why.as_ref().map(WhyWaiting::next_step),
        position: match why {
            Some(WhyWaiting::AllBusy { position, .. } | WhyWaiting::Ranked(position)) => Some(position),
            _ => None,
        },
        wait,
        expected_wait: wait.map(WaitJson::from),
        ahead: ahead.map(|Ahead { people, prebuilds }| AheadJson { people, prebuilds }),
        daemons: able,
    })
}

impl Explained {
    fn text(&self) -> String {
        let days = WINDOW.as_secs() / 86_400;
        let wait = match (&self.wait, self.position) {
            (Some(wait), _) => Some(format!(
                "{}, by {} jobs that ended in the last {days} days, if {ASSUMES}",
                in_words(wait),
                wait.samples
            )),
            (None, Some(_)) => Some(format!("unknown: no job has ended in the last {days} days")),
            (None, None) => None,
        };
        let daemons: Vec<_> = self.daemons.iter().map(|it| format!("{} ({})", it.name, it.status)).collect();
        let facts = [
            ("id", Some(self.id.to_string())),
            ("status", Some(self.status.to_string())),
            ("waits because", Some(self.waits_because.clone().unwrap_or_else(|| "it does not wait".to_owned()))),
            ("next", self.next_step.clone()),
            ("expected wait", wait),
            ("ahead", self.ahead.as_ref().map(|it| format!("{} of people, {} prebuilds", it.people, it.prebuilds))),
            ("daemons", (!daemons.is_empty()).then(|| daemons.join(", "))),
        ];
        let mut text = String::new();
        for (name, value) in facts {
            if let Some(value) = value {
                let _ = writeln!(text, "{:13}  {}", name.to_uppercase(), printable(&value));
            }
        }
        text
    }
}
