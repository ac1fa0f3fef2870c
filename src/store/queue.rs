//! What waits and why, for those who ask often: read with one statement, and asked without any
//! (domain: claims; positions).

mod capacity;
mod fleet;
mod forecast;
mod history;
mod replay;
mod shares;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::{Map, Value};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoredJson, Timestamp, input, query::Query as _};
use crate::{
    authz::{ReadJobs, ReadQueue},
    model::{
        Capabilities, DaemonCounts, FurtherDaemon, JobId, Label, OrganizationId, ProvisionerType, QueuePosition,
        TagQueue, Tags, WhyWaiting, tags_serve,
    },
};
use fleet::{Fleet, Group};
pub use history::{History, history};
pub use shares::shares;

/// What waits in all organizations, and the daemons that could take it, at one moment. A clone is the same.
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

/// A [`Snapshot`] as those see it who may read the jobs of one organization, or of all. A clone is the same.
#[derive(Clone)]
pub struct View {
    snapshot: Snapshot,
    /// `None` for all of them.
    organization: Option<OrganizationId>,
}

struct Inner {
    at: OffsetDateTime,
    /// All that a daemon could take, in the order in which it would.
    jobs: Vec<Job>,
    index: HashMap<JobId, usize>,
    kinds: Vec<Kind>,
    /// The jobs that a daemon took and does not work on, or that are being canceled.
    taken: HashMap<JobId, (OrganizationId, WhyWaiting)>,
    fleet: Fleet,
    listed: Ranks,
    by_tags: OnceLock<Ranks>,
    by_claim: OnceLock<Ranks>,
}

/// A job that was not started and is not completed.
struct Job {
    id: JobId,
    /// In microseconds, as the database compares them.
    created_at: i64,
    is_prebuild: bool,
    state: State,
    kind: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    /// With an empty error: pending by its status, but not in the listing (domain: positions).
    PendingUnlisted,
    Failed,
    Canceling,
}

/// Jobs that the same daemons can take.
struct Kind {
    organization: OrganizationId,
    provisioner: Label<ProvisionerType>,
    /// As stored.
    tags: Arc<Value>,
    /// The groups of daemons, of all organizations, whose tags serve these.
    served_by: Arc<[usize]>,
}

/// The positions of all jobs by one definition.
struct Ranks {
    /// By job: the best position in any queue; 0 for none.
    positions: Vec<u32>,
    /// By kind: the longest queue.
    sizes: Vec<u32>,
}

impl Ranks {
    /// Each queue is a set of kinds. One pass over the jobs that count, and in it over the queues of each.
    fn new(inner: &Inner, queues: HashSet<Vec<usize>>, counts: impl Fn(State) -> bool) -> Self {
        let mut queues_of = vec![Vec::new(); inner.kinds.len()];
        let mut seen = vec![0; queues.len()];
        for (queue, kinds) in queues.into_iter().enumerate() {
            for kind in kinds {
                queues_of[kind].push(queue);
            }
        }
        let mut position = |job: &Job| {
            let positions = queues_of[job.kind].iter().map(|queue| {
                seen[*queue] += 1;
                seen[*queue]
            });
            positions.min().unwrap_or(0)
        };
        let positions = inner.jobs.iter().map(|job| if counts(job.state) { position(job) } else { 0 }).collect();
        let longest = |queues: &Vec<usize>| queues.iter().map(|queue| seen[*queue]).max().unwrap_or(0);
        Self { positions, sizes: queues_of.iter().map(longest).collect() }
    }

    fn position(&self, job: usize, kind: usize) -> QueuePosition {
        match self.positions[job] {
            0 => QueuePosition::default(),
            position => QueuePosition { position: position.into(), size: self.sizes[kind].into() },
        }
    }
}

struct Row {
    organization_id: Option<OrganizationId>,
    provisioners: Option<Vec<Label<ProvisionerType>>>,
    tags: Option<StoredJson>,
    waiting: Option<Vec<u8>>,
    offline: Option<i64>,
    idle: Option<i64>,
    busy: Option<i64>,
    last_seen_at: Option<Timestamp>,
    taken: Option<JobId>,
    is_worker_there: Option<bool>,
    is_worker_silent: Option<bool>,
}

