//! Permits for making and changing workspaces, builds and agents, for prebuilt workspaces, and for committing quota.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, TemplateAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::{DaemonId, OrganizationId, UserId};

permit! {
    /// May create workspaces for one owner in one organization.
    CreateWorkspaces {
        /// Where.
        organization: OrganizationId,
        /// For whom.
        owner: UserId,
    }
}

impl CreateWorkspaces {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[Admin], system: &[System::Operator] };

    /// Members for themselves, administrators for everybody, and the reconciler for the prebuilds user.
    pub fn check(actor: &Actor, owner: UserId, organization: OrganizationId) -> Result<Self, Denied> {
        let own = actor.user_id() == Some(owner) && actor.is_member_of(organization);
        let prebuild = owner == UserId::PREBUILDS && actor.is_system(&[System::PrebuildReconciler]);
        let granted = own || prebuild || Self::POLICY.grants_in(actor, organization);
        granted.then_some(Self { organization, owner, _checked: () }).ok_or_else(|| denied("user", owner))
    }
}

permit! {
    /// May build the workspaces of one organization and write what their agents report: of all owners, or of one.
    BuildWorkspaces {
        /// Where.
        organization: OrganizationId,
        /// The only owner that the permit reaches; `None` for all.
        owner: Option<UserId>,
    }
}

impl BuildWorkspaces {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[Admin], system: &[System::Operator] };

    /// Administrators build all workspaces, every other member one's own, the reconciler those of the prebuilds user.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let owner = match actor.user_id() {
            _ if Self::POLICY.grants_in(actor, organization) => None,
            Some(user) if actor.is_member_of(organization) => Some(user),
            None if actor.is_system(&[System::PrebuildReconciler]) => Some(UserId::PREBUILDS),
            _ => return Err(denied("organization", organization)),
        };
        Ok(Self { organization, owner, _checked: () })
    }
}

permit! {
    /// May read and write the provisioner states of the builds of one organization: they hold secrets.
    ProvisionerStates {
        /// Whose builds.
        organization: OrganizationId,
    }
}

impl ProvisionerStates {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin],
        organization: &[Admin, TemplateAdmin],
        system: &[System::ProvisionerDaemon, System::Reaper, System::Operator],
    };

    /// Those who manage templates, the daemons, and the reaper.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants_in(actor, organization);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied("organization", organization))
    }
}

permit! {
    /// May keep the prebuilt workspaces of one organization.
    MaintainPrebuilds {
        /// Where.
        organization: OrganizationId,
    }
}

impl MaintainPrebuilds {
    const POLICY: Policy =
        Policy { site: &[], organization: &[], system: &[System::PrebuildReconciler, System::Operator] };

    /// Only the reconciler and the operator.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied("organization", organization))
    }
}

permit! {
    /// May find the organizations that want prebuilt workspaces.
    FindPrebuilds {}
}

impl FindPrebuilds {
    /// Only the reconciler and the operator, as with the prebuilds of each.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        let granted = MaintainPrebuilds::POLICY.grants(actor);
        granted.then_some(Self { _checked: () }).ok_or_else(|| denied("organization", "any"))
    }
}

permit! {
    /// May commit quota for the jobs that one daemon carries out in one organization (domain 8.4).
    CommitQuota {
        /// Where.
        organization: OrganizationId,
        /// Whose jobs.
        daemon: DaemonId,
    }
}

impl CommitQuota {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::ProvisionerDaemon] };

    /// Only provisioner daemons, each for itself.
    pub fn check(actor: &Actor, organization: OrganizationId, daemon: DaemonId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor);
        granted
            .then_some(Self { organization, daemon, _checked: () })
            .ok_or_else(|| denied("provisioner daemon", daemon))
    }
}
