//! Waiting for a build (domain: chat tools).

use super::{
    CancellationToken, Toolbox,
    error::{BuildError, BuildFailed, Unavailable},
    failure::{Action, Failure, failure, is_insufficient_quota},
    toolbox::chat_daemon,
};
use crate::{
    authz::{Actor, LoadActors, ReadQuota, ReadWorkspaces},
    bounds::end_of,
    model::{JobStatus, OrganizationId, Quota, WorkspaceBuildId},
    store, watch,
};

impl Toolbox {
    /// Waits until the build has succeeded.
    pub(super) async fn wait_for_build(
        &self,
        who: &Actor,
        organization: OrganizationId,
        build: WorkspaceBuildId,
        cancel: &CancellationToken,
    ) -> Result<(), BuildError> {
        let permit = ReadWorkspaces::check(who, organization)?;
        let wait = || self.watcher.wait_for_build(&permit, build, self.settings.build_timeout);
        let state = tokio::select! {
            state = async {
                match wait().await {
                    // The build was not read: a connection was lost.
                    Err(watch::Error::Store(error)) if error.is_retryable() => wait().await,
                    state => state,
                }
            } => state?,
            () = cancel.cancelled() => return Err(BuildError::CallCanceled),
        };
        match state.status {
            JobStatus::Succeeded => Ok(()),
            JobStatus::Canceled => Err(BuildError::Canceled),
            JobStatus::Failed => {
                let rest = format!("; `coderdb provisioner jobs get {} -o json` has the whole error", state.id);
                let message = state.error.map_or_else(|| "build failed".to_owned(), |error| end_of(&error, &rest));
                Err(BuildError::Failed(BuildFailed { message, code: state.error_code }))
            }
            status => Err(BuildError::UnexpectedStatus(status)),
        }
    }

    /// What to answer when waiting for the build ended like this.
    pub(super) async fn build_failure(
        &self,
        who: &Actor,
        organization: OrganizationId,
        action: Action,
        build: WorkspaceBuildId,
        context: &str,
        error: BuildError,
    ) -> Failure {
        let quota = if is_insufficient_quota(&error) { self.quota(who, organization).await } else { None };
        failure(action, Some(build), context, &error, quota)
    }

    /// The owner's consumption and budget; `None` if they cannot be read within `quota_timeout`. Read as the owner: the
    /// chat daemon may not read quota (domain: chat tools).
    async fn quota(&self, who: &Actor, organization: OrganizationId) -> Option<Quota> {
        if self.owner.0.is_nil() || organization.0.is_nil() {
            return None;
        }
        let look_up = async {
            let mut connection = self.pool.get().await?;
            let owner = if who.user_id() == Some(self.owner) {
                who.clone()
            } else {
                store::actors::load(&mut connection, &LoadActors::check(&chat_daemon())?, self.owner).await?
            };
            let permit = ReadQuota::check(&owner, self.owner, organization)?;
            Ok::<_, Unavailable>(store::quota::usage(&mut connection, &permit).await?)
        };
        match tokio::time::timeout(self.settings.quota_timeout, look_up).await {
            Ok(Ok(quota)) => Some(quota),
            Ok(Err(error)) => {
                tracing::debug!(name: "tools.no_quota", owner = %self.owner, error = %error, "no quota in the reply");
                None
            }
            Err(_) => {
                tracing::debug!(name: "tools.no_quota", owner = %self.owner, "no quota in the reply: too slow");
                None
            }
        }
    }
}
