//! Permits for making and changing workspaces and builds, and for prebuilt workspaces.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, TemplateAdmin},
    SiteRole, System, TemplateRight,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, OrganizationId, UserId};

permit! {
    /// May create workspaces for one owner in one organization.
    CreateWorkspaces {
        /// Where.
        organization: OrganizationId,
        /// For whom.
        owner: UserId,
        /// The user to whom the lists of the template must give its use; `None` if a role gives it.
        user: Option<UserId>,
    }
}

impl CreateWorkspaces {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[Admin], system: &[] };

    /// Members for themselves, administrators for all users, and the reconciler for the prebuilds user.
    pub fn check(actor: &Actor, owner: UserId, organization: OrganizationId) -> Result<Self, Denied> {
        let own = actor.user_id() == Some(owner) && actor.is_member_of(organization);
        let prebuild = owner == UserId::PREBUILDS && actor.is_system(&[System::PrebuildReconciler]);
        let granted = own || prebuild || Self::POLICY.grants_in(actor, organization);
        match TemplateRight::Use.decided_for(actor, organization) {
            Ok(user) if granted => Ok(Self { organization, owner, user, _checked: () }),
            _ => Err(denied(Entity::User, owner)),
        }
    }
}

permit! {
    /// May build the workspaces of one organization, of all owners or of one, as one initiator.
    BuildWorkspaces {
        /// Where.
        organization: OrganizationId,
        /// Who asks for the builds.
        initiator: UserId,
        /// The only owner that the permit reaches; `None` for all.
        owner: Option<UserId>,
        /// The user to whom the lists of a template must give reading for a start; `None` if a role gives it.
        reader: Option<UserId>,
        /// The user to whom the lists of a template must give its use for another version; `None` if a role gives it.
        user: Option<UserId>,
    }
}

impl BuildWorkspaces {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[Admin], system: &[] };

    /// Administrators build all workspaces, every other member one's own, the reconciler those of the prebuilds user.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let (initiator, owner) = match actor.user_id() {
            Some(user) if Self::POLICY.grants_in(actor, organization) => (user, None),
            Some(user) if actor.is_member_of(organization) => (user, Some(user)),
            None if actor.is_system(&[System::PrebuildReconciler]) => (UserId::PREBUILDS, Some(UserId::PREBUILDS)),
            _ => return Err(denied(Entity::Organization, organization)),
        };
        let reader = TemplateRight::Read.decided_for(actor, organization)?;
        let user = TemplateRight::Use.decided_for(actor, organization)?;
        Ok(Self { organization, initiator, owner, reader, user, _checked: () })
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
        system: &[],
    };

    /// Those who manage templates. A daemon has the states of its own jobs.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants_in(actor, organization);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
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
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
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
        granted.then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Organization, "any"))
    }
}
