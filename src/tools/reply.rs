//! What the tools answer (domain: chat tools).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    error::TextError,
    operations::{ApiError, Validation},
};
use crate::{
    bounds::beginning_of,
    model::{AgentLifecycle, Quota, TemplateId, WorkspaceBuildId},
};

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Reply {
    /// A JSON object: success, or a build or a request that failed, which has the key `error`. Not flagged as an error,
    /// because what is flagged keeps nothing but its text on its way to the agent.
    Structured(Map<String, Value>),
    /// A text, flagged as an error: what the call needs is not there, or something is broken.
    Error(String),
}

impl Reply {
    pub(super) fn from_typed(reply: Result<impl Serialize, TextError>) -> Self {
        match reply.map(serde_json::to_value) {
            Ok(Ok(Value::Object(mut keys))) => {
                keys.values_mut().for_each(bound);
                Self::Structured(keys)
            }
            // Replies are objects with keys that are texts.
            Ok(_) => Self::Structured(Map::new()),
            Err(error) => Self::Error(beginning_of(&error.to_string(), "")),
        }
    }

    /// Whether it is flagged as an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// As a text: the JSON object, or the error.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Structured(keys) => serde_json::to_string(keys).unwrap_or_else(|_| "{}".to_owned()),
            Self::Error(text) => text.clone(),
        }
    }
}

/// The model of an agent reads all that it is told.
fn bound(value: &mut Value) {
    match value {
        Value::String(text) => *text = beginning_of(text, ""),
        Value::Array(values) => values.iter_mut().for_each(bound),
        Value::Object(keys) => keys.values_mut().for_each(bound),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The structured replies of `create_workspace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("type" = "object"))]
pub enum CreateWorkspaceReply {
    /// There is a new workspace.
    Created(CreatedReply),
    /// The chat keeps the one that it has.
    Exists(ExistsReply),
    /// A build was over quota.
    OverQuota(QuotaFailure),
    /// A build failed.
    BuildFailed(BuildFailure),
    /// The workspace may not be created like this.
    Refused(ApiFailure),
}

/// The structured replies of `start_workspace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("type" = "object"))]
pub enum StartWorkspaceReply {
    /// The workspace runs.
    Started(StartedReply),
    /// The build was over quota.
    OverQuota(QuotaFailure),
    /// The build failed.
    BuildFailed(BuildFailure),
    /// The workspace may not be started like this.
    Refused(ApiFailure),
}

/// A workspace that was created and built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct CreatedReply {
    /// Always true.
    #[schemars(extend("const" = true))]
    pub created: bool,
    /// The name, with its owner: `owner/name`.
    pub workspace_name: String,
    /// The build, if one was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub build_id: Option<WorkspaceBuildId>,
    /// Its agent.
    #[serde(flatten)]
    pub agent: AgentReadiness,
}

/// A workspace that the chat has already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ExistsReply {
    /// Always false.
    #[schemars(extend("const" = false))]
    pub created: bool,
    /// The name, without its owner.
    pub workspace_name: String,
    /// Whether it can be used or is stopped.
    pub status: ExistsStatus,
    /// The same in words.
    pub message: String,
    /// The build that the call waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub build_id: Option<WorkspaceBuildId>,
    /// Its agent.
    #[serde(flatten)]
    pub agent: AgentReadiness,
}

/// Whether an existing workspace can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExistsStatus {
    /// It runs.
    AlreadyExists,
    /// It is stopped.
    Stopped,
}

/// A workspace that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct StartedReply {
    /// Always true.
    #[schemars(extend("const" = true))]
    pub started: bool,
    /// The name, without its owner.
    pub workspace_name: String,
    /// The build that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub build_id: Option<WorkspaceBuildId>,
    /// True when no build was needed; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = true))]
    pub no_build: Option<bool>,
    /// Its agent.
    #[serde(flatten)]
    pub agent: AgentReadiness,
    /// True when it got another version of its template; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = true))]
    pub updated_to_active_version: Option<bool>,
    /// Why it got another version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_reason: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What is not well with the agent of a workspace; nothing when all is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AgentReadiness {
    /// Why there is no agent to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_status: Option<AgentProblem>,
    /// More about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_error: Option<String>,
    /// How the start-up scripts failed to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_scripts: Option<StartupScripts>,
    /// Where the agent stands, when its start-up scripts failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "lifecycle")]
    pub lifecycle_state: Option<AgentLifecycle>,
}

/// Why there is no agent to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentProblem {
    /// The workspace has none.
    NoAgent,
    /// It has some, and none can be chosen.
    SelectionError,
    /// It could not be reached in time.
    NotReady,
}

/// How start-up scripts failed to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum StartupScripts {
    /// They failed, or the agent shuts down.
    #[serde(rename = "startup_scripts_failed")]
    Failed,
    /// They did not end in time.
    #[serde(rename = "startup_scripts_timeout")]
    Timeout,
    /// The call was canceled before they ended.
    #[serde(rename = "startup_scripts_unknown")]
    Unknown,
}

/// A build that was over quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct QuotaFailure {
    /// Always `INSUFFICIENT_QUOTA`.
    pub error_code: ErrorCode,
    /// What failed.
    pub error: String,
    /// A heading for people.
    pub title: String,
    /// What to do about it.
    pub message: String,
    /// The build.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub build_id: Option<WorkspaceBuildId>,
    /// What the owner consumes and may consume now, where that is known: without the build that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quota")]
    pub quota: Option<Quota>,
}

/// The kinds of failure that a reply tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum ErrorCode {
    /// The owner's quota is used up.
    #[serde(rename = "INSUFFICIENT_QUOTA")]
    InsufficientQuota,
}

/// A build that failed, or did not end in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct BuildFailure {
    /// What failed.
    pub error: String,
    /// The build.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub build_id: Option<WorkspaceBuildId>,
}

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ApiFailure {
    /// Why.
    pub error: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is wrong with which argument.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validations: Vec<Validation>,
    /// The template of the workspace, for looking up what the arguments must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub template_id: Option<TemplateId>,
}

impl From<ApiError> for ApiFailure {
    fn from(ApiError { message, detail, validations, .. }: ApiError) -> Self {
        let error = if message.is_empty() { "request failed".to_owned() } else { message };
        let detail = detail.filter(|detail| !detail.is_empty());
        Self { error, detail, validations, template_id: None }
    }
}

/// What a build that failed comes to.
fn lifecycle(_: &mut SchemaGenerator) -> Schema {
    let states: Vec<_> = AgentLifecycle::ALL.iter().map(|state| state.as_str()).collect();
    json_schema!({ "type": "string", "enum": states })
}

fn quota(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "credits_consumed": { "type": "integer", "format": "int64" },
            "budget": { "type": "integer", "format": "int64" },
        },
        "required": ["credits_consumed", "budget"],
        "additionalProperties": false,
    })
}
