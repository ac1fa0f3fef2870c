//! Permits for users and organizations.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, Auditor, UserAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, OrganizationId, UserId};

permit! {
    /// May find out what a user may do, for acting as that user.
    LoadActors {}
}

impl LoadActors {
    const POLICY: Policy =
        Policy { site: &[], organization: &[], system: &[System::Authenticator, System::ChatDaemon, System::Operator] };

    /// Only parts of the product that act for users.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Actor, "any"))
    }
}

permit! {
    /// May read users: all of them, or only oneself.
    ReadUsers {
        /// The only user that the permit reaches; `None` for all.
        only: Option<UserId>,
    }
}

impl ReadUsers {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin, SiteRole::UserAdmin, SiteRole::Auditor],
        organization: &[Admin, UserAdmin, Auditor],
        system: &[System::Authenticator, System::ProvisionerDaemon, System::ChatDaemon, System::Operator],
    };

    /// Users with a role on the site, and those who manage the members of an organization, may read all users; other
    /// users only themselves.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        match (Self::POLICY.grants_in_any(actor), actor.user_id()) {
            (true, _) => Ok(Self { only: None, _checked: () }),
            (false, Some(user)) => Ok(Self { only: Some(user), _checked: () }),
            (false, None) => Err(denied(Entity::User, "any")),
        }
    }

    pub(crate) fn reaches(&self, user: UserId) -> bool {
        self.only.is_none_or(|only| only == user)
    }
}

/// May read organizations: all of them, or those that one is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ReadOrganizations {
    only: Option<Vec<OrganizationId>>,
}

impl ReadOrganizations {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin, SiteRole::UserAdmin, SiteRole::Auditor],
        organization: &[],
        system: &[
            System::Authenticator,
            System::ProvisionerDaemon,
            System::Reaper,
            System::ChatDaemon,
            System::PrebuildReconciler,
            System::Operator,
        ],
    };

    /// Never denied: users with a role on the site, and most parts of the product, may read all; other users their own.
    pub fn check(actor: &Actor) -> Self {
        Self { only: (!Self::POLICY.grants(actor)).then(|| actor.organizations()) }
    }

    pub(crate) fn reaches(&self, organization: OrganizationId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&organization))
    }
}
