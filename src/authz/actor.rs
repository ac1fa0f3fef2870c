//! Actors: users with roles, and parts of the product.

use std::collections::BTreeMap;

use super::permit::Permission;
use crate::model::{OrganizationId, UserId};

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every role.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The role as the database spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The role in a stored text; `None` for one that is not built in.
            fn parse(stored: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|role| role.as_str() == stored)
            }
        }
    )*};
}

roles! {
    /// The built-in roles that hold on the whole site (`users.rbac_roles`).
    SiteRole {
        /// May do everything.
        Owner = "owner",
        /// Manages templates everywhere.
        TemplateAdmin = "template-admin",
        /// Manages users everywhere.
        UserAdmin = "user-admin",
        /// Reads everything.
        Auditor = "auditor",
    }

    /// The built-in roles that hold in one organization (`organization_members.roles`).
    OrganizationRole {
        /// May do everything in the organization.
        Admin = "organization-admin",
        /// Manages its templates.
        TemplateAdmin = "organization-template-admin",
        /// Manages its members.
        UserAdmin = "organization-user-admin",
        /// Reads everything in it.
        Auditor = "organization-auditor",
    }
}

/// A part of the product that acts for itself, with exactly what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// Signs users in: finds out what they may do.
    Authenticator,
    /// Takes jobs, carries them out, and commits quota.
    ProvisionerDaemon,
    /// Runs in a workspace, and reports on itself.
    WorkspaceAgent,
    /// Ends jobs that hang, or that no daemon takes.
    Reaper,
    /// Runs the agents of chats. Acts as the owner of a chat for what concerns the owner.
    ChatDaemon,
    /// Keeps prebuilt workspaces at hand.
    PrebuildReconciler,
    /// Passes the status of a job to those who wait for it, if they may see it.
    Watcher,
    /// Finds out which licenses are valid, and so what the product may do.
    Entitlements,
    /// The person at the command line, who has the database's password.
    Operator,
}

impl System {
    /// Every system actor.
    pub const ALL: &[Self] = &[
        Self::Authenticator,
        Self::ProvisionerDaemon,
        Self::WorkspaceAgent,
        Self::Reaper,
        Self::ChatDaemon,
        Self::PrebuildReconciler,
        Self::Watcher,
        Self::Entitlements,
        Self::Operator,
    ];
}

/// The caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(Who);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    User { id: UserId, site: Vec<SiteRole>, organizations: BTreeMap<OrganizationId, Membership> },
    System(System),
}

/// What a user is in one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    roles: Vec<OrganizationRole>,
    permissions: Vec<CustomPermission>,
}

/// A permission of a custom role of an organization (`custom_roles.org_permissions`); `*` stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CustomPermission {
    /// Whether it takes away what other roles give.
    pub negate: bool,
    pub resource_type: String,
    pub action: String,
}

impl CustomPermission {
    fn is_about(&self, resource_type: &str, action: &str) -> bool {
        ["*", resource_type].contains(&self.resource_type.as_str()) && ["*", action].contains(&self.action.as_str())
    }
}

impl Actor {
    /// A part of the product. Only the product's own processes may say so of themselves.
    #[must_use]
    pub const fn system(system: System) -> Self {
        Self(Who::System(system))
    }

    /// The user, for one; `None` for a part of the product.
    #[must_use]
    pub const fn user_id(&self) -> Option<UserId> {
        match &self.0 {
            Who::User { id, .. } => Some(*id),
            Who::System(_) => None,
        }
    }

    /// A user with roles as the database holds them; only `store::actors::load` reads them there.
    pub(crate) fn user(
        id: UserId,
        site: &[String],
        organizations: impl IntoIterator<Item = (OrganizationId, Vec<String>, Vec<CustomPermission>)>,
    ) -> Self {
        let site = site.iter().filter_map(|role| SiteRole::parse(role)).collect();
        // The text may end in the id of an organization. A role of another organization gives nothing in this one.
        let role = |stored: &String, here: OrganizationId| match stored.split_once(':') {
            Some((name, organization)) if organization.parse() == Ok(here) => OrganizationRole::parse(name),
            Some(_) => None,
            None => OrganizationRole::parse(stored),
        };
        let organizations = organizations
            .into_iter()
            .map(|(here, stored, permissions)| {
                let roles = stored.iter().filter_map(|stored| role(stored, here)).collect();
                (here, Membership { roles, permissions })
            })
            .collect();
        Self(Who::User { id, site, organizations })
    }

    pub(super) fn is_system(&self, any: &[System]) -> bool {
        matches!(&self.0, Who::System(system) if any.contains(system))
    }

    pub(super) fn has_site_role(&self, any: &[SiteRole]) -> bool {
        matches!(&self.0, Who::User { site, .. } if site.iter().any(|role| any.contains(role)))
    }

    pub(super) fn has_role_in(&self, organization: OrganizationId, any: &[OrganizationRole]) -> bool {
        self.membership(organization).is_some_and(|here| here.roles.iter().any(|role| any.contains(role)))
    }

    /// What the custom roles of the user say of it in the organization: a negation wins; `None` when they say nothing.
    pub(super) fn custom_roles_say(
        &self,
        organization: OrganizationId,
        (resource_type, action): Permission,
    ) -> Option<bool> {
        let permissions = &self.membership(organization)?.permissions;
        let about = permissions.iter().filter(|permission| permission.is_about(resource_type, action));
        about.map(|permission| !permission.negate).min()
    }

    /// The organizations that the user is a member of; none for a part of the product.
    pub(super) fn organizations(&self) -> Vec<OrganizationId> {
        match &self.0 {
            Who::User { organizations, .. } => organizations.keys().copied().collect(),
            Who::System(_) => Vec::new(),
        }
    }

    pub(super) fn is_member_of(&self, organization: OrganizationId) -> bool {
        self.membership(organization).is_some()
    }

    fn membership(&self, organization: OrganizationId) -> Option<&Membership> {
        match &self.0 {
            Who::User { organizations, .. } => organizations.get(&organization),
            Who::System(_) => None,
        }
    }
}
