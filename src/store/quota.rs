//! Quota: what a user consumes and may consume (domain 7.1).

use sqlx::PgConnection;

use super::{Error, Result};
use crate::{
    authz::ReadQuota,
    model::{JobId, Quota},
};

/// What the user consumes in the organization, and may consume, in credits. One round trip, one snapshot, no locks.
///
/// Consumed is the sum of the daily cost of the newest build of each workspace that the user owns there; budget is the
/// sum of the allowances of the user's groups there, the Everyone group included. Both are 0 for a user that does not
/// exist, and the budget is 0 for a deleted one.
#[tracing::instrument(name = "db.quota.usage", skip_all)]
pub async fn usage(conn: &mut PgConnection, permit: &ReadQuota) -> Result<Quota> {
    sqlx::query_file_as!(Quota, "queries/quota/usage.sql", permit.user().0, permit.organization().0)
        .fetch_one(conn)
        .await
        .map_err(|e| Error::from_sqlx("quota/usage", e))
}

/// The proof that the quota commit of a build was rejected: what it takes to fail the build's job with
/// `INSUFFICIENT_QUOTA` (domain 9). It is good for that job, once.
///
/// ```compile_fail
/// let forged = coderdb::store::quota::RejectedCommit { job: coderdb::model::JobId(uuid::Uuid::nil()) };
/// ```
///
/// ```compile_fail
/// let forged = coderdb::store::quota::RejectedCommit::new(coderdb::model::JobId(uuid::Uuid::nil()));
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct RejectedCommit {
    job: JobId,
}

impl RejectedCommit {
    /// Only a rejected commit may make one.
    #[allow(dead_code, reason = "the quota commit comes after this")]
    pub(crate) const fn new(job: JobId) -> Self {
        Self { job }
    }

    /// The job whose build is over quota.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }
}
