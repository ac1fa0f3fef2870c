//! Settings of the site.

use serde::{Deserialize, Serialize};

/// The settings of prebuilt workspaces (domain: site settings).
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrebuildsSettings {
    /// Whether the reconciler neither creates nor deletes prebuilt workspaces. Queued jobs go on.
    #[serde(default)]
    pub reconciliation_paused: bool,
}

/// What became of settings that were to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum SetOutcome {
    /// They are different from before.
    Changed,
    /// They were so already: nothing was written.
    Unchanged,
}
