//! Canceling many jobs: named ones or those that pass a filter, batch by batch, with a dry run, a report of every job,
//! and an announcement to those who watch.
//!
//! ```no_run
//! use coderdb::{
//!     authz::{Actor, CancelJobs, ReadJobs},
//!     cancel::{Plan, Run, tally},
//!     model::{JobFilter, JobStatus, UserId},
//!     store,
//! };
//!
//! # async fn doc(conn: &mut store::PgConnection, who: &Actor) -> Result<(), store::Error> {
//! let organization = store::organizations::default(conn, &coderdb::authz::ReadOrganizations::check(who)).await?;
//! let filter = JobFilter {
//!     initiator: Some(UserId::PREBUILDS),
//!     status: vec![JobStatus::Pending],
//!     ..JobFilter::default()
//! };
//! let plan = Plan::chosen(conn, &ReadJobs::check(who, organization.id)?, &filter, None).await?;
//! let permit = CancelJobs::check(who, organization.id)?;
//! let mut run = Run::new(&plan);
//! while let Some(batch) = run.next(conn, &permit, time::OffsetDateTime::now_utc()).await {
//!     println!("{} more are decided on", batch?);
//! }
//! println!("{:?}", tally(&run.into_reports()));
//! # Ok(()) }
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    authz::{Actor, CancelJobs, ReadJobs, System, WatchJobs},
    model::{CancelOutcome, ExpectedStatus, Job, JobFilter, JobId, JobStatus, JobType, Label, PageRequest},
    store::{self, PgConnection, jobs},
    watch::{self, Change},
};

/// So many at once: their locks hold up a daemon that wants one of them for a few milliseconds.
const BATCH: usize = 500;

/// Which jobs are to be canceled, and which status each must still have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan(Vec<Group>);

/// Jobs that are to be canceled if they have the expected status.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    expected: Option<ExpectedStatus>,
    ids: Vec<JobId>,
}

impl Plan {
    /// These jobs, each once, in this order.
    #[must_use]
    pub fn named(mut ids: Vec<JobId>, expected: Option<ExpectedStatus>) -> Self {
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(*id));
        Self(vec![Group { expected, ids }])
    }

    /// The jobs that pass the filter and have not ended, newest first: daemons take the oldest meanwhile. One round
    /// trip for each status that is told apart.
    ///
    /// A status that the filter asks for is expected, too: what has another one by then has left the set.
    pub async fn chosen(
        conn: &mut PgConnection,
        permit: &ReadJobs,
        filter: &JobFilter,
        expected: Option<ExpectedStatus>,
    ) -> store::Result<Self> {
        let mut groups = Vec::new();
        for (status, expected) in by_status(filter, expected) {
            let filter = JobFilter { status, ..filter.clone() };
            let ids = jobs::ids(conn, permit, &filter, PageRequest::default()).await?.rows;
            groups.push(Group { expected, ids });
        }
        Ok(Self(groups))
    }

    /// How many jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|group| group.ids.len()).sum()
    }

    /// Keeps the first jobs, so many; of those that were chosen by a filter, the newest.
    pub fn truncate(&mut self, mut jobs: usize) {
        for group in &mut self.0 {
            group.ids.truncate(jobs);
            jobs -= group.ids.len();
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The statuses that some of the jobs must still have.
    pub fn expected(&self) -> impl Iterator<Item = ExpectedStatus> {
        self.0.iter().filter(|group| !group.ids.is_empty()).filter_map(|group| group.expected)
    }

    fn batches(&self) -> impl Iterator<Item = Group> {
        let batch = |group: &Group, ids: &[JobId]| Group { expected: group.expected, ids: ids.to_vec() };
        self.0.iter().flat_map(move |group| group.ids.chunks(BATCH).map(move |ids| batch(group, ids)))
    }
}

/// The statuses of the jobs that are looked for, each once, and which status they must still have.
fn by_status(filter: &JobFilter, expected: Option<ExpectedStatus>) -> Vec<(Vec<JobStatus>, Option<ExpectedStatus>)> {
    let is_named = !filter.status.is_empty();
    let passes = |status: JobStatus| {
        let is_asked = match expected {
            _ if is_named => filter.status.contains(&status),
            Some(expected) => status == as_status(expected),
            None => as_expected(status).is_some(),
        };
        is_asked && !filter.exclude.status.contains(&status)
    };
    let passing: Vec<_> = JobStatus::ALL.iter().copied().filter(|status| passes(*status)).collect();
    // An empty list of statuses would ask for any.
    if passing.is_empty() {
        return Vec::new();
    }
    // One that goes from the one to the other meanwhile is still meant.
    let is_any_open = passing.len() == ExpectedStatus::ALL.len() && passing.iter().all(|it| as_expected(*it).is_some());
    if expected.is_some() || is_any_open {
        return vec![(passing, expected)];
    }
    passing.into_iter().map(|status| (vec![status], as_expected(status))).collect()
}

const fn as_status(expected: ExpectedStatus) -> JobStatus {
    match expected {
        ExpectedStatus::Pending => JobStatus::Pending,
        ExpectedStatus::Running => JobStatus::Running,
    }
}

fn as_expected(status: JobStatus) -> Option<ExpectedStatus> {
    ExpectedStatus::ALL.iter().copied().find(|expected| as_status(*expected) == status)
}

/// What became of a job, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It would end at once, or when its daemon learns of it.
    WouldBeCanceled,
    /// It has ended.
    Canceled,
    /// Its daemon ends it when it learns of it.
    Canceling,
    /// It was canceled before, or its cancellation was requested.
    AlreadyCanceled,
    /// It had ended before, and not as canceled.
    AlreadyFinished,
    /// Its status is not the expected one.
    NotInExpectedState,
    /// Its template does not let users cancel builds that run.
    NotAllowed,
    /// There is no such job, or the permit does not reach it.
    NotFound,
    /// The answer was lost: it is canceled, or not.
    Unknown,
    /// The run ended before it was its turn.
    NotTried,
}

