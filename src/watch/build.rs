//! Waiting for a build, for those who may read workspaces and not jobs.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Error, Seen, Watcher};
use crate::{
    authz::ReadWorkspaces,
    model::{JobState, OrganizationId, WorkspaceBuild, WorkspaceBuildId},
    store,
};

impl Watcher {
    /// Waits until the job of the build is completed, and returns how. One round trip for the build, which proves that
    /// the permit reaches it; then as [`Watcher::wait`]. Cancel it by dropping it.
    ///
    /// # Errors
    /// [`Error::Deadline`]; [`Error::Pool`]; [`Error::Store`] with [`store::Error::NotFound`] when the permit does not
    /// reach such a build.
    pub async fn wait_for_build(
        &self,
        permit: &ReadWorkspaces,
        id: WorkspaceBuildId,
        deadline: Duration,
    ) -> Result<JobState, Error> {
        let began = Instant::now();
        let job = self.build(permit, id).await?.job_id;
        self.wait_in(permit.organization(), job, deadline.saturating_sub(began.elapsed())).await
    }

    /// Follows how the job of the build stands. One round trip for the build, which proves that the permit reaches it;
    /// then none of its own, as with [`Watcher::wait`].
    ///
    /// # Errors
    /// [`Error::Pool`]; [`Error::Store`] with [`store::Error::NotFound`] when the permit does not reach such a build.
    pub async fn follow_build(&self, permit: &ReadWorkspaces, id: WorkspaceBuildId) -> Result<BuildFollower, Error> {
        let build = self.build(permit, id).await?;
        let mut seen = self.register(build.job_id);
        // The state that another waiter has seen is new to this one.
        seen.mark_changed();
        Ok(BuildFollower { build, organization: permit.organization(), seen, is_over: false, _watcher: self.clone() })
    }

    async fn build(&self, permit: &ReadWorkspaces, id: WorkspaceBuildId) -> Result<WorkspaceBuild, Error> {
        let mut connection = self.shared.pool.get().await?;
        Ok(store::builds::get(&mut connection, permit, id).await?)
    }
}

/// How the job of one build stands, from [`Watcher::follow_build`].
pub struct BuildFollower {
    build: WorkspaceBuild,
    organization: OrganizationId,
    seen: watch::Receiver<Seen>,
    is_over: bool,
    _watcher: Watcher,
}

impl BuildFollower {
    /// The build as it was at first.
    #[must_use]
    pub const fn build(&self) -> &WorkspaceBuild {
        &self.build
    }

    /// The state of the job now, the first time; then each time its status changes or it has logged something, without
    /// what the caller was too slow for. `None` after it has ended, and when it is gone. Nothing is lost when it is
    /// dropped.
    pub async fn next(&mut self) -> Option<JobState> {
        while !self.is_over {
            self.is_over = self.seen.changed().await.is_err();
            match &*self.seen.borrow_and_update() {
                Seen::There(state) if state.organization_id == self.organization => {
                    self.is_over |= state.status.is_final();
                    return Some(state.clone());
                }
                Seen::NotYet => {}
                Seen::There(_) | Seen::Missing => self.is_over = true,
            }
        }
        None
    }
}
