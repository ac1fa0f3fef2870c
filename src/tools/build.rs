//! Waiting for a build, and what is said of one that failed (domain: chat tools).

use std::{error::Error as StdError, iter};

use super::{BuildFailure, CancellationToken, ErrorCode, QuotaFailure, Toolbox, Unavailable, chat_daemon};
use crate::{
    authz::{Actor, Denied, LoadActors, ReadQuota, ReadWorkspaces},
    bounds::end_of,
    model::{Entity, JobErrorCode, JobStatus, OrganizationId, Quota, WorkspaceBuildId},
    store, watch,
};

/// A build that failed. Whoever wraps it keeps its code: [`error_code`] finds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildFailed {
    /// What its job says: the end of it, where that is too long for a reply.
    pub message: String,
    /// What kind of failure it was, if it is one of those that are told apart.
    pub code: Option<JobErrorCode>,
}

/// Why a build did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It failed.
    #[error("{0}")]
    Failed(#[source] BuildFailed),
    /// It was canceled.
    #[error("build was canceled")]
    Canceled,
    /// Its job stands where no job that ended can stand.
    #[error("unexpected job status: {0}")]
    UnexpectedStatus(JobStatus),
    /// It could not be read.
    #[error("get build: {0}")]
    Build(#[source] watch::Error),
    /// Its job could not be read.
    #[error("get provisioner job: {0}")]
    Job(#[source] watch::Error),
    /// It did not end in time.
    #[error("timed out waiting for workspace build: {0}")]
    TimedOut(#[source] watch::Error),
    /// The caller did not want to wait any longer.
    #[error("timed out waiting for workspace build: the call was canceled")]
    CallCanceled,
}

impl From<watch::Error> for BuildError {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Deadline { .. } => Self::TimedOut(error),
            watch::Error::Store(store::Error::NotFound { entity: Entity::Job, .. }) => Self::Job(error),
            watch::Error::Store(_) | watch::Error::Pool(_) | watch::Error::Queue(_) => Self::Build(error),
        }
    }
}

impl From<Denied> for BuildError {
    fn from(denied: Denied) -> Self {
        Self::Build(store::Error::from(denied).into())
    }
}

/// The code of the build that failed, in the error or in what it wraps; `None` for every other error. The stored code
/// alone decides, and never a text (domain: quota by code).
#[must_use]
pub fn error_code<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e JobErrorCode> {
    iter::successors(Some(error), |error| (*error).source())
        .find_map(|error| error.downcast_ref::<BuildFailed>())
        .and_then(|failed| failed.code.as_ref())
}

/// What the build was for, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Start,
}

/// What is answered when a build failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    OverQuota(QuotaFailure),
    Other(BuildFailure),
}

/// The answer for an error, in a context.
pub(super) fn failure(
    action: Action,
    build: Option<WorkspaceBuildId>,
    context: &str,
    error: &(dyn StdError + 'static),
    quota: Option<Quota>,
) -> Failure {
    let build_id = build.filter(|id| !id.0.is_nil());
    let text = format!("{context}: {error}");
    if !is_insufficient_quota(error) {
        return Failure::Other(BuildFailure { error: text, build_id });
    }
    let action = match action {
        Action::Create => "create",
        Action::Start => "start",
    };
    Failure::OverQuota(QuotaFailure {
        error_code: ErrorCode::InsufficientQuota,
        error: text,
        title: "Workspace quota reached".to_owned(),
        message: format!(
            "Coder could not {action} this workspace because your workspace quota is full. Delete a workspace you no \
             longer need to free quota, or ask an administrator to raise your group quota allowance."
        ),
        build_id,
        quota,
    })
}

fn is_insufficient_quota(error: &(dyn StdError + 'static)) -> bool {
    error_code(error).is_some_and(JobErrorCode::is_insufficient_quota)
}

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

    /// What the owner consumes and may consume now, if that is to be had: only the owner may know, not the chat daemon
    /// (domain: chat tools), and nobody waits for it long.
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn failed(code: Option<JobErrorCode>) -> BuildFailed {
        BuildFailed { message: "insufficient quota".to_owned(), code }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer<E: StdError + 'static>(#[source] E);

    #[test]
    fn the_code_of_a_failed_build_is_found_through_any_wrapping() {
        let code = JobErrorCode::InsufficientQuota;
        let error = || failed(Some(code.clone()));
        assert_eq!(error_code(&error()), Some(&code));
        assert_eq!(error_code(&BuildError::Failed(error())), Some(&code));
        assert_eq!(error_code(&Outer(BuildError::Failed(error()))), Some(&code));
        assert_eq!(error_code(&Outer(Outer(error()))), Some(&code));
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(Outer(error()));
        assert_eq!(error_code(&*boxed), Some(&code));
        assert_eq!(error_code(&failed(None)), None);
        assert_eq!(error_code(&Outer(BuildError::Canceled)), None);
    }

    #[test]
    fn only_the_code_makes_a_quota_answer_and_what_is_not_known_is_left_out() {
        let (build, context) = (WorkspaceBuildId(Uuid::from_u128(7)), "workspace build failed");
        let quota = Quota { credits_consumed: 1, budget: 2 };
        let text = "workspace build failed: insufficient quota";
        for (action, word) in [(Action::Create, "could not create"), (Action::Start, "could not start")] {
            let error = failed(Some(JobErrorCode::InsufficientQuota));
            let Failure::OverQuota(answer) = failure(action, Some(build), context, &error, Some(quota)) else {
                panic!("it has the code")
            };
            assert_eq!((answer.error.as_str(), answer.build_id, answer.quota), (text, Some(build), Some(quota)));
            assert!(answer.message.contains(word), "{}", answer.message);
            for nothing in [None, Some(WorkspaceBuildId(Uuid::nil()))] {
                let Failure::OverQuota(answer) = failure(action, nothing, context, &error, None) else {
                    panic!("it has the code")
                };
                let keys = serde_json::to_value(&answer).expect("JSON");
                assert!(keys.get("build_id").is_none() && keys.get("quota").is_none(), "{keys}");
            }
            // The text alone says nothing.
            for code in [None, Some(JobErrorCode::MissingTemplateParameter), Some(JobErrorCode::Other("X".to_owned()))]
            {
                let answer = failure(action, Some(build), context, &failed(code), Some(quota));
                assert_eq!(answer, Failure::Other(BuildFailure { error: text.to_owned(), build_id: Some(build) }));
            }
        }
    }
}