impl Outcome {
    /// The outcome in words for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::WouldBeCanceled => "would be canceled",
            Self::Canceled => "canceled",
            Self::Canceling => "canceling",
            Self::AlreadyCanceled => "already canceled",
            Self::AlreadyFinished => "already finished",
            Self::NotInExpectedState => "not in the expected state",
            Self::NotAllowed => "not allowed",
            Self::NotFound => "not found",
            Self::Unknown => "unknown",
            Self::NotTried => "not tried",
        }
    }

    /// Whether the job ended in the state that the caller wanted.
    #[must_use]
    pub const fn is_as_wanted(self) -> bool {
        matches!(self, Self::WouldBeCanceled | Self::Canceled | Self::Canceling | Self::AlreadyCanceled)
    }
}

/// What is reported of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The job.
    pub id: JobId,
    /// What became of it.
    pub outcome: Outcome,
    /// What it does, where the permit reaches it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub job_type: Option<Label<JobType>>,
    /// Its status now, if the permit reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
}

impl Report {
    const fn without_job(id: JobId, outcome: Outcome) -> Self {
        Self { id, outcome, job_type: None, status: None }
    }

    fn of(id: JobId, outcome: CancelOutcome, is_dry: bool) -> Self {
        let (outcome, job) = match outcome {
            CancelOutcome::Canceled(job) | CancelOutcome::Canceling(job) if is_dry => (Outcome::WouldBeCanceled, job),
            CancelOutcome::Canceled(job) => (Outcome::Canceled, job),
            CancelOutcome::Canceling(job) => (Outcome::Canceling, job),
            CancelOutcome::AlreadyFinished(job) => (finished(&job), job),
            CancelOutcome::AlreadyCanceled(job) => (Outcome::AlreadyCanceled, job),
            CancelOutcome::NotInExpectedState(job) => (Outcome::NotInExpectedState, job),
            CancelOutcome::NotAllowed => return Self::without_job(id, Outcome::NotAllowed),
        };
        Self { id, outcome, job_type: Some(job.job_type.clone()), status: Some(job.status) }
    }
}

/// A job that ended as canceled is in the wanted state.
fn finished(job: &Job) -> Outcome {
    if job.status == JobStatus::Canceled { Outcome::AlreadyCanceled } else { Outcome::AlreadyFinished }
}

#[cfg(any(feature = "cli", feature = "http"))]
impl Report {
    /// Why the job is left alone, in the words of Coder's API; `None` for every other outcome.
    pub(crate) fn refusal(&self) -> Option<String> {
        let stop = if self.job_type == Some(Label::Known(JobType::TemplateVersionDryRun)) { '.' } else { '!' };
        Some(match (self.outcome, self.status) {
            (Outcome::AlreadyFinished, _) | (Outcome::AlreadyCanceled, Some(JobStatus::Canceled)) => {
                format!("Job has already completed{stop}")
            }
            (Outcome::AlreadyCanceled, _) => format!("Job has already been marked as canceled{stop}"),
            (Outcome::NotInExpectedState, _) => "Job is not in the expected state.".to_owned(),
            (Outcome::NotAllowed, _) => {
                "User is not allowed to cancel workspace builds. Owner role is required.".to_owned()
            }
            _ => return None,
        })
    }
}

