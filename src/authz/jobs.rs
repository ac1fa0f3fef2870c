//! Permits for provisioner jobs.

use super::{
    Actor, Denied,
    OrganizationRole::{Admin, Auditor, TemplateAdmin},
    SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::OrganizationId;

permit! {
    /// May read the provisioner jobs of one organization (domain 15, decision 12).
    ReadJobs {
        /// Whose jobs.
        organization: OrganizationId,
    }
}

impl ReadJobs {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::TemplateAdmin, SiteRole::Auditor],
        organization: &[Admin, TemplateAdmin, Auditor],
        system: &[System::ProvisionerDaemon, System::Reaper, System::PrebuildReconciler, System::Operator],
    };

    /// Owners, template admins and auditors, of the site or of the organization. Plain members may not.
    pub fn check(actor: &Actor, organization: OrganizationId) -> Result<Self, Denied> {
        let granted = Self::POLICY.grants_in(actor, organization);
        granted.then_some(Self { organization, _checked: () }).ok_or_else(|| denied("organization", organization))
    }
}
