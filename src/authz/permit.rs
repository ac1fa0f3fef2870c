//! What all permits are made of.

use std::fmt;

use super::{
    Actor, Denied, OrganizationRole, ReadDaemons, ReadFiles, ReadJobLogs, ReadJobs, ReadOrganizations, ReadTemplates,
    ReadWorkspaces, SiteRole, System,
};
use crate::model::{Entity, OrganizationId};

/// A permit is a struct with private fields, declared in a module of its own: only a `check` beside it can make one.
macro_rules! permit {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[must_use]
        pub struct $name {
            $($field: $type,)*
            // Keeps a permit without a scope from being made elsewhere, too.
            _checked: (),
        }

        impl $name {
            $(
                $(#[$field_doc])*
                #[must_use]
                pub const fn $field(&self) -> $type {
                    self.$field
                }
            )*
        }
    };
}
pub(super) use permit;

/// A permit of reads that are replica-safe: a standby may answer them, some time behind the primary.
///
/// Not the one for quota, nor those that lock, claim or write. Nor those for actors, users, licenses and settings: a
/// right that was revoked must be seen at once.
#[diagnostic::on_unimplemented(
    message = "what `{Self}` opens must not lag behind the primary",
    note = "read it on a connection of `Cluster::primary`"
)]
pub trait ReplicaSafe: sealed::OfReads {}

mod sealed {
    pub trait OfReads {}
}

macro_rules! replica_safe {
    ($($permit:ty),* $(,)?) => {$(
        impl sealed::OfReads for $permit {}
        impl ReplicaSafe for $permit {}
    )*};
}

replica_safe!(ReadDaemons, ReadFiles, ReadJobLogs, ReadJobs, ReadOrganizations, ReadTemplates, ReadWorkspaces);

/// Who gets a permit: the holders of these roles, and these parts of the product.
#[derive(Clone, Copy, Default)]
pub(super) struct Policy {
    pub site: &'static [SiteRole],
    pub organization: &'static [OrganizationRole],
    pub system: &'static [System],
}

impl Policy {
    /// Whether the actor gets it for the whole site.
    pub fn grants(&self, actor: &Actor) -> bool {
        actor.has_site_role(self.site) || actor.is_system(self.system)
    }

    /// Whether the actor gets it for this organization.
    pub fn grants_in(&self, actor: &Actor, organization: OrganizationId) -> bool {
        self.grants(actor) || actor.has_role_in(organization, self.organization)
    }

    /// Whether the actor gets it for the whole site, or holds one of the roles in any organization.
    pub fn grants_in_any(&self, actor: &Actor) -> bool {
        actor.organizations().into_iter().any(|organization| self.grants_in(actor, organization)) || self.grants(actor)
    }

    /// The same, where custom roles of the organization may give it, and take away what another role there gives.
    pub fn or_custom_role_grants_in(
        &self,
        actor: &Actor,
        organization: OrganizationId,
        permission: Permission,
    ) -> bool {
        self.grants(actor)
            || actor
                .custom_roles_say(organization, permission)
                .unwrap_or_else(|| actor.has_role_in(organization, self.organization))
    }
}

/// What a custom role calls it: a type of resource, and an action.
pub(super) type Permission = (&'static str, &'static str);

pub(super) fn denied(entity: Entity, key: impl fmt::Display) -> Denied {
    Denied { entity, key: format!("{key}") }
}
