//! What a job leaves behind: log lines and timings.

use serde::Serialize;
use time::OffsetDateTime;

use super::{Label, LogLevel, LogSource, TimingStage};

/// A log line that is about to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJobLog {
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// Who wrote it.
    pub source: LogSource,
    /// How much it matters.
    pub level: LogLevel,
    /// The step that it belongs to; cut off after 128 characters.
    pub stage: String,
    /// The line; cut off after 1,024 characters. All of its bytes count towards the cap.
    pub output: String,
}

/// A stored log line; its JSON is that of Coder's API (domain: job logs).
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobLog {
    /// Ascends within a job.
    pub id: i64,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who wrote it.
    #[serde(rename = "log_source")]
    #[cfg_attr(feature = "http", schema(value_type = LogSource))]
    pub source: Label<LogSource>,
    /// How much it matters.
    #[serde(rename = "log_level")]
    #[cfg_attr(feature = "http", schema(value_type = LogLevel))]
    pub level: Label<LogLevel>,
    /// The step that it belongs to.
    pub stage: String,
    /// The line.
    pub output: String,
}

/// How an attempt to store log lines went (domain: log cap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Append {
    /// All lines are stored.
    Stored {
        /// The id that subscribers should read after; `None` when there were no lines.
        logs_after: Option<i64>,
    },
    /// The cap is reached: this many lines are stored, the last of which says so, and the others are dropped.
    Overflowed {
        /// The id that subscribers should read after.
        logs_after: i64,
        /// How many lines are stored, the last one included.
        lines: i64,
    },
    /// The cap is reached, and not even the line that says so fits: nothing is stored, and the log is marked.
    Full,
    /// The cap was reached before: nothing is stored.
    Dropped,
}

/// How long one step of a job took. Read, the stage is a [`Label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobTiming<Stage = TimingStage> {
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub ended_at: OffsetDateTime,
    /// Which step.
    pub stage: Stage,
    /// Which part of the provisioner says so.
    pub source: String,
    /// What it did.
    pub action: String,
    /// To what.
    pub resource: String,
}
