//! The closed sets (domain: closed sets), and how they are read from a database that may know more.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not a value of one of the closed sets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a {set}; expected one of {}", expected.join(", "))]
pub struct UnknownValue {
    /// What the value should have been, in words.
    pub set: &'static str,
    /// The text as it was given.
    pub value: String,
    /// Every value that is allowed.
    pub expected: Vec<&'static str>,
}

/// A value of an enumerated type as it is read: a later server may have added labels to the type. What is written, and
/// what filters ask for, is a known value.
///
/// ```
/// use coderdb::model::{Label, ProvisionerType};
///
/// let read: Vec<Label<ProvisionerType>> = ["terraform", "opentofu"].map(|text| Label::of(text.to_owned())).into();
/// assert_eq!(read[0], ProvisionerType::Terraform);
/// assert_eq!((read[1].known(), read[1].as_str()), (None, "opentofu"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label<T> {
    /// One that this version knows.
    Known(T),
    /// Another one, as the database spells it.
    Unknown(String),
}

impl<T> Label<T> {
    /// The value that the database spells like this.
    #[must_use]
    pub fn of(text: String) -> Self
    where
        T: FromStr,
    {
        text.parse().map_or_else(|_| Self::Unknown(text), Self::Known)
    }

    /// The value, if this version knows it.
    #[must_use]
    pub const fn known(&self) -> Option<T>
    where
        T: Copy,
    {
        match self {
            Self::Known(value) => Some(*value),
            Self::Unknown(_) => None,
        }
    }

    /// The value as the database and the JSON contract spell it.
    #[must_use]
    pub fn as_str(&self) -> &str
    where
        T: AsRef<str>,
    {
        match self {
            Self::Known(value) => value.as_ref(),
            Self::Unknown(text) => text,
        }
    }
}

impl<T> From<T> for Label<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Label<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: AsRef<str>> fmt::Display for Label<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: AsRef<str>> Serialize for Label<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Label<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::of)
    }
}

