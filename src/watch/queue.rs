//! The queue as it was a moment ago, for all who ask in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{Error, Shared, Watcher};
use crate::{
    authz::{Actor, ReadJobs, ReadQueue, System},
    store::{
        self,
        jobs::STALE_INTERVAL,
        queue::{Snapshot, View},
    },
};

/// Not more often than this, however many ask and however much changes.
const AT_MOST: Duration = Duration::from_secs(1);
/// The longest interval while changes are announced: a daemon that goes silent announces nothing, and neither do other
/// programs that write.
const AT_LEAST: Duration = Duration::from_secs(5);

/// What was seen last, and what has happened since.
#[derive(Default)]
pub(super) struct Kept {
    /// The task that holds it reads; the others wait for the answer.
    last: Mutex<Last>,
    /// How often something was said to have changed.
    changes: AtomicU64,
    /// Whether announcements of others are heard.
    hears: AtomicBool,
}

#[derive(Default)]
struct Last {
    /// When the last look began, whether it came to its end or not.
    began: Option<Instant>,
    /// What the last look that came to its end has found, and the changes that are in it.
    found: Option<(u64, Result<Snapshot, Arc<Error>>)>,
}

impl Kept {
    pub(super) fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn hears(&self, hears: bool) {
        self.hears.store(hears, Ordering::SeqCst);
    }

    async fn snapshot(&self, shared: &Shared) -> Result<Snapshot, Arc<Error>> {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        let next = last.began.map_or(now, |began| {
            let is_quiet = last.found.as_ref().is_some_and(|(changes, found)| {
                found.is_ok() && *changes == self.changes.load(Ordering::SeqCst) && self.hears.load(Ordering::SeqCst)
            });
            began + if is_quiet { AT_LEAST } else { AT_MOST }
        });
        if let (true, Some((_, found))) = (now < next, &last.found) {
            return found.clone();
        }
        // The last caller was dropped before it got the answer.
        sleep_until(next).await;
        last.began = Some(Instant::now());
        // What changes while the statement runs may be in its answer, or not.
        let changes = self.changes.load(Ordering::SeqCst);
        let found = look(shared).await.map_err(Arc::new);
        last.found = Some((changes, found.clone()));
        found
    }
}

async fn look(shared: &Shared) -> Result<Snapshot, Error> {
    let permit = ReadQueue::check(&Actor::system(System::Watcher)).map_err(store::Error::from)?;
    let mut connection = shared.pool.get().await?;
    Ok(store::queue::snapshot(&mut connection, &permit, OffsetDateTime::now_utc(), STALE_INTERVAL).await?)
}

impl Watcher {
    /// What waits in the organization, and why. All callers in a process share one statement a second; while
    /// announcements are heard and none comes, one in five seconds; none without callers. The answer is at most one
    /// second older than that.
    ///
    /// # Errors
    /// [`Error::Queue`] when it could not be looked at; the next look is in the next second.
    pub async fn queue(&self, permit: &ReadJobs) -> Result<View, Error> {
        let snapshot = self.shared.queue.snapshot(&self.shared).await.map_err(Error::Queue)?;
        Ok(snapshot.of(permit))
    }
}
