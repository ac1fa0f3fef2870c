//! Permits for provisioner daemons.

use super::{
    Actor, Denied, ReadJobs, System,
    permit::{Policy, denied, permit},
};
use crate::model::{DaemonId, Entity, OrganizationId};

permit! {
    /// May read the provisioner daemons of one organization, and which jobs they may take.
    ReadDaemons {
        /// Whose daemons.
        organization: OrganizationId,
    }
}

impl ReadDaemons {
    const POLICY: Policy = Policy { system: &[System::PrebuildReconciler, System::Operator], ..ReadJobs::POLICY };

    /// Users who may read the jobs of the organization, and the prebuild reconciler.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.or_custom_role_grants_in(actor, organization, ReadJobs::PERMISSION);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
    }
}

permit! {
    /// May act as one provisioner daemon of one organization: connect, and give signs of life.
    ActAsDaemon {
        /// The daemon.
        daemon: DaemonId,
        /// Whose jobs it takes.
        organization: OrganizationId,
    }
}

impl ActAsDaemon {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::ProvisionerDaemon] };

    /// Only daemons.
    pub fn check(actor: &Actor, daemon: DaemonId, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor);
        granted.then_some(Self { daemon, organization, _checked: () }).ok_or_else(|| denied(Entity::Daemon, daemon))
    }
}

permit! {
    /// May delete the daemons of all organizations that have not been seen for long.
    MaintainDaemons {}
}

impl MaintainDaemons {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::Reaper, System::Operator] };

    /// Only maintenance.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Daemon, "any"))
    }
}