/// What waits in all organizations, and the daemons that could take it. One round trip, one snapshot, no locks; costs
/// one pass over what waits, over the daemons and over what they work on.
///
/// A daemon is online when it was seen within `stale_interval` before `now`, usually
/// [`STALE_INTERVAL`](super::jobs::STALE_INTERVAL).
///
/// ```no_run
/// use coderdb::{authz::{Actor, ReadJobs, ReadQueue, System}, model::JobId, store};
///
/// # async fn doc(conn: &mut coderdb::sqlx::PgConnection, who: &Actor, job: JobId) -> Result<(), store::Error> {
/// let permit = ReadQueue::check(&Actor::system(System::Watcher))?;
/// let now = time::OffsetDateTime::now_utc();
/// let snapshot = store::queue::snapshot(conn, &permit, now, store::jobs::STALE_INTERVAL).await?;
/// // A caller sees one organization.
/// let organization = store::organizations::default(conn, &coderdb::authz::ReadOrganizations::check(who)).await?;
/// let queue = snapshot.of(&ReadJobs::check(who, organization.id)?);
/// match queue.why(job) {
///     Some(why) => println!("{job} waits: {why}"),
///     None => println!("{job} does not wait"),
/// }
/// # Ok(()) }
/// ```
#[tracing::instrument(name = "db.queue.snapshot", skip_all)]
pub async fn snapshot(
    conn: &mut PgConnection,
    _permit: &ReadQueue,
    now: OffsetDateTime,
    stale_interval: Duration,
) -> Result<Snapshot> {
    let rows = sqlx::query_file_as!(Row, "queries/queue/snapshot.sql", input::before(now, stale_interval)?)
        .fetch_all(conn)
        .of_query("queue/snapshot")
        .await?;
    Ok(Snapshot(Arc::new(Inner::new(now, rows))))
}

impl Snapshot {
    /// What those see of it who may read the jobs of an organization.
    #[must_use]
    pub fn of(&self, permit: &ReadJobs) -> View {
        View { snapshot: self.clone(), organization: Some(permit.organization()) }
    }

    /// All of it, which took a [`ReadQueue`].
    #[must_use]
    pub fn everywhere(&self) -> View {
        View { snapshot: self.clone(), organization: None }
    }
}

impl Inner {
    fn new(at: OffsetDateTime, rows: Vec<Row>) -> Self {
        let (mut fleet, mut taken, mut waiting) = (Fleet::default(), HashMap::new(), Vec::new());
        for row in rows {
            // Tags that cannot be read: a daemon's serve no tag, and no daemon's serve a job's.
            let unread = if row.waiting.is_some() { Value::Null } else { Value::Object(Map::new()) };
            let tags = row.tags.and_then(|tags| tags.0).unwrap_or(unread);
            let provisioners = row.provisioners.unwrap_or_default();
            match (row.organization_id, row.waiting, row.taken) {
                (_, Some(jobs), _) => {
                    waiting.extend(provisioners.into_iter().next().map(|it| (it, Arc::new(tags), jobs)));
                }
                (Some(organization), _, Some(job)) => {
                    let why = match (row.is_worker_there, row.is_worker_silent) {
                        (Some(false), _) => WhyWaiting::DaemonGone,
                        (_, Some(true)) => WhyWaiting::DaemonSilent { last_seen_at: row.last_seen_at.map(|at| at.0) },
                        _ => WhyWaiting::Canceling,
                    };
                    taken.insert(job, (organization, why));
                }
                (Some(organization), ..) => fleet.add(Group {
                    organization,
                    provisioners,
                    tags,
                    counts: DaemonCounts {
                        offline: row.offline.unwrap_or(0),
                        idle: row.idle.unwrap_or(0),
                        busy: row.busy.unwrap_or(0),
                    },
                    last_seen_at: row.last_seen_at.map(|at| at.0),
                }),
                (None, None, _) => {}
            }
        }
        let (mut jobs, mut kinds) = (Vec::new(), Vec::new());
        for (provisioner, tags, packed) in waiting {
            let served_by: Arc<[usize]> = fleet.serving(&tags).into();
            let mut known = HashMap::new();
            for job in packed.chunks_exact(Packed::BYTES).filter_map(Packed::read) {
                let kind = *known.entry(job.organization).or_insert_with(|| {
                    let (tags, served_by) = (Arc::clone(&tags), Arc::clone(&served_by));
                    let provisioner = provisioner.clone();
                    kinds.push(Kind { organization: job.organization, provisioner, tags, served_by });
                    kinds.len() - 1
                });
                let Packed { id, created_at, is_prebuild, state, .. } = job;
                jobs.push(Job { id, created_at, is_prebuild, state, kind });
            }
        }
        jobs.sort_unstable_by_key(|job| (job.is_prebuild, job.created_at, job.id));
        let index = jobs.iter().enumerate().map(|(n, job)| (job.id, n)).collect();
        let listed = Ranks { positions: Vec::new(), sizes: Vec::new() };
        let (by_tags, by_claim) = (OnceLock::new(), OnceLock::new());
        let mut new = Self { at, jobs, index, kinds, taken, fleet, listed, by_tags, by_claim };
        let everything = HashSet::from([(0..new.kinds.len()).collect()]);
        new.listed = Ranks::new(&new, everything, |state| state == State::Pending);
        new
    }

