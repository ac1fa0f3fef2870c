//! What a call waits for, in words.

use std::{convert::Infallible, future::pending, mem, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::CHAT_DAEMON;
use crate::{
    authz::{Actor, Denied, LoadActors, ReadJobLogs, ReadJobs, ReadWorkspaces, System},
    bounds::beginning_of,
    model::{
        ExpectedWait, JobId, JobLog, JobState, JobStatus, Label, OrganizationId, Transition, UserId, WhyWaiting,
        WorkspaceBuildId,
    },
    pool::{self, Pool},
    store::{self, queue::History},
    watch::{self as watching, Watcher},
};

/// The least time between two messages: logs may be written faster than the client reads.
const GAP: Duration = Duration::from_millis(250);

/// How often the queue is read; its movements are not announced.
const QUEUE_POLL: Duration = Duration::from_secs(2);

/// The window of the history that expected waits are computed from, the most jobs of it, and how often it is read.
const WINDOW: Duration = Duration::from_hours(7 * 24);
const SAMPLES: u32 = 4_000;
const HISTORY_POLL: Duration = Duration::from_mins(1);

/// Where to look for what a call waits for.
pub(super) struct Progress {
    pub(super) pool: Pool,
    pub(super) watcher: Watcher,
    pub(super) owner: UserId,
    pub(super) organization: OrganizationId,
    /// The build that the chat is bound to: a tool binds it before it waits for it.
    pub(super) builds: watch::Receiver<Option<WorkspaceBuildId>>,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Watch(#[from] watching::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

impl From<Denied> for Unknown {
    fn from(denied: Denied) -> Self {
        Self::Store(denied.into())
    }
}

impl Progress {
    /// Tells of every build that the chat is bound to, while it is under way.
    pub(super) async fn follow(&self, text: &watch::Sender<String>) -> Infallible {
        let mut builds = self.builds.clone();
        loop {
            let build = *builds.borrow_and_update();
            let told = async {
                if let Some(build) = build
                    && let Err(error) = self.tell(build, text).await
                {
                    tracing::debug!(name: "mcp.no_progress", %build, error = %error, "cannot tell how a build stands");
                }
                pending::<Infallible>().await
            };
            tokio::select! {
                never = told => match never {},
                changed = builds.changed() => if changed.is_err() { return pending().await },
            }
        }
    }

    async fn tell(&self, build: WorkspaceBuildId, text: &watch::Sender<String>) -> Result<(), Unknown> {
        let permit = ReadWorkspaces::check(&CHAT_DAEMON, self.organization)?;
        let mut follower = self.watcher.follow_build(&permit, build).await?;
        // A build that has ended needs no progress.
        let Some(mut state) = follower.next().await.filter(|state| !state.status.is_final()) else { return Ok(()) };
        let transition = follower.build().transition.clone();
        let mut log = Log::default();
        loop {
            let stands = self.describe(&transition, &state, &mut log).await;
            let now = beginning_of(&format!("{transition} build {stands}"), "");
            text.send_if_modified(|told| mem::replace(told, now.clone()) != now);
            sleep(GAP).await;
            tokio::select! {
                next = follower.next() => match next {
                    Some(next) => state = next,
                    None => return Ok(()),
                },
                () = sleep(QUEUE_POLL), if state.status == JobStatus::Pending => {}
            }
        }
    }

    /// How the build stands, with what can be found out about it at the moment.
    async fn describe(&self, transition: &Label<Transition>, state: &JobState, log: &mut Log) -> String {
        match state.status {
            JobStatus::Pending => match self.why(state.id, log).await {
                Ok(Some((why, Some(wait)))) => format!("pending: {why}, for about {}", short(wait.p50)),
                Ok(Some((why, None))) => format!("pending: {why}"),
                Ok(None) => "pending".to_owned(),
                Err(error) => {
                    tracing::debug!(name: "mcp.no_position", job = %state.id, error = %error, "no position in the queue");
                    "pending".to_owned()
                }
            },
            JobStatus::Succeeded if *transition == Transition::Start => "succeeded: waiting for the agent".to_owned(),
            status => {
                if let Err(error) = self.read(state, log).await {
                    tracing::debug!(name: "mcp.no_log", job = %state.id, error = %error, "no line of the log");
                }
                match &log.line {
                    Some(line) => format!("{status}: {line}"),
                    None => status.to_string(),
                }
            }
        }
    }

    /// Why the job waits, and for how long. The chat daemon and members may not read jobs. The operator who runs this program
    /// may, and it is the build that the tools wait for.
    async fn why(&self, job: JobId, log: &mut Log) -> Result<Option<(WhyWaiting, Option<ExpectedWait>)>, Unknown> {
        let permit = ReadJobs::check(&Actor::system(System::Operator), self.organization)?;
        let queue = self.watcher.queue(&permit).await?;
        let Some(why) = queue.why(job) else { return Ok(None) };
        if why.is_stuck() {
            return Ok(Some((why, None)));
        }
        if log.history.as_ref().is_none_or(|(read, _)| read.elapsed() > HISTORY_POLL) {
            let mut connection = self.pool.get().await?;
            let history = store::queue::history(&mut connection, &permit, queue.at(), WINDOW, SAMPLES).await?;
            log.history = Some((Instant::now(), history));
        }
        let waits = log.history.as_ref().map(|(_, history)| queue.expected_waits(&[job], history));
        Ok(Some((why, waits.and_then(|mut waits| waits.remove(&job)))))
    }

    /// Reads the last line of the build's log, as its owner, unless it is known.
    async fn read(&self, state: &JobState, log: &mut Log) -> Result<(), Unknown> {
        let Some(last) = state.last_log_id.filter(|last| *last > log.seen) else { return Ok(()) };
        log.seen = last;
        let mut connection = self.pool.get().await?;
        if log.permit.is_none() {
            let load = LoadActors::check(&CHAT_DAEMON)?;
            let owner = store::actors::load(&mut connection, &load, self.owner).await?;
            log.permit = Some(ReadJobLogs::check(&owner, self.organization)?);
        }
        let Some(permit) = &log.permit else { return Ok(()) };
        let lines = store::job_logs::after(&mut connection, permit, state.id, last - 1).await?;
        if let Some(line) = lines.last() {
            (log.seen, log.line) = (line.id, Some(in_words(line)));
        }
        Ok(())
    }
}

/// What is known of the log of a build.
#[derive(Default)]
struct Log {
    permit: Option<ReadJobLogs>,
    seen: i64,
    line: Option<String>,
    /// The history of the organization, and when it was read.
    history: Option<(Instant, History)>,
}

/// Seconds, or minutes from two minutes on.
fn short(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

fn in_words(line: &JobLog) -> String {
    match line.output.trim() {
        "" => line.stage.clone(),
        output => format!("{}: {output}", line.stage),
    }
}
