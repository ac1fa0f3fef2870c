//! Waiting for jobs: for the end of one, for its log lines, for every change in an organization; and the queue, for
//! those who ask often.
//!
//! A process listens on one connection and asks for all jobs that it waits for with one statement. A writer calls
//! [`Watcher::announce`] after its commit. Announcements are collected for some milliseconds and sent together on a
//! connection of their own: NOTIFY inside the transactions would make writers wait for each other. The poll finds
//! changes that are not announced, because their writer is another program or the listening connection was down.
//!
//! A waiter is registered before its job is read, so that no change falls between the two.
//!
//! ```no_run
//! # async fn example(
//! #     pool: coderdb::pool::Pool,
//! #     permit: coderdb::authz::ReadJobs,
//! #     job: coderdb::model::JobId,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use coderdb::watch::{Settings, Watcher};
//!
//! let watcher = Watcher::start(&pool, Settings::default());
//! let job = watcher.wait(&permit, job, std::time::Duration::from_mins(10)).await?;
//! println!("{}", job.status);
//! # Ok(())
//! # }
//! ```

mod announcer;
mod build;
mod follow;
mod listener;
mod queue;

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    authz::{Actor, ReadJobs, System, WatchJobs},
    connect::Pooler,
    model::{Entity, JobId, JobState, JobStatus, OrganizationId},
    pool::{self, Pool},
    store,
};
pub use announcer::announce;
pub use build::BuildFollower;
pub use follow::LogFollower;

/// How a watcher behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The longest time until a change that its writer does not announce is seen. While jobs are waited for, one
    /// statement per interval reads these jobs by their primary keys.
    pub poll: Duration,
    /// The same for organizations whose changes are followed: one statement per interval and organization, which reads
    /// all of its active jobs.
    pub poll_organizations: Duration,
    /// How long changes are gathered before they are sent, and before they are looked at.
    pub gather: Duration,
    /// Whether to listen, and to announce to other processes; if not, announcements reach this process alone. LISTEN
    /// does not work through a pooler in transaction mode: there, announcements are sent, and changes are found by the
    /// poll.
    pub listen: bool,
}

/// Jobs every 200 milliseconds, because Coder's own server does not announce; organizations every 1.1 seconds.
impl Default for Settings {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(200),
            poll_organizations: Duration::from_millis(1_100),
            gather: Duration::from_millis(8),
            listen: true,
        }
    }
}

/// Why waiting failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such job where the permit reaches, or the database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There was no connection.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// The queue could not be looked at; all who ask in the same second are told so.
    #[error(transparent)]
    Queue(Arc<Self>),
    /// The job did not end in time.
    #[error("the provisioner job {id} is still {} after {waited:?}", status.map_or("unknown", JobStatus::as_str))]
    Deadline {
        /// The job.
        id: JobId,
        /// Where it stands; `None` when the database did not answer in all that time.
        status: Option<JobStatus>,
        /// How long the caller waited.
        waited: Duration,
    },
}

/// What this process waits for. A clone is the same watcher; it ends with the last one.
#[derive(Clone)]
pub struct Watcher {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// What the watcher, its tasks and its waiters share.
struct Shared {
    pool: Pool,
    permit: WatchJobs,
    settings: Settings,
    state: Mutex<State>,
    /// There is something to look at.
    look: Notify,
    /// There is something to announce.
    send: Notify,
    queue: queue::Kept,
}

#[derive(Default)]
struct State {
    jobs: HashMap<JobId, watch::Sender<Seen>>,
    organizations: HashMap<OrganizationId, Organization>,
    /// Jobs to read, and whether their change was announced.
    changed: HashMap<JobId, bool>,
    /// Changes to announce.
    outgoing: HashSet<Change>,
}

/// An organization whose changes are followed.
struct Organization {
    events: broadcast::Sender<JobState>,
    /// Its active jobs as they were last seen; `None` before the first look.
    active: watch::Sender<Option<HashMap<JobId, JobStatus>>>,
}

/// What is known of a job that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    NotYet,
    Missing,
    There(JobState),
}