/// How many jobs there are of each outcome.
#[must_use]
pub fn tally(reports: &[Report]) -> BTreeMap<Outcome, usize> {
    let mut counts = BTreeMap::new();
    for report in reports {
        *counts.entry(report.outcome).or_default() += 1;
    }
    counts
}

fn reports(batch: &Group, mut outcomes: HashMap<JobId, CancelOutcome>, is_dry: bool) -> impl Iterator<Item = Report> {
    batch.ids.iter().map(move |id| match outcomes.remove(id) {
        Some(outcome) => Report::of(*id, outcome, is_dry),
        None => Report::without_job(*id, Outcome::NotFound),
    })
}

/// What would become of the jobs now: locks and writes nothing, but needs the database rights of a cancellation, whose
/// statement it is. One round trip for every 500 of them.
pub async fn preview(conn: &mut PgConnection, permit: &CancelJobs, plan: &Plan) -> store::Result<Vec<Report>> {
    let mut previewed = Vec::with_capacity(plan.len());
    for batch in plan.batches() {
        let outcomes = jobs::would_cancel_batch(conn, permit, &batch.ids, batch.expected).await?;
        previewed.extend(reports(&batch, outcomes, true));
    }
    Ok(previewed)
}

/// Jobs that are being canceled, batch by batch. It may be given up at any time, also in the middle of a batch.
#[derive(Debug)]
pub struct Run {
    rest: VecDeque<Group>,
    /// What was asked for and not answered yet.
    under_way: Option<Group>,
    reports: Vec<Report>,
}

impl Run {
    /// Nothing is canceled before the first [`next`](Self::next).
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { rest: plan.batches().collect(), under_way: None, reports: Vec::with_capacity(plan.len()) }
    }

    /// Cancels the next batch, announces its jobs, and returns how many they were; `None` when nothing
    /// is left, and after an error. One round trip, and one more to tell; locks the jobs of the batch.
    ///
    /// Dropped on the way, the batch is canceled or not, and the run is over.
    pub async fn next(
        &mut self,
        conn: &mut PgConnection,
        permit: &CancelJobs,
        now: OffsetDateTime,
    ) -> Option<store::Result<usize>> {
        if self.under_way.is_some() {
            return None;
        }
        let batch = self.under_way.insert(self.rest.pop_front()?);
        match jobs::cancel_batch(conn, permit, &batch.ids, batch.expected, now).await {
            Ok(outcomes) => {
                let done = |outcome: &CancelOutcome| {
                    matches!(outcome, CancelOutcome::Canceled(_) | CancelOutcome::Canceling(_))
                };
                let organization = permit.organization();
                let canceled = outcomes.iter().filter(|(_, outcome)| done(outcome));
                let changes: Vec<_> = canceled.map(|(job, _)| Change { job: *job, organization }).collect();
                self.reports.extend(reports(batch, outcomes, false));
                let count = batch.ids.len();
                self.under_way = None;
                tell(conn, &changes).await;
                Some(Ok(count))
            }
            Err(error) => {
                // Whatever else fails a statement takes back what it did.
                let is_lost = matches!(error, store::Error::Unavailable(_));
                self.end(if is_lost { Outcome::Unknown } else { Outcome::NotTried });
                Some(Err(error))
            }
        }
    }

    /// What became of every job of the plan, in its order.
    #[must_use]
    pub fn into_reports(mut self) -> Vec<Report> {
        self.end(Outcome::Unknown);
        self.reports
    }

    /// Nothing more is tried.
    fn end(&mut self, under_way: Outcome) {
        let rest = self.rest.drain(..).map(|batch| (batch, Outcome::NotTried));
        for (batch, outcome) in self.under_way.take().map(|batch| (batch, under_way)).into_iter().chain(rest) {
            self.reports.extend(batch.ids.into_iter().map(|id| Report::without_job(id, outcome)));
        }
    }
}

/// Announces these jobs. If that fails, the poll of the waiters finds the changes.
async fn tell(conn: &mut PgConnection, changes: &[Change]) {
    if let (Ok(permit), false) = (WatchJobs::check(&Actor::system(System::Watcher)), changes.is_empty()) {
        let _ = watch::announce(conn, &permit, changes).await;
    }
}
