//! Log lines as they are written.

use tokio::sync::watch;

use super::{Error, Seen, Watcher};
use crate::{
    authz::ReadJobLogs,
    model::{JobId, JobLog},
    store,
};

/// The log lines of one job, from [`Watcher::follow`].
pub struct LogFollower {
    watcher: Watcher,
    permit: ReadJobLogs,
    id: JobId,
    after: i64,
    seen: watch::Receiver<Seen>,
    is_over: bool,
}

impl Watcher {
    /// Follows the logs of the job from the id `after` on; 0 for all of them (domain 10.5).
    #[must_use]
    pub fn follow(&self, permit: ReadJobLogs, id: JobId, after: i64) -> LogFollower {
        LogFollower { watcher: self.clone(), permit, id, after, seen: self.register(id), is_over: false }
    }
}

impl LogFollower {
    /// The next lines, oldest first, as soon as there are some; `None` after the last line of a completed job. One round
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
            if is_over || last > Some(self.after) {
                let mut connection = self.watcher.shared.pool.get().await?;
                let lines = store::job_logs::after(&mut connection, &self.permit, self.id, self.after).await?;
                self.is_over = is_over;
                if let Some(line) = lines.last() {
                    self.after = line.id;
                    return Ok(Some(lines));
                }
                continue;
            }
            if self.seen.changed().await.is_err() {
                break;
            }
        }
        Ok(None)
    }
}