/// A job that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// The job: its status, or its logs.
    pub job: JobId,
    /// Whose it is.
    pub organization: OrganizationId,
}

/// The tasks, which end with the watcher.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Watcher {
    /// Starts listening, on a connection beside those of the pool, and looking, with connections of the pool.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(pool: &Pool, settings: Settings) -> Self {
        let permit = WatchJobs::check(&Actor::system(System::Watcher)).expect("the watcher watches");
        let shared = Arc::new(Shared {
            pool: pool.clone(),
            permit,
            settings,
            state: Mutex::default(),
            look: Notify::new(),
            send: Notify::new(),
            queue: queue::Kept::default(),
        });
        let mut tasks = vec![tokio::spawn(look(shared.clone())), tokio::spawn(announcer::run(shared.clone()))];
        if settings.listen && pool.options().get_pooler() == Pooler::Session {
            tasks.push(tokio::spawn(listener::run(shared.clone())));
        }
        Self { shared, _tasks: Arc::new(Tasks(tasks)) }
    }

    /// Says that a job has changed, to call after the commit. Returns at once; the others learn of it a few
    /// milliseconds later, those who wait in this process without the detour over the server.
    pub fn announce(&self, change: Change) {
        let mut state = self.shared.state();
        state.note(change);
        if self.shared.settings.listen && state.outgoing.insert(change) {
            self.shared.send.notify_one();
        }
        drop(state);
        self.shared.queue.has_changed();
        self.shared.look.notify_one();
    }

    /// Waits until the job is completed, and returns how. Costs no round trip of its own: all waiters share one
    /// statement. Cancel it by dropping it.
    ///
    /// # Errors
    /// [`Error::Deadline`]; [`Error::Store`] with [`store::Error::NotFound`] when the permit's organization has no such
    /// job.
    pub async fn wait(&self, permit: &ReadJobs, id: JobId, deadline: Duration) -> Result<JobState, Error> {
        self.wait_in(permit.organization(), id, deadline).await
    }

    async fn wait_in(&self, organization: OrganizationId, id: JobId, deadline: Duration) -> Result<JobState, Error> {
        let mut seen = self.register(id);
        let ended = seen.wait_for(|seen| match seen {
            Seen::NotYet => false,
            Seen::Missing => true,
            Seen::There(state) => state.organization_id != organization || state.status.is_final(),
        });
        let ended = match timeout(deadline, ended).await {
            Ok(seen) => seen.map(|seen| seen.clone()).ok(),
            Err(_) => None,
        };
        match ended {
            Some(Seen::There(state)) if state.organization_id == organization => Ok(state),
            Some(_) => Err(store::Error::not_found(Entity::Job, id).into()),
            None => {
                let status = match &*seen.borrow() {
                    Seen::There(state) => Some(state.status),
                    _ => None,
                };
                Err(Error::Deadline { id, status, waited: deadline })
            }
        }
    }

    /// All changes of jobs of the organization from now on: the next one from [`Changes::next`]. Returns after the
    /// first look at the organization, however long the database takes to answer; it may be dropped.
    pub async fn changes(&self, permit: &ReadJobs) -> Changes {
        let (events, mut active) = {
            let mut state = self.shared.state();
            let organization = state.organizations.entry(permit.organization()).or_insert_with(|| Organization {
                events: broadcast::channel(4_096).0,
                active: watch::Sender::new(None),
            });
            (organization.events.subscribe(), organization.active.subscribe())
        };
        self.shared.look.notify_one();
        // Every change after this read is an event.
        let _ = active.wait_for(Option::is_some).await;
        Changes { events, _watcher: self.clone() }
    }

    /// Registers a waiter for the job; the job is read after that, so that no change is missed.
    fn register(&self, id: JobId) -> watch::Receiver<Seen> {
        let mut state = self.shared.state();
        let sender = state.jobs.entry(id).or_insert_with(|| watch::Sender::new(Seen::NotYet));
        // It may be there by now.
        sender.send_if_modified(|seen| *seen == Seen::Missing && mem::replace(seen, Seen::NotYet) == Seen::Missing);
        let receiver = sender.subscribe();
        state.changed.entry(id).or_default();
        drop(state);
        self.shared.look.notify_one();
        receiver
    }
}

