//! Asking a run to stop.

use tokio::sync::watch;

/// Stops a run of [`up`](super::up) from elsewhere: a signal handler, for example. Its clones stop the same run.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<Asked>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Nothing,
    ToStop,
    ToCancel,
}

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(Asked::Nothing))
    }
}

impl Stop {
    /// Stops before the next migration; what waits for a lock, stops waiting.
    pub fn request(&self) {
        self.ask(Asked::ToStop);
    }

    /// Stops now: cancels the statement under way, and waits until it is rolled back.
    pub fn cancel(&self) {
        self.ask(Asked::ToCancel);
    }

    fn ask(&self, asked: Asked) {
        self.0.send_if_modified(|now| std::mem::replace(now, asked.max(*now)) < asked);
    }

    pub(super) fn is_requested(&self) -> bool {
        *self.0.borrow() >= Asked::ToStop
    }

    pub(super) async fn requested(&self) {
        self.until(Asked::ToStop).await;
    }

    pub(super) async fn canceled(&self) {
        self.until(Asked::ToCancel).await;
    }

    async fn until(&self, asked: Asked) {
        // The sender is there as long as this is.
        let _ = self.0.subscribe().wait_for(|now| *now >= asked).await;
    }

    /// Sleeps, unless it is asked to stop.
    pub(super) async fn sleep(&self, length: std::time::Duration) {
        tokio::select! {
            () = tokio::time::sleep(length) => {}
            () = self.requested() => {}
        }
    }
}