macro_rules! closed_sets {
    ($($(#[doc = $doc:literal])* $name:ident, $set:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order in which the database declares them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value as the database and the JSON contract spell it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        #[cfg(feature = "http")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                let doc = [$($doc),*].map(str::trim).join(" ");
                let values = Self::ALL.iter().map(|value| value.as_str());
                ObjectBuilder::new().schema_type(Type::String).description(Some(doc)).enum_values(Some(values)).into()
            }
        }

        #[cfg(feature = "http")]
        impl utoipa::ToSchema for $name {}

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownValue;

            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownValue {
                        set: $set,
                        value: text.to_owned(),
                        expected: Self::ALL.iter().map(|v| v.as_str()).collect(),
                    }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

closed_sets! {
    /// Where a provisioner job stands: a pure function of four of its columns (domain: job status).
    JobStatus, "job status" {
        /// Waits in the queue for a daemon.
        Pending = "pending",
        /// A daemon works on it.
        Running = "running",
        /// Finished without an error and without a request to cancel it.
        Succeeded = "succeeded",
        /// Its cancellation was requested; its daemon has not finished it yet.
        Canceling = "canceling",
        /// Finished after its cancellation was requested.
        Canceled = "canceled",
        /// Has an error text, finished or not.
        Failed = "failed",
        /// Declared by the type, and what a status that this version does not know is read as.
        Unknown = "unknown",
    }

    /// What a provisioner job does.
    JobType, "job type" {
        /// Imports a version of a template.
        TemplateVersionImport = "template_version_import",
        /// Builds a workspace.
        WorkspaceBuild = "workspace_build",
        /// Plans a version of a template without building anything.
        TemplateVersionDryRun = "template_version_dry_run",
    }

    /// Which provisioner carries a job out.
    ProvisionerType, "provisioner" {
        /// Repeats what it is given; for tests.
        Echo = "echo",
        /// Runs Terraform.
        Terraform = "terraform",
    }

    /// How the source of a job is stored.
    StorageMethod, "storage method" {
        /// As a row of `files`.
        File = "file",
    }

    /// Who wrote a log line of a job.
    LogSource, "log source" {
        /// The daemon that carries the job out.
        ProvisionerDaemon = "provisioner_daemon",
        /// The provisioner that the daemon runs.
        Provisioner = "provisioner",
    }

    /// How much a log line matters.
    LogLevel, "log level" {
        /// Only for finding faults in the product.
        Trace = "trace",
        /// Only for finding faults.
        Debug = "debug",
        /// What happens.
        Info = "info",
        /// What may be wrong.
        Warn = "warn",
        /// What went wrong.
        Error = "error",
    }

    /// A step of a job whose time is taken.
    TimingStage, "timing stage" {
        /// Fetching what the template needs.
        Init = "init",
        /// Finding out what is to change.
        Plan = "plan",
        /// Finding out what depends on what.
        Graph = "graph",
        /// Changing it.
        Apply = "apply",
    }

    /// The status that a caller may expect a job to have when asking for it to be canceled (domain: canceling).
    ExpectedStatus, "expected status" {
        /// It waits in the queue.
        Pending = "pending",
        /// A daemon works on it.
        Running = "running",
    }

    /// What a build does to its workspace.
    Transition, "workspace transition" {
        /// Starts it, or makes it.
        Start = "start",
        /// Stops it.
        Stop = "stop",
        /// Destroys it.
        Delete = "delete",
    }

    /// Whether a user may sign in.
    UserStatus, "user status" {
        /// May sign in.
        Active = "active",
        /// May not sign in.
        Suspended = "suspended",
        /// Has not signed in for long, or never did.
        Dormant = "dormant",
    }

    /// What a provisioner daemon does: computed, never stored (domain: daemons).
    DaemonStatus, "daemon status" {
        /// Has not been seen for longer than the stale interval, or never.
        Offline = "offline",
        /// Waits for a job.
        Idle = "idle",
        /// Works on a job.
        Busy = "busy",
    }

    /// Why a build was asked for.
    BuildReason, "build reason" {
        /// A user asked for it.
        Initiator = "initiator",
        /// The schedule started the workspace.
        Autostart = "autostart",
        /// The deadline stopped the workspace.
        Autostop = "autostop",
        /// The workspace was not used for long.
        Dormancy = "dormancy",
        /// A failed build was stopped.
        FailedStop = "failedstop",
        /// A dormant workspace was deleted.
        Autodelete = "autodelete",
        /// A user asked for it in the dashboard.
        Dashboard = "dashboard",
        /// A user asked for it at the command line.
        Cli = "cli",
        /// A user connected with SSH.
        SshConnection = "ssh_connection",
        /// A user connected with VS Code.
        VscodeConnection = "vscode_connection",
        /// A user connected with `JetBrains`.
        JetbrainsConnection = "jetbrains_connection",
        /// A task was idle.
        TaskAutoPause = "task_auto_pause",
        /// A user paused a task.
        TaskManualPause = "task_manual_pause",
        /// A task goes on.
        TaskResume = "task_resume",
    }

    /// Where the start-up or the shutdown of an agent stands.
    AgentLifecycle, "agent lifecycle state" {
        /// The agent has not begun.
        Created = "created",
        /// The start-up scripts run.
        Starting = "starting",
        /// They take too long.
        StartTimeout = "start_timeout",
        /// One of them failed.
        StartError = "start_error",
        /// They are done.
        Ready = "ready",
        /// The shutdown scripts run.
        ShuttingDown = "shutting_down",
        /// They take too long.
        ShutdownTimeout = "shutdown_timeout",
        /// One of them failed.
        ShutdownError = "shutdown_error",
        /// The agent is off.
        Off = "off",
    }

    /// Whether a preset gets prebuilt workspaces.
    PrebuildStatus, "prebuild status" {
        /// It does.
        Healthy = "healthy",
        /// Too many of them failed; none is created until the preset or its template changes.
        HardLimited = "hard_limited",
        /// Its parameters are not valid.
        ValidationFailed = "validation_failed",
    }

    /// Whether an agent is connected (domain: agents); computed, never stored.
    AgentStatus, "agent status" {
        /// It has not called yet.
        Connecting = "connecting",
        /// It is there.
        Connected = "connected",
        /// It was there.
        Disconnected = "disconnected",
        /// It has not called in the time that its template gives it.
        Timeout = "timeout",
    }
}

impl JobStatus {
    /// Whether a job with this status has ended (domain: job status).
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}
