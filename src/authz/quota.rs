//! Permits for quota.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, Auditor, UserAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, OrganizationId, UserId};

permit! {
    /// May read what one user consumes and may consume in one organization (domain: roles).
    ReadQuota {
        /// Whose quota.
        user: UserId,
        /// Where.
        organization: OrganizationId,
    }
}

permit! {
    /// May read the consumption and the budget of all users in one organization.
    ListQuota {
        /// Where.
        organization: OrganizationId,
    }
}

impl ListQuota {
    /// Owners, user admins and auditors.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = ReadQuota::POLICY.grants_in(actor, organization);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied(Entity::Organization, organization))
    }
}

impl ReadQuota {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::UserAdmin, SiteRole::Auditor],
        organization: &[Admin, UserAdmin, Auditor],
        system: &[System::Operator],
    };

    /// The user, as a member of the organization; owners, user admins and auditors. The chat daemon may not: it asks as
    /// the owner of the chat (domain: chat tools).
    pub fn check(actor: &Actor, user: UserId, organization: OrganizationId) -> Result<Self, Denied> {
        let own = actor.user_id() == Some(user) && actor.is_member_of(organization);
        let granted = own || Self::POLICY.grants_in(actor, organization);
        granted.then_some(Self { user, organization, _checked: () }).ok_or_else(|| denied(Entity::User, user))
    }
}
