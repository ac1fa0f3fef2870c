//! Compares a snapshot of the queue with the model, by brute force.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use coderdb::{
    authz::{Actor, ReadQueue, System},
    model::{
        DaemonCounts, FurtherDaemon, JobId, Label, OrganizationId, ProvisionerType, QueuePosition, TagQueue, Tags,
        WhyWaiting,
    },
    sqlx::PgConnection,
    store::{
        self,
        queue::{Snapshot, View},
    },
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{
    self,
    model::{DaemonRow, JobRow, Model, PREBUILDS, tagset_contains},
    random_database::{self as rows},
    states::Classes,
};

pub async fn snapshot(conn: &mut PgConnection, now: OffsetDateTime, stale: Duration) -> Snapshot {
    let permit = ReadQueue::check(&Actor::system(System::Watcher)).expect("the watcher");
    store::queue::snapshot(conn, &permit, now, stale).await.expect("a snapshot")
}

/// The model, and the moment that it is looked at.
pub struct At<'a> {
    pub model: &'a Model,
    pub now: OffsetDateTime,
    pub stale: Duration,
    queues: OnceCell<HashMap<Uuid, HashMap<Uuid, usize>>>,
}

impl<'a> At<'a> {
    pub fn new(model: &'a Model, now: OffsetDateTime, stale: Duration) -> Self {
        Self { model, now, stale, queues: OnceCell::new() }
    }

    /// Where each job is among those that the daemon could take.
    fn queue(&self, daemon: &DaemonRow) -> &HashMap<Uuid, usize> {
        let queue = |daemon: &DaemonRow| {
            let claims = self.claims(daemon);
            (daemon.id, claims.iter().enumerate().map(|(n, job)| (job.id, n + 1)).collect())
        };
        &self.queues.get_or_init(|| self.model.provisioner_daemons.iter().map(queue).collect())[&daemon.id]
    }

    pub fn is_online(&self, daemon: &DaemonRow) -> bool {
        daemon.last_seen_at.is_some_and(|seen| self.now - seen <= self.stale)
    }

    /// Whether it took a job that has not ended (domain: daemons).
    pub fn is_busy(&self, daemon: &DaemonRow) -> bool {
        self.model.provisioner_jobs.iter().any(|job| {
            job.worker_id == Some(daemon.id)
                && job.organization_id == daemon.organization_id
                && job.completed_at.is_none()
        })
    }

