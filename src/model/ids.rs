//! Typed ids: one UUID per entity that cannot be mixed up with another's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

ids! {
    /// The id of an organization, which is also the id of its Everyone group.
    OrganizationId;
    /// The id of a user.
    UserId;
    /// The id of a template.
    TemplateId;
    /// The id of a version of a template.
    TemplateVersionId;
    /// The id of a workspace.
    WorkspaceId;
    /// The id of a build of a workspace.
    WorkspaceBuildId;
    /// The id of a provisioner job.
    JobId;
    /// The id of a provisioner daemon, which jobs know as their worker.
    DaemonId;
    /// The id of a key with which provisioner daemons sign in.
    ProvisionerKeyId;
    /// The id of an agent: the process in a workspace that people connect to.
    WorkspaceAgentId;
    /// The id of a chat.
    ChatId;
    /// The id of an uploaded file: the source archive that a job works on.
    FileId;
    /// The id of a preset of a template version.
    PresetId;
    /// The id of a group of users.
    GroupId;
}

impl UserId {
    /// The system user that owns unclaimed prebuilt workspaces and initiates their builds (domain: users).
    pub const PREBUILDS: Self = Self(Uuid::from_u128(0xc42f_df75_3097_471c_8c33_fb52_454d_81c0));
}
