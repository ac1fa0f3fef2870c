//! The steps of a job's life: every state, every refusal, and the races.

mod acquire;
mod end;
mod insert;
mod races;
mod reap;
mod scope;
mod states;

use coderdb::{
    authz::{CancelJobs, LockJobs},
    model::{OrganizationId, ProvisionerType, Tags},
};

use crate::support::{
    self,
    rows::{Rows, id},
};

fn cancels_all(organization: u128) -> CancelJobs {
    CancelJobs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator")
}

fn locks(organization: u128) -> LockJobs {
    LockJobs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator")
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().copied().collect()
}

const BOTH: &[ProvisionerType] = ProvisionerType::ALL;
const OWN: u128 = 7;

/// Job 1 is a build that was taken by daemon 7 and reported last at `NOW`.
async fn taken() -> Rows {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    rows
}
