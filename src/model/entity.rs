//! What can be missing.

use std::fmt;

macro_rules! entities {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What was looked for and is not there, or may not be seen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Entity {
            $($(#[$doc])* $name,)*
        }

        impl Entity {
            /// It in words.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

entities! {
    /// An actor.
    Actor = "actor",
    /// An agent of a workspace.
    Agent = "workspace agent",
    /// An API key.
    ApiKey = "API key",
    /// A build of a workspace.
    Build = "workspace build",
    /// The build that a job carries out.
    BuildOfJob = "workspace build of the provisioner job",
    /// The newest build of a workspace.
    BuildOfWorkspace = "build of the workspace",
    /// A chat.
    Chat = "chat",
    /// A chat, or the workspace, build or agent that it is to be bound to.
    ChatOrItsWork = "chat, or what it should work with,",
    /// A provisioner daemon.
    Daemon = "daemon",
    /// The organization that is meant where none is named.
    DefaultOrganization = "default organization",
    /// An uploaded file.
    File = "file",
    /// The user who asked for jobs.
    Initiator = "initiator",
    /// A provisioner job.
    Job = "provisioner job",
    /// A license.
    License = "license",
    /// An organization.
    Organization = "organization",
    /// A preset of a template version.
    Preset = "preset",
    /// A key with which daemons sign in.
    ProvisionerKey = "provisioner key",
    /// The queue of all organizations.
    Queue = "queue",
    /// Settings of the site.
    Settings = "settings",
    /// A template.
    Template = "template",
    /// A version of a template.
    TemplateVersion = "template version",
    /// A version of a template, or the job that imported its source.
    TemplateVersionOrSource = "template version or its source",
    /// A user.
    User = "user",
    /// A workspace.
    Workspace = "workspace",
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