    pub fn counts<'d>(&self, daemons: impl Iterator<Item = &'d DaemonRow>) -> DaemonCounts {
        let mut counts = DaemonCounts::default();
        for daemon in daemons {
            match (self.is_online(daemon), self.is_busy(daemon)) {
                (false, _) => counts.offline += 1,
                (true, true) => counts.busy += 1,
                (true, false) => counts.idle += 1,
            }
        }
        counts
    }

    /// All that a daemon could take, in the order in which it would (domain: claims).
    pub fn claims(&self, daemon: &DaemonRow) -> Vec<&JobRow> {
        let mut claims: Vec<_> =
            self.model.provisioner_jobs.iter().filter(|job| waits(job) && may_take(daemon, job)).collect();
        claims.sort_by_key(|job| (job.initiator_id == PREBUILDS, job.created_at, job.id));
        claims
    }

    pub fn able<'m>(&'m self, job: &'m JobRow) -> impl Iterator<Item = &'m DaemonRow> {
        self.model.provisioner_daemons.iter().filter(move |daemon| may_take(daemon, job))
    }

    pub fn why(&self, job: &JobRow) -> Option<WhyWaiting> {
        if job.completed_at.is_some() {
            return None;
        }
        let all = &self.model.provisioner_daemons;
        if job.started_at.is_some() {
            let worker = all.iter().find(|daemon| Some(daemon.id) == job.worker_id);
            return match worker {
                None => Some(WhyWaiting::DaemonGone),
                Some(worker) if !self.is_online(worker) => {
                    Some(WhyWaiting::DaemonSilent { last_seen_at: worker.last_seen_at })
                }
                Some(_) => job.canceled_at.map(|_| WhyWaiting::Canceling),
            };
        }
        if job.canceled_at.is_some() {
            return Some(WhyWaiting::Canceling);
        }
        let here: Vec<_> = all.iter().filter(|daemon| daemon.organization_id == job.organization_id).collect();
        if here.is_empty() {
            return Some(WhyWaiting::NoDaemons);
        }
        let tagged: Vec<_> = here.iter().filter(|daemon| tagset_contains(&daemon.tags, &job.tags)).collect();
        if tagged.is_empty() {
            let pairs = job.tags.as_object().into_iter().flatten();
            let alone = |key: &String, value: &Value| Value::from_iter([(key.clone(), value.clone())]);
            let missing: Value = pairs
                .filter(|(key, value)| !here.iter().any(|daemon| tagset_contains(&daemon.tags, &alone(key, value))))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            return Some(WhyWaiting::NoDaemonHasTags { tags: job.tags.clone().into(), missing: missing.into() });
        }
        let counts = self.counts(self.able(job));
        if self.able(job).next().is_none() {
            let running: BTreeSet<_> =
                tagged.iter().flat_map(|daemon| &daemon.provisioners).cloned().map(Label::of).collect();
            let (running, provisioner) = (running.into_iter().collect(), Label::of(job.provisioner.clone()));
            return Some(WhyWaiting::OtherProvisioners { provisioner, running });
        }
        let online: Vec<_> = self.able(job).filter(|daemon| self.is_online(daemon)).collect();
        if online.is_empty() {
            let last_seen_at = self.able(job).filter_map(|daemon| daemon.last_seen_at).max();
            return Some(WhyWaiting::AllOffline { daemons: counts.offline, last_seen_at });
        }
        let queues: Vec<_> = online.iter().map(|daemon| self.queue(daemon)).collect();
        let positions = queues.iter().map(|queue| queue[&job.id]);
        let position = QueuePosition {
            position: i64::try_from(positions.min().expect("it is in each of them")).expect("few"),
            size: i64::try_from(queues.iter().map(|queue| queue.len()).max().expect("one")).expect("few"),
        };
        if online.iter().all(|daemon| self.is_busy(daemon)) {
            return Some(WhyWaiting::AllBusy { daemons: counts.busy, position });
        }
        Some(WhyWaiting::Ranked(position))
    }

    pub fn by_tags(&self, organization: Uuid) -> Vec<TagQueue> {
        let pending =
            |job: &&JobRow| job.status() == "pending" && (organization.is_nil() || job.organization_id == organization);
        let mut queues: BTreeMap<(Uuid, Tags, Label<ProvisionerType>), Vec<&JobRow>> = BTreeMap::new();
        for job in self.model.provisioner_jobs.iter().filter(pending) {
            let provisioner = Label::of(job.provisioner.clone());
            queues.entry((job.organization_id, alike(&job.tags.clone().into()), provisioner)).or_default().push(job);
        }
        let queue = |((organization, tags, provisioner), jobs): ((Uuid, Tags, _), Vec<&JobRow>)| TagQueue {
            organization_id: OrganizationId(organization),
            tags,
            provisioner,
            jobs: i64::try_from(jobs.len()).expect("few"),
            prebuilds: i64::try_from(jobs.iter().filter(|job| job.initiator_id == PREBUILDS).count()).expect("few"),
            oldest: jobs.iter().map(|job| job.created_at).min().expect("one"),
            daemons: self.counts(self.able(jobs[0])),
        };
        queues.into_iter().map(queue).collect()
    }

    pub fn further(&self, daemon: &DaemonRow) -> FurtherDaemon {
        let claims = self.claims(daemon);
        let count = |counts: &dyn Fn(&JobRow) -> bool| {
            i64::try_from(claims.iter().filter(|job| counts(job)).count()).expect("few")
        };
        FurtherDaemon {
            jobs: count(&|_| true),
            prebuilds: count(&|job| job.initiator_id == PREBUILDS),
            unserved: count(&|job| !self.able(job).any(|daemon| self.is_online(daemon))),
            first: claims.first().map(|job| JobId(job.id)),
        }
    }
}

/// Tag sets that are equal in the database may be written in two ways, and are read in one of them.
pub fn alike(tags: &Tags) -> Tags {
    tags.0.iter().map(|(key, value)| (key.clone(), if value == "1.0" { "1" } else { value.as_str() })).collect()
}

pub fn alike_why(why: WhyWaiting) -> WhyWaiting {
    match why {
        WhyWaiting::NoDaemonHasTags { tags, missing } => {
            WhyWaiting::NoDaemonHasTags { tags: alike(&tags), missing: alike(&missing) }
        }
        why => why,
    }
}

/// Whether a daemon could take it (domain: claims).
pub fn waits(job: &JobRow) -> bool {
    job.started_at.is_none() && job.completed_at.is_none()
}

/// Whether it is one for this daemon (domain: claims).
pub fn may_take(daemon: &DaemonRow, job: &JobRow) -> bool {
    daemon.organization_id == job.organization_id
        && daemon.provisioners.contains(&job.provisioner)
        && tagset_contains(&daemon.tags, &job.tags)
}

