//! Permits for uploaded files.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, TemplateAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::{Entity, UserId};

permit! {
    /// May upload files as one user.
    UploadFiles {
        /// Whose they will be.
        owner: UserId,
    }
}

impl UploadFiles {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin],
        organization: &[Admin, TemplateAdmin],
        system: &[],
    };

    /// A user as oneself, who manages templates on the site or in any organization: a file belongs to none.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants(actor)
            || actor.organizations().into_iter().any(|organization| Self::POLICY.grants_in(actor, organization));
        actor
            .user_id()
            .filter(|_| granted)
            .map(|owner| Self { owner, _checked: () })
            .ok_or_else(|| denied(Entity::File, "any"))
    }
}

permit! {
    /// May read uploaded files: all of them, or those of one user.
    ReadFiles {
        /// The only owner that the permit reaches; `None` for all.
        owner: Option<UserId>,
    }
}

impl ReadFiles {
    const POLICY: Policy =
        Policy { site: &[SiteRole::Owner, SiteRole::TemplateAdmin], organization: &[], system: &[System::Operator] };

    /// Owners and template admins of the site read all files, other users their own. A provisioner daemon reads the
    /// source of its job, with the permit for that.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        match (Self::POLICY.grants(actor), actor.user_id()) {
            (true, _) => Ok(Self { owner: None, _checked: () }),
            (false, Some(user)) => Ok(Self { owner: Some(user), _checked: () }),
            (false, None) => Err(denied(Entity::File, "any")),
        }
    }
}
