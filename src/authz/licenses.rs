//! Permits for licenses.

use super::{
    Actor, Denied, SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::Entity;

permit! {
    /// May read licenses, their texts included, and the id of the deployment that they may name.
    ReadLicenses {}
}

impl ReadLicenses {
    const POLICY: Policy =
        Policy { site: &[SiteRole::Owner], organization: &[], system: &[System::Entitlements, System::Operator] };

    /// Owners. Not auditors: the text of a license is all that it takes to use it.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::License, "any"))
    }
}

permit! {
    /// May add and delete licenses.
    WriteLicenses {}
}

impl WriteLicenses {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[], system: &[System::Operator] };

    /// Owners.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::License, "any"))
    }
}
