//! Permits for API keys.

use super::{
    Actor, Denied, SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::Entity;

permit! {
    /// May find out whose a session token is, and what that user may do.
    SignIn {}
}

impl SignIn {
    const POLICY: Policy = Policy { site: &[], organization: &[], system: &[System::Authenticator] };

    /// Only the part of the product that signs users in.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::ApiKey, "any"))
    }
}

permit! {
    /// May make, list and revoke the tokens of all users.
    ManageTokens {}
}

impl ManageTokens {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[], system: &[System::Operator] };

    /// Owners: a token lets act as its user.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::ApiKey, "any"))
    }
}
