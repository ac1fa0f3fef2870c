//! Permits for workspaces.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, Auditor, TemplateAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, OrganizationId, UserId};

permit! {
    /// May read workspaces of one organization: all of them, or those of one owner.
    ReadWorkspaces {
        /// Where.
        organization: OrganizationId,
        /// The only owner that the permit reaches; `None` for all.
        owner: Option<UserId>,
    }
}

impl ReadWorkspaces {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin, SiteRole::Auditor],
        organization: &[Admin, TemplateAdmin, Auditor],
        system: &[
            System::ProvisionerDaemon,
            System::Reaper,
            System::ChatDaemon,
            System::PrebuildReconciler,
            System::Operator,
        ],
    };

    /// Owners, template admins and auditors read all workspaces, every other member one's own.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let owner = match actor.user_id() {
            _ if Self::POLICY.grants_in(actor, organization) => None,
            Some(user) if actor.is_member_of(organization) => Some(user),
            _ => return Err(denied(Entity::Organization, organization)),
        };
        Ok(Self { organization, owner, _checked: () })
    }

    pub(crate) fn reaches(&self, owner: UserId) -> bool {
        self.owner.is_none_or(|only| only == owner)
    }
}
