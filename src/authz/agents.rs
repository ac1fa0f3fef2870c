//! Permits for the agents of workspaces.

use super::{
    Actor, Denied, System,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, WorkspaceAgentId};

permit! {
    /// May report on one agent of a workspace, as that agent.
    ActAsAgent {
        /// The agent.
        agent: WorkspaceAgentId,
    }
}

impl ActAsAgent {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::WorkspaceAgent] };

    /// Only agents, each for itself.
    pub fn check(actor: &Actor, agent: WorkspaceAgentId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor);
        granted.then_some(Self { agent, _checked: () }).ok_or_else(|| denied(Entity::Agent, agent))
    }
}
