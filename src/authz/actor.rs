//! Whoever acts: a user with roles, or a part of the product.

use std::collections::BTreeMap;

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

            /// The role in a stored text. A role that is not built in gives nobody anything here.
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
    /// Ends jobs that hang or that nobody takes.
    Reaper,
    /// Runs the agents of chats. Acts as the owner of a chat for what concerns the owner.
    ChatDaemon,
    /// Keeps prebuilt workspaces at hand.
    PrebuildReconciler,
    /// Tells those who wait for a job how it stands, if they may see it.
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

/// Whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(Who);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    User { id: UserId, site: Vec<SiteRole>, organizations: BTreeMap<OrganizationId, Vec<OrganizationRole>> },
    System(System),
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
        organizations: impl IntoIterator<Item = (OrganizationId, Vec<String>)>,
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
            .map(|(here, stored)| (here, stored.iter().filter_map(|stored| role(stored, here)).collect()))
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
        self.roles_in(organization).is_some_and(|roles| roles.iter().any(|role| any.contains(role)))
    }

    /// The organizations that the user is a member of; none for a part of the product.
    pub(super) fn organizations(&self) -> Vec<OrganizationId> {
        match &self.0 {
            Who::User { organizations, .. } => organizations.keys().copied().collect(),
            Who::System(_) => Vec::new(),
        }
    }

    pub(super) fn is_member_of(&self, organization: OrganizationId) -> bool {
        self.roles_in(organization).is_some()
    }

    fn roles_in(&self, organization: OrganizationId) -> Option<&[OrganizationRole]> {
        match &self.0 {
            Who::User { organizations, .. } => organizations.get(&organization).map(Vec::as_slice),
            Who::System(_) => None,
        }
    }
}
