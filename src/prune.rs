//! Deleting old jobs and their logs, batch by batch (domain: pruning).
//!
//! ```no_run
//! use coderdb::{authz::{Actor, PruneJobs}, prune::Run, store};
//!
//! # async fn doc(conn: &mut store::PgConnection, who: &Actor, of: coderdb::model::OrganizationId) -> Result<(), store::Error> {
//! let permit = PruneJobs::check(who, of)?;
//! let mut run = Run::new(time::OffsetDateTime::now_utc() - time::Duration::days(90), false);
//! while let Some(batch) = run.next(conn, &permit).await {
//!     batch?;
//!     // As long as the batch took, so that half of the time is left to others.
//!     tokio::time::sleep(run.took()).await;
//! }
//! println!("{:?}", run.total());
//! # Ok(()) }
//! ```

use std::time::{Duration, Instant};

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    authz::PruneJobs,
    model::{JobId, OldJob},
    store::{self, PgConnection, job_logs, jobs},
};

/// A batch that takes longer is followed by one of half its size: its locks and its part of the log stay small.
const LONGEST: Duration = Duration::from_millis(25);

/// A batch that takes less is followed by one of twice its size.
const SHORTEST: Duration = Duration::from_millis(10);

const MOST_JOBS: u32 = 500;
const MOST_LINES: u32 = 5_000;

/// What was deleted, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Jobs that were looked at.
    pub seen: u64,
    /// Jobs that were deleted; with their logs only, jobs whose logs were.
    pub jobs: u64,
    /// Log lines that were deleted; a preview does not count them.
    pub log_lines: u64,
    /// The length of the logs of these jobs, in bytes, as it was when they ended.
    pub log_bytes: u64,
}

impl Pruned {
    fn add(&mut self, other: Self) {
        self.seen += other.seen;
        self.jobs += other.jobs;
        self.log_lines += other.log_lines;
        self.log_bytes += other.log_bytes;
    }

    fn of(seen: &[OldJob], done: impl Iterator<Item = OldJob>) -> Self {
        let seen = u64::try_from(seen.len()).unwrap_or_default();
        done.fold(Self { seen, ..Self::default() }, |sum, job| Self {
            jobs: sum.jobs + 1,
            log_bytes: sum.log_bytes + u64::try_from(job.logs_length).unwrap_or_default(),
            ..sum
        })
    }
}

/// What a run would delete. One round trip for every 500 jobs that are old enough, no locks.
pub async fn preview(
    conn: &mut PgConnection,
    permit: &PruneJobs,
    before: OffsetDateTime,
    logs_only: bool,
) -> store::Result<Pruned> {
    let (mut total, mut after) = (Pruned::default(), FIRST);
    loop {
        let page = jobs::prune_candidates(conn, permit, after, MOST_JOBS, before, logs_only).await?;
        let Some(last) = page.last() else { return Ok(total) };
        after = (last.created_at, last.id);
        total.add(Pruned::of(&page, page.iter().copied().filter(|job| job.is_deletable)));
    }
}

/// Before every job.
const FIRST: (OffsetDateTime, JobId) = (time::macros::datetime!(0001-01-01 0:00 UTC), JobId(uuid::Uuid::nil()));

/// A run over the old jobs of an organization, oldest first. It may be given up at any time, also in the middle of a batch:
/// another run begins with what is left.
#[derive(Debug)]
pub struct Run {
    before: OffsetDateTime,
    logs_only: bool,
    after: (OffsetDateTime, JobId),
    /// The jobs that come next, oldest first, while the logs of those that go are deleted.
    page: Vec<OldJob>,
    jobs_per_batch: u32,
    lines_per_batch: u32,
    took: Duration,
    total: Pruned,
}

impl Run {
    /// A run over the jobs that were created and ended before then; with `logs_only` it deletes their logs and leaves the jobs.
    #[must_use]
    pub const fn new(before: OffsetDateTime, logs_only: bool) -> Self {
        Self {
            before,
            logs_only,
            after: FIRST,
            page: Vec::new(),
            jobs_per_batch: 50,
            lines_per_batch: 500,
            took: Duration::ZERO,
            total: Pruned { seen: 0, jobs: 0, log_lines: 0, log_bytes: 0 },
        }
    }

    /// How long the last batch took.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// What was deleted so far.
    #[must_use]
    pub const fn total(&self) -> Pruned {
        self.total
    }

    /// Deletes the next batch, each statement in a transaction of its own: at most 5,000 log lines and 500 jobs, fewer where
    /// that takes more than 25 ms. `None` when nothing is left. One to three round trips; locks what it deletes.
    pub async fn next(&mut self, conn: &mut PgConnection, permit: &PruneJobs) -> Option<store::Result<Pruned>> {
        let began = Instant::now();
        let batch = self.batch(conn, permit).await.transpose();
        self.took = began.elapsed();
        if let Some(Ok(pruned)) = batch {
            self.total.add(pruned);
        }
        batch
    }

    async fn batch(&mut self, conn: &mut PgConnection, permit: &PruneJobs) -> store::Result<Option<Pruned>> {
        if self.page.is_empty() {
            let limit = self.jobs_per_batch;
            self.page = jobs::prune_candidates(conn, permit, self.after, limit, self.before, self.logs_only).await?;
        }
        let Some(last) = self.page.last() else { return Ok(None) };
        let last = (last.created_at, last.id);
        let deletable: Vec<_> = self.page.iter().filter(|job| job.is_deletable).map(|job| job.id).collect();

        let mut log_lines = 0;
        if !deletable.is_empty() {
            let began = Instant::now();
            let is_full;
            (log_lines, is_full) = job_logs::prune(conn, permit, &deletable, self.lines_per_batch).await?;
            self.lines_per_batch = next_size(self.lines_per_batch, MOST_LINES, is_full, began.elapsed());
            if is_full {
                return Ok(Some(Pruned { log_lines, ..Pruned::default() }));
            }
        }
        let began = Instant::now();
        let done = if self.logs_only || deletable.is_empty() {
            std::mem::take(&mut self.page)
        } else {
            jobs::prune(conn, permit, self.after, last, self.before).await?
        };
        self.jobs_per_batch = next_size(self.jobs_per_batch, MOST_JOBS, true, began.elapsed());
        self.page.clear();
        self.after = last;
        let pruned = Pruned::of(&done, done.iter().copied().filter(|job| job.is_deletable));
        Ok(Some(Pruned { log_lines, ..pruned }))
    }
}

/// A batch that was not full says nothing about a larger one.
fn next_size(size: u32, most: u32, is_full: bool, took: Duration) -> u32 {
    if took > LONGEST {
        (size / 2).max(1)
    } else if is_full && took < SHORTEST {
        (size * 2).min(most)
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_size_halves_what_takes_too_long_and_doubles_what_is_quick_and_full() {
        let size = |is_full, ms| next_size(100, 150, is_full, Duration::from_millis(ms));
        assert_eq!([size(true, 30), size(true, 20), size(true, 5), size(false, 5)], [50, 100, 150, 100]);
        assert_eq!(next_size(1, 150, true, Duration::from_secs(9)), 1);
    }
}
