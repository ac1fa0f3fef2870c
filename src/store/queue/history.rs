//! The recorded jobs of an organization, and their service times (domain: expected wait).

use std::{collections::HashMap, sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Kind, Result, StoredJson, Timestamp, fleet::Fleet, input};
use crate::{
    authz::ReadJobs,
    model::{JobId, JobType, Label, OrganizationId, ProvisionerType, Transition, UserId},
    store::query::Query as _,
};

/// Recorded jobs of one organization: those that ended within a window, those that run, and those that wait.
pub struct History {
    pub(super) organization: OrganizationId,
    /// All jobs that were created since then and that have ended are here.
    pub(super) since: OffsetDateTime,
    pub(super) jobs: Vec<Recorded>,
    pub(super) samples: Samples,
    /// Indexes into `jobs`, of those that wait.
    waiting: HashMap<JobId, usize>,
}

/// A job that has ended, runs or waits.
pub(super) struct Recorded {
    pub(super) id: JobId,
    pub(super) created_at: OffsetDateTime,
    pub(super) started_at: Option<OffsetDateTime>,
    /// How long it kept its daemon, in microseconds; `None` for one that has not ended.
    pub(super) service: Option<i64>,
    pub(super) is_prebuild: bool,
    pub(super) provisioner: Label<ProvisionerType>,
    /// As stored.
    pub(super) tags: Arc<Value>,
    pub(super) class: Class,
    /// The provisioners and tags of the daemon that works on it.
    pub(super) worker: Option<(Vec<Label<ProvisionerType>>, Value)>,
}

impl Recorded {
    pub(super) fn kind(&self, history: &History, fleet: &Fleet) -> Kind {
        Kind {
            organization: history.organization,
            provisioner: self.provisioner.clone(),
            tags: Arc::clone(&self.tags),
            served_by: fleet.serving(&self.tags).into(),
        }
    }
}

/// Jobs of one class take about the same time; `None` where a key is unknown or left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Class {
    job_type: Option<Label<JobType>>,
    transition: Option<Label<Transition>>,
    template: Option<Uuid>,
    tags: Option<Arc<str>>,
}

impl Class {
    /// The class of a job of which only the tags are known.
    pub(super) fn of_tags(tags: &Value) -> Self {
        Self { tags: Some(tags.to_string().into()), ..Self::default() }
    }

    /// This class and the wider ones that contain it, the narrowest first.
    fn wider(&self) -> [Self; 6] {
        let Self { job_type, transition, .. } = self;
        let of = |job_type: &Option<_>, transition: &Option<_>, template, tags| Self {
            job_type: job_type.clone(),
            transition: transition.clone(),
            template,
            tags,
        };
        [
            self.clone(),
            of(job_type, transition, self.template, None),
            of(job_type, transition, None, self.tags.clone()),
            of(&None, &None, None, self.tags.clone()),
            of(job_type, &None, None, None),
            Self::default(),
        ]
    }
}

/// Service times in microseconds, ascending, by class; each time is in every class that contains its job.
#[derive(Default)]
pub(super) struct Samples(HashMap<Class, Vec<i64>>);

impl Samples {
    /// The fewest service times from which a class is drawn.
    const ENOUGH: usize = 5;

    fn new<'a>(ended: impl Iterator<Item = (&'a Class, i64)>) -> Self {
        let mut samples: HashMap<Class, Vec<i64>> = HashMap::new();
        for (class, service) in ended {
            let mut wider = class.wider().to_vec();
            wider.dedup();
            for (n, class) in wider.iter().enumerate() {
                if !wider[..n].contains(class) {
                    samples.entry(class.clone()).or_default().push(service);
                }
            }
        }
        for samples in samples.values_mut() {
            samples.sort_unstable();
        }
        Self(samples)
    }

    /// The service times of the narrowest class that has enough of them, or else all.
    pub(super) fn of(&self, class: &Class) -> &[i64] {
        let enough = |class: &Class| self.0.get(class).filter(|samples| samples.len() >= Self::ENOUGH);
        class.wider().iter().find_map(enough).map_or(self.all(), Vec::as_slice)
    }

    pub(super) fn all(&self) -> &[i64] {
        self.0.get(&Class::default()).map_or(&[], Vec::as_slice)
    }
}

/// A random one of these service times.
pub(super) fn service(samples: &[i64], rng: &mut Rng) -> i64 {
    if samples.is_empty() { 0 } else { samples[rng.usize(..samples.len())] }
}