    /// Ranked by tags alone (domain: positions), in all organizations, over the tag sets of the daemons that are
    /// online.
    fn by_tags(&self) -> &Ranks {
        self.by_tags.get_or_init(|| {
            let pending = |state| matches!(state, State::Pending | State::PendingUnlisted);
            Ranks::new(self, self.queues(|_, _| true), pending)
        })
    }

    /// Ranked by the rule of the claim: what each of the daemons that are online can take.
    fn by_claim(&self) -> &Ranks {
        self.by_claim.get_or_init(|| Ranks::new(self, self.queues(Group::may_take), |_| true))
    }

    /// The queues of the groups that are online, each once: what each takes of the kinds that its tags serve.
    fn queues(&self, takes: impl Fn(&Group, &Kind) -> bool) -> HashSet<Vec<usize>> {
        let mut queues = vec![Vec::new(); self.fleet.groups().len()];
        for (n, kind) in self.kinds.iter().enumerate() {
            for group in kind.served_by.iter().copied() {
                let daemons = &self.fleet.groups()[group];
                if daemons.counts.online() > 0 && takes(daemons, kind) {
                    queues[group].push(n);
                }
            }
        }
        queues.into_iter().collect()
    }

    fn groups_of(&self, kind: &Kind) -> impl Iterator<Item = &Group> {
        kind.served_by.iter().map(|group| &self.fleet.groups()[*group])
    }

    fn counts(&self, kind: &Kind) -> DaemonCounts {
        let mut counts = DaemonCounts::default();
        for group in self.groups_of(kind).filter(|group| group.may_take(kind)) {
            counts += group.counts;
        }
        counts
    }

    fn why(&self, job: usize) -> WhyWaiting {
        let Job { state, kind, .. } = self.jobs[job];
        let (number, kind) = (kind, &self.kinds[kind]);
        if state == State::Canceling {
            return WhyWaiting::Canceling;
        }
        let tagged: Vec<_> = self.groups_of(kind).filter(|it| it.organization == kind.organization).collect();
        if tagged.is_empty() {
            if !self.fleet.is_in(kind.organization) {
                return WhyWaiting::NoDaemons;
            }
            let missing = self.fleet.missing(kind.organization, &kind.tags);
            return WhyWaiting::NoDaemonHasTags { tags: Value::clone(&kind.tags).into(), missing };
        }
        let able: Vec<&Group> = tagged.iter().copied().filter(|group| group.may_take(kind)).collect();
        if able.is_empty() {
            let mut running: Vec<_> = tagged.iter().flat_map(|group| group.provisioners.iter().cloned()).collect();
            running.sort_unstable();
            running.dedup();
            return WhyWaiting::OtherProvisioners { provisioner: kind.provisioner.clone(), running };
        }
        let counts = self.counts(kind);
        if counts.online() == 0 {
            let last_seen_at = able.iter().filter_map(|group| group.last_seen_at).max();
            return WhyWaiting::AllOffline { daemons: counts.offline, last_seen_at };
        }
        let position = self.by_claim().position(job, number);
        if counts.idle == 0 {
            return WhyWaiting::AllBusy { daemons: counts.busy, position };
        }
        WhyWaiting::Ranked(position)
    }
}

impl View {
    /// When it was read.
    #[must_use]
    pub fn at(&self) -> OffsetDateTime {
        self.snapshot.0.at
    }

