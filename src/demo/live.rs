//! What keeps the small organization going: signs of life, and a log that grows.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};

use super::{Error, ORGANIZATION};
use crate::{
    authz::{ActAsDaemon, Actor, Denied, ReadDaemons, ReadJobs, ReadOrganizations, RunJobs, System, WatchJobs},
    model::{
        DaemonFilter, DaemonId, JobFilter, JobId, JobStatus, LogLevel, LogSource, NewJobLog, OrganizationId,
        PageRequest,
    },
    store::{self, daemons, job_logs, jobs, organizations},
    watch::{self, Change},
};

/// From one line of the log to the next.
const LINE: Duration = Duration::from_secs(1);
/// A sign of life comes with every so many lines.
const LINES_PER_SIGN: u64 = 10;

/// Keeps those daemons online that were so at the moment `at`, that of the demo; their jobs give signs of life, and the
/// newest of these logs a line a second, which those who follow it are told of. Returns when none of them runs any more.
///
/// # Errors
/// [`Error::Store`].
pub async fn live(conn: &mut PgConnection, at: OffsetDateTime) -> Result<(), Error> {
    let operator = Actor::system(System::Operator);
    let permit = ReadOrganizations::check(&operator);
    let organization = organizations::by_name(conn, &permit, ORGANIZATION).await?.id;
    let read = ReadDaemons::check(&operator, organization).map_err(denied)?;
    let all = daemons::list(conn, &read, &DaemonFilter::default(), at, jobs::STALE_INTERVAL).await?;
    let was_online = |seen: Option<OffsetDateTime>| seen.is_some_and(|seen| seen >= at - jobs::STALE_INTERVAL);
    let online: Vec<DaemonId> =
        all.iter().filter(|it| was_online(it.daemon.last_seen_at)).map(|it| it.daemon.id).collect();
    let mut turn = interval(LINE);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for line in 0_u64.. {
        turn.tick().await;
        let running = running(conn, organization).await?;
        let Some((newest, worker)) = running.iter().find(|(_, worker)| online.contains(worker)).copied() else { break };
        if line.is_multiple_of(LINES_PER_SIGN) {
            signs_of_life(conn, organization, &online, &running).await?;
        }
        log(conn, organization, (newest, worker), line).await?;
    }
    Ok(())
}

/// The running jobs with their daemons, the newest first.
async fn running(conn: &mut PgConnection, organization: OrganizationId) -> Result<Vec<(JobId, DaemonId)>, Error> {
    let permit = ReadJobs::check(&Actor::system(System::Operator), organization).map_err(denied)?;
    let filter = JobFilter { status: vec![JobStatus::Running], ..JobFilter::default() };
    let page = jobs::list(conn, &permit, &filter, PageRequest::default()).await?;
    Ok(page.rows.into_iter().filter_map(|row| Some((row.job.id, row.job.worker_id?))).collect())
}

async fn signs_of_life(
    conn: &mut PgConnection,
    organization: OrganizationId,
    online: &[DaemonId],
    running: &[(JobId, DaemonId)],
) -> Result<(), Error> {
    let (daemon, now) = (Actor::system(System::ProvisionerDaemon), OffsetDateTime::now_utc());
    for id in online {
        let permit = ActAsDaemon::check(&daemon, *id, organization).map_err(denied)?;
        let _ = daemons::heartbeat(conn, &permit, now).await?;
    }
    for (job, worker) in running.iter().filter(|(_, worker)| online.contains(worker)) {
        let permit = RunJobs::check(&daemon, organization, *worker).map_err(denied)?;
        let _ = jobs::heartbeat(conn, &permit, *job, now).await?;
    }
    Ok(())
}

async fn log(
    conn: &mut PgConnection,
    organization: OrganizationId,
    (job, worker): (JobId, DaemonId),
    line: u64,
) -> Result<(), Error> {
    let permit = RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, worker).map_err(denied)?;
    let line = NewJobLog {
        created_at: OffsetDateTime::now_utc(),
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: "Starting workspace".to_owned(),
        output: format!("docker_container.workspace: Still creating... [{line}s elapsed]"),
    };
    let _ = job_logs::append(conn, &permit, job, &[line]).await?;
    let permit = WatchJobs::check(&Actor::system(System::Watcher)).map_err(denied)?;
    Ok(watch::announce(conn, &permit, &[Change { job, organization }]).await?)
}

fn denied(denied: Denied) -> Error {
    Error::Store(store::Error::from(denied))
}
