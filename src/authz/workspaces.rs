//! Permits for templates and workspaces.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, Auditor, TemplateAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::{OrganizationId, UserId};

permit! {
    /// May read the templates of one organization.
    ReadTemplates {
        /// Whose templates.
        organization: OrganizationId,
    }
}

impl ReadTemplates {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin, SiteRole::Auditor],
        organization: &[],
        system: &[System::ProvisionerDaemon, System::ChatDaemon, System::PrebuildReconciler, System::Operator],
    };

    /// Every member of the organization; owners, template admins and auditors of the site.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = actor.is_member_of(organization) || Self::POLICY.grants(actor);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied("organization", organization))
    }
}

/// May read a template wherever it is: in all organizations, or in those that one is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct FindTemplates {
    only: Option<Vec<OrganizationId>>,
}

impl FindTemplates {
    /// Whoever may read the templates of an organization, in each of them.
    pub fn of(actor: &Actor) -> Self {
        Self { only: (!ReadTemplates::POLICY.grants(actor)).then(|| actor.organizations()) }
    }

    /// The only organizations that the permit reaches; `None` for all.
    pub(crate) fn only(&self) -> Option<Vec<uuid::Uuid>> {
        self.only.as_ref().map(|only| only.iter().map(|organization| organization.0).collect())
    }
}

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
            _ => return Err(denied("organization", organization)),
        };
        Ok(Self { organization, owner, _checked: () })
    }

    pub(crate) fn reaches(&self, owner: UserId) -> bool {
        self.owner.is_none_or(|only| only == owner)
    }
}
