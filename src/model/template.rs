//! Templates, as far as workspaces are made from them.

use std::time::Duration;

use super::{JobStatus, Tags, Template, TemplateVersionId};

/// A template, and what it says of the workspaces that are made from it (domain: templates).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRules {
    /// The template.
    pub template: Template,
    /// Whether it is gone.
    pub deleted: bool,
    /// Why no new workspaces should be created from it; `None` if it is not deprecated.
    pub deprecated: Option<String>,
    /// The version that new workspaces get.
    pub active_version_id: TemplateVersionId,
    /// After how long a workspace stops by itself that says nothing else; `None` for never.
    pub default_ttl: Option<Duration>,
    /// Whether a workspace may say something else.
    pub allow_user_autostop: bool,
    /// Whether a workspace that starts gets the active version.
    pub require_active_version: bool,
}

/// A version of a template (domain: templates).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateVersion {
    /// The primary key.
    pub id: TemplateVersionId,
    /// Unique among the versions of the template.
    pub name: String,
    /// Whether it is put away.
    pub archived: bool,
    /// How its import stands. Only what was imported can be built.
    pub job_status: JobStatus,
    /// Which daemons may import it, and build it.
    pub tags: Tags,
    /// Whether its workspaces have agents that are started by hand; `None` while that is not known.
    pub has_external_agent: Option<bool>,
}