pub fn note(classes: &Classes, job: &JobRow, why: Option<&WhyWaiting>) {
    let all = ["daemon_gone", "daemon_silent", "canceling", "no_daemons", "no_daemon_has_tags", "other_provisioners"];
    for name in all.into_iter().chain(["all_offline", "all_busy", "ranked"]) {
        classes.note(name, why.is_some_and(|why| why.as_str() == name));
    }
    classes.note("a job that does not wait", why.is_none());
    let both = |why: &WhyWaiting| matches!(why, WhyWaiting::DaemonGone | WhyWaiting::DaemonSilent { .. });
    classes.note("canceling, and its daemon is gone", why.is_some_and(both) && job.canceled_at.is_some());
    let none_missing =
        |why: &WhyWaiting| matches!(why, WhyWaiting::NoDaemonHasTags { missing, .. } if missing.0.is_empty());
    classes.note("each tag has a daemon, but none has all", why.is_some_and(none_missing));
    let ranked = |why: &WhyWaiting| matches!(why, WhyWaiting::Ranked(position) if position.position > 1);
    classes
        .note("a failed job that is not the first in its queue", why.is_some_and(ranked) && job.status() == "failed");
    classes.note("a job with an empty error is ranked", why.is_some_and(ranked) && job.error.as_deref() == Some(""));
}

/// A snapshot against the brute force over the rows of these organizations.
pub async fn compare_snapshot(
    conn: &mut PgConnection,
    model: &Model,
    organizations: &[Uuid],
    stale: Duration,
    classes: &Classes,
) {
    let at = At::new(model, rows::NOW, stale);
    let whole = snapshot(conn, rows::NOW, stale).await;
    for organization in organizations.iter().copied() {
        let view = whole.of(&support::read_jobs(organization));
        let ids: Vec<Uuid> = model.provisioner_jobs.iter().map(|job| job.id).collect();
        for listed in model.organization(organization) {
            let expected = QueuePosition { position: listed.queue_position, size: listed.queue_size };
            assert_eq!(view.position_in_list(JobId(listed.job.id)), expected, "5.4 {:#?} {model:#?}", listed.job);
        }
        for placed in model.by_ids_with_queue_position(&ids, rows::NOW, stale) {
            let here = placed.job.organization_id == organization;
            let expected = QueuePosition { position: placed.queue_position, size: placed.queue_size };
            let expected = if here { expected } else { QueuePosition::default() };
            assert_eq!(view.position_by_tags(JobId(placed.job.id)), expected, "5.3 {:#?} {model:#?}", placed.job);
        }
        for job in &model.provisioner_jobs {
            let why = at.why(job);
            note(classes, job, why.as_ref());
            let why = why.filter(|_| job.organization_id == organization);
            let actual = view.why(JobId(job.id)).map(alike_why);
            assert_eq!(actual, why.map(alike_why), "{job:#?} {model:#?}");
        }
        same_queues(&view, &at.by_tags(organization), model);
    }
    same_queues(&whole.everywhere(), &at.by_tags(Uuid::nil()), model);
}

/// The same, in the order that is promised: the longest first. Tag sets that read alike are not told apart.
pub fn same_queues(view: &View, expected: &[TagQueue], model: &Model) {
    let actual = view.by_tags();
    assert!(actual.is_sorted_by_key(|queue| -queue.jobs), "{actual:#?}");
    let key = |queue: &TagQueue| (queue.organization_id, alike(&queue.tags), queue.provisioner.clone());
    let mut merged: BTreeMap<_, TagQueue> = BTreeMap::new();
    for queue in actual {
        let known = merged.entry(key(&queue)).or_insert_with(|| TagQueue { jobs: 0, prebuilds: 0, ..queue.clone() });
        known.jobs += queue.jobs;
        known.prebuilds += queue.prebuilds;
        known.oldest = known.oldest.min(queue.oldest);
    }
    let numbers = |queue: &TagQueue| (key(queue), queue.jobs, queue.prebuilds, queue.oldest);
    let actual: Vec<_> = merged.values().map(numbers).collect();
    assert_eq!(actual, expected.iter().map(numbers).collect::<Vec<_>>(), "{model:#?}");
    // A tag set that is not what it reads as has other daemons.
    let is_exact = |tags: &Tags| {
        let read = serde_json::to_value(tags).expect("JSON");
        let alike = model.provisioner_jobs.iter().filter(|job| Tags::from(job.tags.clone()) == *tags);
        alike.into_iter().all(|job| job.tags == read)
    };
    for queue in expected.iter().filter(|queue| is_exact(&queue.tags)) {
        assert_eq!(merged[&key(queue)].daemons, queue.daemons, "{queue:#?} {model:#?}");
    }
}
