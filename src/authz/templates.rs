//! Permits for templates: by a role, or by the lists of each template (`templates.user_acl`, `group_acl`).

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, Auditor, TemplateAdmin},
    SiteRole, System,
    permit::{Permission, Policy, denied, permit},
};
use crate::model::{Entity, OrganizationId, UserId};

/// What a user may do with a template. In its lists, `*` stands for all rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateRight {
    /// See it, and start the workspaces that are made from it.
    Read,
    /// Make workspaces from it, and move them to its active version.
    Use,
}

impl TemplateRight {
    const READ: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin, SiteRole::Auditor],
        organization: &[Admin, TemplateAdmin, Auditor],
        system: &[System::ProvisionerDaemon, System::ChatDaemon, System::PrebuildReconciler, System::Operator],
    };
    const USE: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin],
        organization: &[Admin, TemplateAdmin],
        system: &[System::PrebuildReconciler],
    };

    /// The action in the lists.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Use => "use",
        }
    }

    const fn policy(self) -> Policy {
        match self {
            Self::Read => Self::READ,
            Self::Use => Self::USE,
        }
    }

    fn is_given_by_a_role(self, actor: &Actor, organization: OrganizationId) -> bool {
        let permission: Permission = ("template", self.as_str());
        self.policy().or_custom_role_grants_in(actor, organization, permission)
    }

    /// The user to whom the lists must give the right in this organization; `None` if a role gives it for every
    /// template.
    pub(super) fn decided_for(self, actor: &Actor, organization: OrganizationId) -> Result<Option<UserId>, Denied> {
        match actor.user_id() {
            _ if self.is_given_by_a_role(actor, organization) => Ok(None),
            Some(user) if actor.is_member_of(organization) => Ok(Some(user)),
            _ => Err(denied(Entity::Organization, organization)),
        }
    }
}

permit! {
    /// May read, or use, templates of one organization: all of them, or those whose lists let one user.
    ReadTemplates {
        /// Whose templates.
        organization: OrganizationId,
        /// With which right.
        right: TemplateRight,
        /// The user to whom the lists must give the right; `None` if a role gives it.
        user: Option<UserId>,
    }
}

impl ReadTemplates {
    /// Every template for owners, template admins and auditors, of the site or of the organization, though auditors use
    /// none; for every other member those whose lists say so.
    pub fn check(actor: &Actor, organization: OrganizationId, right: TemplateRight) -> Result<Self, Denied> {
        let user = right.decided_for(actor, organization)?;
        Ok(Self { organization, right, user, _checked: () })
    }
}

/// May read, or use, a template in any organization, by the rule of [`ReadTemplates`] there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct FindTemplates {
    right: TemplateRight,
    everything_in: Option<Vec<OrganizationId>>,
    user: Option<UserId>,
}

impl FindTemplates {
    /// Never denied: reaches the templates of each organization where the actor may do so, and those whose lists say
    /// so.
    pub fn check(actor: &Actor, right: TemplateRight) -> Self {
        let everything_in = (!right.policy().grants(actor)).then(|| {
            let mut organizations = actor.organizations();
            organizations.retain(|organization| right.is_given_by_a_role(actor, *organization));
            organizations
        });
        Self { right, everything_in, user: actor.user_id() }
    }

    /// With which right.
    pub(crate) const fn right(&self) -> TemplateRight {
        self.right
    }

    /// The organizations of which the permit reaches every template; `None` for all.
    pub(crate) fn everything_in(&self) -> Option<Vec<uuid::Uuid>> {
        self.everything_in.as_ref().map(|all| all.iter().map(|organization| organization.0).collect())
    }

    /// The user to whom the lists of the other templates must give the right.
    pub(crate) const fn user(&self) -> Option<UserId> {
        self.user
    }
}
