//! Permits for settings of the site.

use super::{
    Actor, Denied, SiteRole, System,
    permit::{Policy, denied, permit},
};
use crate::model::Entity;

permit! {
    /// May read the settings of prebuilt workspaces.
    ReadPrebuildsSettings {}
}

impl ReadPrebuildsSettings {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::Auditor],
        organization: &[],
        system: &[System::PrebuildReconciler, System::Operator],
    };

    /// Owners and auditors; the reconciler, which they are for.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Settings, "prebuilds"))
    }
}

permit! {
    /// May pause and resume the reconciler of prebuilt workspaces.
    WritePrebuildsSettings {}
}

impl WritePrebuildsSettings {
    const POLICY: Policy = Policy { site: &[SiteRole::Owner], organization: &[], system: &[System::Operator] };

    /// Owners.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Settings, "prebuilds"))
    }
}

permit! {
    /// May read how long the workspaces of chats live.
    ReadChatSettings {}
}

impl ReadChatSettings {
    const POLICY: Policy = Policy {
        site: &[SiteRole::Owner, SiteRole::Auditor],
        organization: &[],
        system: &[System::ChatDaemon, System::Operator],
    };

    /// Owners and auditors; the chat daemon, which creates such workspaces.
    pub fn check(actor: &Actor) -> Result<Self, Denied> {
        Self::POLICY.grants(actor).then_some(Self { _checked: () }).ok_or_else(|| denied(Entity::Settings, "chats"))
    }
}