/// How much longer a job runs that has run for `elapsed`: by a random longer service time. Where there is none, the median
/// is `elapsed` once more.
pub(super) fn residual(samples: &[i64], elapsed: i64, rng: &mut Rng) -> i64 {
    const LONGEST: f64 = 10.0;
    let longer = &samples[samples.partition_point(|sample| *sample <= elapsed)..];
    if !longer.is_empty() {
        return service(longer, rng) - elapsed;
    }
    let part = rng.f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "an estimate")]
    let residual = (elapsed as f64 * (part / (1.0 - part)).min(LONGEST)) as i64;
    residual
}

/// Microseconds from one moment to another; 0 when the other is earlier: clocks differ.
pub(super) fn between(from: OffsetDateTime, to: OffsetDateTime) -> i64 {
    i64::try_from((to - from).whole_microseconds()).unwrap_or(i64::MAX).max(0)
}

struct Row {
    id: Uuid,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    initiator_id: Uuid,
    provisioner: Label<ProvisionerType>,
    tags: StoredJson,
    job_type: Label<JobType>,
    transition: Option<Label<Transition>>,
    template_id: Option<Uuid>,
    worker_provisioners: Option<Vec<Label<ProvisionerType>>>,
    worker_tags: Option<StoredJson>,
}

/// The newest `limit` of the jobs of the organization that were created within `window` before `now` and that daemons
/// have carried out, what they work on, and the first `limit` of what waits: what
/// [`View::expected_waits`](super::View::expected_waits) and [`View::capacity`](super::View::capacity) go by. One round
/// trip, one snapshot, no locks; costs a few look-ups for each of these jobs.
///
/// # Errors
/// [`Error::Invalid`](crate::store::Error::Invalid) for a time that cannot be read again.
#[tracing::instrument(name = "db.queue.history", skip_all)]
pub async fn history(
    conn: &mut PgConnection,
    permit: &ReadJobs,
    now: OffsetDateTime,
    window: Duration,
    limit: u32,
) -> Result<History> {
    let organization = permit.organization();
    let since = input::before(now, window)?;
    let rows = sqlx::query_file_as!(Row, "queries/queue/history.sql", organization.0, since as _, i64::from(limit))
        .fetch_all(conn)
        .of_query("queue/history")
        .await?;
    Ok(History::new(organization, since.0, limit, rows))
}

impl History {
    fn new(organization: OrganizationId, since: OffsetDateTime, limit: u32, rows: Vec<Row>) -> Self {
        let mut known: HashMap<String, (Arc<str>, Arc<Value>)> = HashMap::new();
        let mut record = |row: Row| {
            // Tags that cannot be read: no daemon serves them.
            let tags = row.tags.0.unwrap_or(Value::Null);
            let tags = known.entry(tags.to_string()).or_insert_with_key(|text| (text.as_str().into(), Arc::new(tags)));
            let (text, tags) = (Arc::clone(&tags.0), Arc::clone(&tags.1));
            let started_at = row.started_at.map(|at| at.0);
            Recorded {
                id: JobId(row.id),
                created_at: row.created_at.0,
                started_at,
                service: started_at.zip(row.completed_at).map(|(from, to)| between(from, to.0)),
                is_prebuild: UserId(row.initiator_id) == UserId::PREBUILDS,
                provisioner: row.provisioner,
                tags,
                class: Class {
                    job_type: Some(row.job_type),
                    transition: row.transition,
                    template: row.template_id,
                    tags: Some(text),
                },
                worker: row.worker_provisioners.zip(row.worker_tags.and_then(|tags| tags.0)),
            }
        };
        let mut jobs: Vec<_> = rows.into_iter().map(&mut record).collect();
        jobs.sort_unstable_by_key(|job| (job.created_at, job.id));
        let ended = || jobs.iter().filter_map(|job| Some((job, job.service?)));
        let samples = Samples::new(ended().map(|(job, service)| (&job.class, service)));
        let is_cut = ended().count() >= limit as usize;
        let since = ended().next().filter(|_| is_cut).map_or(since, |(job, _)| job.created_at);
        let waits = |(n, job): (usize, &Recorded)| job.started_at.is_none().then_some((job.id, n));
        let waiting = jobs.iter().enumerate().filter_map(waits).collect();
        Self { organization, since, jobs, samples, waiting }
    }

    /// The class of a job that waits; `None` when it is not among those that were read.
    pub(super) fn class(&self, job: JobId) -> Option<&Class> {
        self.waiting.get(&job).map(|n| &self.jobs[*n].class)
    }

    /// The number of ended jobs.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples.all().len()
    }
}