    /// All that a daemon could take, in the queue order.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        let inner = &*self.snapshot.0;
        inner.jobs.iter().filter(|job| self.shows(inner.kinds[job.kind].organization)).map(|job| job.id)
    }

    /// The position among all jobs that wait anywhere, as in the listing (domain: positions): the size is the same for
    /// every job, also for one that does not wait.
    #[must_use]
    pub fn position_in_list(&self, job: JobId) -> QueuePosition {
        let inner = &*self.snapshot.0;
        let position = self.find(job).map_or(0, |job| inner.listed.positions[job]);
        // All kinds are in the one queue.
        QueuePosition { position: position.into(), size: inner.listed.sizes.first().copied().unwrap_or(0).into() }
    }

    /// The best position over the tag sets of the daemons that are online, and the longest of their queues
    /// (domain: positions).
    #[must_use]
    pub fn position_by_tags(&self, job: JobId) -> QueuePosition {
        let inner = &*self.snapshot.0;
        self.find(job).map_or(QueuePosition::default(), |job| inner.by_tags().position(job, inner.jobs[job].kind))
    }

    /// Why the job waits; `None` for a job that a daemon works on, that has ended, or that is not there.
    #[must_use]
    pub fn why(&self, job: JobId) -> Option<WhyWaiting> {
        let inner = &*self.snapshot.0;
        let taken = inner.taken.get(&job).filter(|(organization, _)| self.shows(*organization));
        taken.map(|(_, why)| why.clone()).or_else(|| self.find(job).map(|job| inner.why(job)))
    }

    /// The pending jobs by what a daemon must be to take them: the longest queue first.
    #[must_use]
    pub fn by_tags(&self) -> Vec<TagQueue> {
        let inner = &*self.snapshot.0;
        let mut queues: Vec<Option<TagQueue>> = inner.kinds.iter().map(|_| None).collect();
        let pending = |job: &&Job| matches!(job.state, State::Pending | State::PendingUnlisted);
        for job in inner.jobs.iter().filter(pending) {
            let kind = &inner.kinds[job.kind];
            let created_at = Timestamp::from_microseconds(job.created_at).0;
            let queue = queues[job.kind].get_or_insert_with(|| TagQueue {
                organization_id: kind.organization,
                tags: Value::clone(&kind.tags).into(),
                provisioner: kind.provisioner.clone(),
                jobs: 0,
                prebuilds: 0,
                oldest: created_at,
                daemons: inner.counts(kind),
            });
            queue.jobs += 1;
            queue.prebuilds += i64::from(job.is_prebuild);
            queue.oldest = queue.oldest.min(created_at);
        }
        let mut queues: Vec<_> = queues.into_iter().flatten().filter(|it| self.shows(it.organization_id)).collect();
        queues.sort_by(|a, b| {
            let key = |it: &TagQueue| (-it.jobs, it.organization_id);
            key(a).cmp(&key(b)).then_with(|| (&a.provisioner, &a.tags).cmp(&(&b.provisioner, &b.tags)))
        });
        queues
    }

    /// The pending job of a queue out of [`by_tags`](Self::by_tags) that is the last in the queue order.
    #[must_use]
    pub fn last(&self, queue: &TagQueue) -> Option<JobId> {
        let inner = &*self.snapshot.0;
        let is_of_queue = |kind: &Kind| {
            kind.organization == queue.organization_id
                && self.shows(kind.organization)
                && kind.provisioner == queue.provisioner
                && Tags::from(Value::clone(&kind.tags)) == queue.tags
        };
        let of_queue: Vec<bool> = inner.kinds.iter().map(is_of_queue).collect();
        let is_pending = |job: &&Job| matches!(job.state, State::Pending | State::PendingUnlisted);
        inner.jobs.iter().rev().filter(is_pending).find(|job| of_queue[job.kind]).map(|job| job.id)
    }

    /// What one more daemon of the organization with these tags and provisioners could take of what waits.
    #[must_use]
    pub fn further_daemon(&self, organization: OrganizationId, daemon: Capabilities<'_>) -> FurtherDaemon {
        let inner = &*self.snapshot.0;
        let tags = Value::from_iter(daemon.tags.0.clone());
        let takes = |kind: &Kind| {
            kind.organization == organization
                && self.shows(organization)
                && kind.provisioner.known().is_some_and(|it| daemon.provisioners.contains(&it))
                && tags_serve(&tags, &kind.tags)
        };
        let takes: Vec<bool> = inner.kinds.iter().map(takes).collect();
        let unserved: Vec<bool> = inner.kinds.iter().map(|kind| inner.counts(kind).online() == 0).collect();
        let mut further = FurtherDaemon::default();
        for job in inner.jobs.iter().filter(|job| takes[job.kind]) {
            further.jobs += 1;
            further.prebuilds += i64::from(job.is_prebuild);
            further.unserved += i64::from(unserved[job.kind]);
            further.first.get_or_insert(job.id);
        }
        further
    }

    fn shows(&self, organization: OrganizationId) -> bool {
        self.organization.is_none_or(|shown| shown == organization)
    }

    fn find(&self, job: JobId) -> Option<usize> {
        let inner = &*self.snapshot.0;
        let n = *inner.index.get(&job)?;
        self.shows(inner.kinds[inner.jobs[n].kind].organization).then_some(n)
    }
}

/// A job as the statement packs it.
struct Packed {
    id: JobId,
    created_at: i64,
    organization: OrganizationId,
    is_prebuild: bool,
    state: State,
}

impl Packed {
    const BYTES: usize = 42;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (created_at, rest) = rest.split_first_chunk()?;
        let (organization, rest) = rest.split_first_chunk()?;
        let flags = u16::from_be_bytes(rest.try_into().ok()?);
        Some(Self {
            id: JobId(Uuid::from_bytes(*id)),
            created_at: i64::from_be_bytes(*created_at),
            organization: OrganizationId(Uuid::from_bytes(*organization)),
            is_prebuild: flags & 4 != 0,
            state: match flags & 3 {
                0 => State::Pending,
                1 => State::PendingUnlisted,
                2 => State::Failed,
                _ => State::Canceling,
            },
        })
    }
}