/// Without the pool, which knows how to connect.
impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// The changes of jobs of an organization.
pub struct Changes {
    events: broadcast::Receiver<JobState>,
    _watcher: Watcher,
}

/// What there is to know next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// This job is new, has another status than before, or has logged something.
    Job(JobState),
    /// The caller was too slow: so many changes are lost to it, and it should read the list again.
    Missed(u64),
}

impl Changes {
    /// The next change, as soon as there is one; `None` when the watcher has ended.
    pub async fn next(&mut self) -> Option<Changed> {
        match self.events.recv().await {
            Ok(state) => Some(Changed::Job(state)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Changed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notifications may have been missed.
    fn look_at_everything(&self) {
        self.state().look_up_all();
        self.queue.has_changed();
        self.look.notify_one();
    }
}

impl State {
    fn note(&mut self, Change { job, organization }: Change) {
        if self.jobs.contains_key(&job) || self.organizations.contains_key(&organization) {
            self.changed.insert(job, true);
        }
    }

    /// Forgets who no longer waits, and has the jobs of the others looked up.
    fn look_up_all(&mut self) {
        self.jobs.retain(|_, sender| sender.receiver_count() > 0);
        self.organizations.retain(|_, organization| organization.events.receiver_count() > 0);
        for (id, _) in self.jobs.iter().filter(|(_, sender)| !is_over(sender)) {
            self.changed.entry(*id).or_default();
        }
    }

    /// Passes the states of these jobs on to their waiters. A job that was asked for and not found does not exist.
    ///
    /// Returns whether the status of one of them has changed.
    fn tell(&mut self, asked: &HashMap<JobId, bool>, found: Vec<JobState>) -> bool {
        let mut is_news = false;
        let mut missing: HashSet<&JobId> = asked.keys().collect();
        for state in found {
            missing.remove(&state.id);
            if let Some(sender) = self.jobs.get(&state.id) {
                let new = Seen::There(state.clone());
                is_news |= sender.send_if_modified(|seen| mem::replace(seen, new.clone()) != new);
            }
            if let Some(organization) = self.organizations.get(&state.organization_id) {
                let announced = asked.get(&state.id) == Some(&true);
                organization.tell(state, announced);
            }
        }
        // Who came while the answer was on its way has been asked for again, and may have come later than the job.
        for id in missing.into_iter().filter(|id| !self.changed.contains_key(id)) {
            if let Some(sender) = self.jobs.get(id) {
                is_news |= sender.send_if_modified(|seen| mem::replace(seen, Seen::Missing) != Seen::Missing);
            }
        }
        is_news
    }
}

fn is_over(sender: &watch::Sender<Seen>) -> bool {
    matches!(&*sender.borrow(), Seen::There(state) if state.status.is_final())
}

impl Organization {
    /// Sends an event for an announced change, and for a status that differs from the one before.
    fn tell(&self, state: JobState, announced: bool) {
        let mut is_news = announced;
        self.active.send_if_modified(|active| {
            if let Some(active) = active {
                is_news |= if state.status.is_final() {
                    active.remove(&state.id).is_some()
                } else {
                    active.insert(state.id, state.status) != Some(state.status)
                };
            }
            false
        });
        if is_news {
            // The last follower may have gone.
            let _ = self.events.send(state);
        }
    }
}

/// Looks at what has changed, and at everything once in a while.
async fn look(shared: Arc<Shared>) {
    let every = |period: Duration| {
        // An interval of nothing is a panic.
        let mut every = interval(period.max(Duration::from_millis(1)));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every
    };
    let (mut poll, mut poll_organizations) = (every(shared.settings.poll), every(shared.settings.poll_organizations));
    let mut digests: HashMap<OrganizationId, String> = HashMap::new();
    loop {
        let everywhere = tokio::select! {
            _ = poll_organizations.tick() => true,
            _ = poll.tick() => {
                shared.state().look_up_all();
                false
            }
            () = shared.look.notified() => {
                sleep(shared.settings.gather).await;
                false
            }
        };
        if let Err(error) = look_once(&shared, &mut digests, everywhere).await {
            tracing::warn!(name: "watch.look_failed", error = %error, "cannot look at the jobs that are waited for");
            sleep(shared.settings.poll.min(Duration::from_millis(250))).await;
            shared.look_at_everything();
        }
    }
}

async fn look_once(
    shared: &Shared,
    digests: &mut HashMap<OrganizationId, String>,
    everywhere: bool,
) -> Result<(), Error> {
    let mut asked = mem::take(&mut shared.state().changed);
    let looked = look_at(shared, digests, everywhere, &mut asked).await;
    looked.inspect_err(|_| shared.state().changed.extend(asked))
}

async fn look_at(
    shared: &Shared,
    digests: &mut HashMap<OrganizationId, String>,
    everywhere: bool,
    asked: &mut HashMap<JobId, bool>,
) -> Result<(), Error> {
    let organizations = {
        let state = shared.state();
        // One that was forgotten, and is watched again since, has not been looked at.
        let is_known = |organization: &Organization| organization.active.borrow().is_some();
        digests.retain(|id, _| state.organizations.get(id).is_some_and(is_known));
        // Between two polls, only those that have not been looked at.
        let due = |id: &&OrganizationId| everywhere || !digests.contains_key(id);
        state.organizations.keys().filter(due).copied().collect::<Vec<_>>()
    };
    let mut connection = None;
    for id in organizations {
        let connection = pooled(shared, &mut connection).await?;
        let digest = digests.get(&id).map(String::as_str);
        let active = store::changes::active(connection, &shared.permit, id, digest).await?;
        if let Some(jobs) = active.jobs {
            shared.queue.has_changed();
            let now: HashMap<_, _> = jobs.into_iter().collect();
            let state = shared.state();
            if let Some(organization) = state.organizations.get(&id) {
                let before = organization.active.borrow().clone();
                match before {
                    None => drop(organization.active.send_replace(Some(now))),
                    Some(before) => {
                        let changed = now.iter().filter(|(job, status)| before.get(job) != Some(status));
                        let gone = before.keys().filter(|job| !now.contains_key(job));
                        for job in changed.map(|(job, _)| job).chain(gone) {
                            asked.entry(*job).or_default();
                        }
                    }
                }
            }
        }
        digests.insert(id, active.digest);
    }
    if asked.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = asked.keys().copied().collect();
    let found = store::changes::of_jobs(pooled(shared, &mut connection).await?, &shared.permit, &ids).await?;
    if shared.state().tell(asked, found) {
        shared.queue.has_changed();
    }
    Ok(())
}

async fn pooled<'c>(
    shared: &Shared,
    connection: &'c mut Option<pool::Connection>,
) -> Result<&'c mut pool::Connection, Error> {
    if connection.is_none() {
        *connection = Some(shared.pool.get().await?);
    }
    Ok(connection.as_mut().expect("it was just put there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_while_the_answer_was_on_its_way_is_not_told_that_the_job_is_missing() {
        let (mut state, id) = (State::default(), JobId(uuid::Uuid::nil()));
        let seen = state.jobs.entry(id).or_insert_with(|| watch::Sender::new(Seen::NotYet)).subscribe();
        let asked = HashMap::from([(id, false)]);
        // The answer is older than the second question.
        state.changed.insert(id, false);
        state.tell(&asked, Vec::new());
        assert_eq!(*seen.borrow(), Seen::NotYet);
        state.changed.clear();
        state.tell(&asked, Vec::new());
        assert_eq!(*seen.borrow(), Seen::Missing);
    }
}
