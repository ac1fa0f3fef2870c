//! Permit for the whole queue.

use super::{
    Actor, Denied, System,
    permit::{Policy, denied, permit},
};
use crate::model::Entity;

permit! {
    /// May see what waits in all organizations, and which daemons could take it.
    ReadQueue {}
}

impl ReadQueue {
    const POLICY: Policy = Policy {
        site: &[],
        organization: &[],
        system: &[System::PrebuildReconciler, System::Watcher, System::Operator],
    };

    /// Only parts of the product. People see the part of their organization, with a [`ReadJobs`](super::ReadJobs).
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Queue, "any"))
    }
}
