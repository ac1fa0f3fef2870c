//! Waiting for a build, for those who may read workspaces and not jobs.

use std::time::{Duration, Instant};

use super::{Error, Watcher};
use crate::{
    authz::ReadWorkspaces,
    model::{JobState, WorkspaceBuildId},
    store,
};

impl Watcher {
    /// Waits until the job of the build is completed, and returns how. One round trip for the build, which proves that the
    /// permit reaches it; then as [`Watcher::wait`]. Cancel it by dropping it.
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
        let job = {
            let mut connection = self.shared.pool.get().await?;
            store::builds::get(&mut connection, permit, id).await?.job_id
        };
        self.wait_in(permit.organization(), job, deadline.saturating_sub(began.elapsed())).await
    }
}
