//! Which tools there are.

use serde_json::{Map, Value};

use super::{
    arguments::{CreateWorkspace, StartWorkspace},
    reply::{CreateWorkspaceReply, StartWorkspaceReply},
    schema::{of_arguments, of_replies},
};

/// What an agent may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tool {
    /// Creates the workspace of the chat, unless it has one that can be used.
    CreateWorkspace,
    /// Starts the workspace of the chat, unless it runs.
    StartWorkspace,
}

impl Tool {
    /// Every tool.
    pub const ALL: &[Self] = &[Self::CreateWorkspace, Self::StartWorkspace];

    /// The name by which an agent calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateWorkspace => "create_workspace",
            Self::StartWorkspace => "start_workspace",
        }
    }

    /// What it is for, in words for the agent.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::CreateWorkspace => {
                "Create a workspace for this chat from a template, wait for its build, and wait until its agent can be \
                 used. Safe to call again: a chat that has a workspace which runs or is being built keeps it. Use \
                 start_workspace for a workspace that is stopped."
            }
            Self::StartWorkspace => {
                "Start the workspace of this chat, wait for its build, and wait until its agent can be used. Safe to \
                 call again: a workspace that runs is left alone. Use create_workspace for a chat without a workspace."
            }
        }
    }

    /// The JSON schema of its arguments.
    #[must_use]
    pub fn arguments_schema(self) -> Map<String, Value> {
        match self {
            Self::CreateWorkspace => of_arguments::<CreateWorkspace>(),
            Self::StartWorkspace => of_arguments::<StartWorkspace>(),
        }
    }

    /// The JSON schema of its structured replies.
    #[must_use]
    pub fn reply_schema(self) -> Map<String, Value> {
        match self {
            Self::CreateWorkspace => of_replies::<CreateWorkspaceReply>(),
            Self::StartWorkspace => of_replies::<StartWorkspaceReply>(),
        }
    }
}
