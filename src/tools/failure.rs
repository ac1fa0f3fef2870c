//! What is answered when a build failed (domain: chat tools).

use std::error::Error as StdError;

use super::{
    error::error_code,
    reply::{BuildFailure, CreateWorkspaceReply, ErrorCode, QuotaFailure, StartWorkspaceReply},
};
use crate::model::{JobErrorCode, Quota, WorkspaceBuildId};

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

/// Whether the code of the build says so.
pub(super) fn is_insufficient_quota(error: &(dyn StdError + 'static)) -> bool {
    error_code(error).is_some_and(JobErrorCode::is_insufficient_quota)
}

impl From<Failure> for CreateWorkspaceReply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::OverQuota(failure) => Self::OverQuota(failure),
            Failure::Other(failure) => Self::BuildFailed(failure),
        }
    }
}

impl From<Failure> for StartWorkspaceReply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::OverQuota(failure) => Self::OverQuota(failure),
            Failure::Other(failure) => Self::BuildFailed(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::tools::error::{BuildError, BuildFailed};

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
