//! Errors of the tools.

use std::{error::Error as StdError, iter};

use crate::{
    authz::Denied,
    model::{Entity, JobErrorCode, JobStatus},
    pool, store, watch,
};

/// An error of an implementation outside this library.
pub type ForeignError = Box<dyn std::error::Error + Send + Sync>;

/// What a reply says that is flagged as an error: what the call needs is not there, or something is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

impl From<String> for TextError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for TextError {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

impl From<crate::authz::Denied> for Unavailable {
    fn from(denied: crate::authz::Denied) -> Self {
        Self::Store(denied.into())
    }
}

/// Does it again if the first time the connection was lost, or the server was about to go: what is then taken for not
/// there is replaced.
pub(super) async fn twice<T, F: Future<Output = Result<T, Unavailable>>>(
    once: impl Fn() -> F,
) -> Result<T, Unavailable> {
    match once().await {
        Err(Unavailable::Store(error)) if error.is_retryable() => once().await,
        done => done,
    }
}

/// A build that failed. [`error_code`] finds its code through errors that wrap it.
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
