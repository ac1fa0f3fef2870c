//! Log lines as they are written.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{Error, Seen, Watcher};
use crate::{
    authz::ReadJobLogs,
    model::{JobId, JobLog},
    store,
};

/// So long after a line a line with a lower id may still come: ids are given before the commit.
const UNSETTLED: Duration = Duration::from_secs(10);

/// The log lines of one job, from [`Watcher::follow`].
pub struct LogFollower {
    watcher: Watcher,
    permit: ReadJobLogs,
    id: JobId,
    /// Only lines with higher ids are asked for at all.
    begin: i64,
    /// No line with a lower id is expected any more, but when the job has ended.
    settled: i64,
    /// The highest id at the end of each look, and when that was, while it is not settled.
    unsettled: VecDeque<(Instant, i64)>,
    /// The ids of all lines that were told.
    told: HashSet<i64>,
    newest: i64,
    seen: watch::Receiver<Seen>,
    is_over: bool,
}

impl Watcher {
    /// Follows the logs of the job from the id `after` on; 0 for all of them (domain: job logs).
    #[must_use]
    pub fn follow(&self, permit: ReadJobLogs, id: JobId, after: i64) -> LogFollower {
        LogFollower {
            watcher: self.clone(),
            permit,
            id,
            begin: after,
            settled: after,
            unsettled: VecDeque::new(),
            told: HashSet::new(),
            newest: after,
            seen: self.register(id),
            is_over: false,
        }
    }
}

impl LogFollower {
    /// The next lines, oldest first, as soon as there are some; `None` after the last line of a completed job. A line that
    /// was committed after one with a higher id comes with the next ones, at the latest when the job has ended. One round
    /// trip each time. Nothing is lost when it is dropped in between.
    ///
    /// # Errors
    /// [`Error::Store`] with [`store::Error::NotFound`] when the permit does not reach such a job, and [`Error::Pool`].
    pub async fn next(&mut self) -> Result<Option<Vec<JobLog>>, Error> {
        while !self.is_over {
            // First whether it is over, then the lines: the last ones are there when it is.
            let (last, is_over) = match &*self.seen.borrow_and_update() {
                Seen::There(state) => (state.last_log_id, state.status.is_final()),
                Seen::NotYet | Seen::Missing => (Some(i64::MAX), false),
            };
            if is_over || last > Some(self.newest) {
                let after = if is_over { self.begin } else { self.settled };
                let mut connection = self.watcher.shared.pool.get().await?;
                let mut lines = store::job_logs::after(&mut connection, &self.permit, self.id, after).await?;
                lines.retain(|line| self.told.insert(line.id));
                self.is_over = is_over;
                self.settle(&lines);
                if !lines.is_empty() || is_over {
                    return Ok(Some(lines).filter(|lines| !lines.is_empty()));
                }
            }
            if self.seen.changed().await.is_err() {
                break;
            }
        }
        Ok(None)
    }

    fn settle(&mut self, lines: &[JobLog]) {
        let now = Instant::now();
        if let Some(line) = lines.last().filter(|line| line.id > self.newest) {
            self.newest = line.id;
            self.unsettled.push_back((now, line.id));
        }
        while let Some((_, id)) = self.unsettled.pop_front_if(|(at, _)| now - *at > UNSETTLED) {
            self.settled = id;
        }
    }
}
