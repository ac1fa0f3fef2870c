//! The columns of a listing of jobs, and their cells.

use anstyle::AnsiColor;
use clap::ValueEnum;
use indicatif::HumanDuration;
use time::OffsetDateTime;

use super::super::{
    output::rfc_3339,
    queue::{Queue, in_words},
    table::{Cell, Heading, Truncation},
};
use crate::model::{JobDetails, JobStatus, Organization, WhyWaiting};

macro_rules! columns {
    (|$row:ident, $details:ident, $job:ident| $($name:ident = $title:literal => $cell:expr,)*) => {
        /// The columns, in the order of Coder's command line, and then others (domain: command line).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub(in crate::cli) enum Column {
            $(#[value(name = $title)] $name,)*
        }

        impl Column {
            pub(super) const fn heading(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }

            fn cell(self, $row: &Row<'_>) -> Cell {
                let ($details, $job) = ($row.details, &$row.details.job);
                match self {
                    $(Self::$name => Cell::from($cell),)*
                }
            }
        }
    };
}

columns! { |row, details, job|
    Id = "id" => job.id.to_string(),
    CreatedAt = "created at" => row.at(Some(job.created_at)),
    StartedAt = "started at" => row.at(job.started_at),
    CompletedAt = "completed at" => row.at(job.completed_at),
    CanceledAt = "canceled at" => row.at(job.canceled_at),
    Error = "error" => text(job.error.as_ref()),
    ErrorCode = "error code" => text(job.error_code.as_ref()),
    Status = "status" => Cell::colored(job.status.to_string(), color(job.status)),
    WorkerId = "worker id" => text(job.worker_id),
    WorkerName = "worker name" => details.worker_name.clone(),
    FileId = "file id" => job.file_id.to_string(),
    Tags = "tags" => job.tags.to_string(),
    QueuePosition = "queue position" => details.queue_position.to_string(),
    QueueSize = "queue size" => details.queue_size.to_string(),
    OrganizationId = "organization id" => job.organization_id.to_string(),
    InitiatorId = "initiator id" => job.initiator_id.to_string(),
    TemplateVersionId = "template version id" => text(job.input.template_version_id),
    WorkspaceBuildId = "workspace build id" => text(job.input.workspace_build_id),
    Type = "type" => job.job_type.to_string(),
    AvailableWorkers = "available workers" => details.available_workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    TemplateVersionName = "template version name" => details.template_version_name.clone(),
    TemplateId = "template id" => text(details.template_id),
    TemplateName = "template name" => details.template_name.clone(),
    TemplateDisplayName = "template display name" => details.template_display_name.clone(),
    TemplateIcon = "template icon" => details.template_icon.clone(),
    WorkspaceId = "workspace id" => text(details.workspace_id),
    WorkspaceName = "workspace name" => details.workspace_name.clone(),
    WorkspaceBuildTransition = "workspace build transition" => text(details.workspace_build_transition.as_ref()),
    LogsOverflowed = "logs overflowed" => job.logs_overflowed.to_string(),
    Organization = "organization" => row.organization.name.clone(),
    Queue = "queue" => row.queue(),
    Provisioner = "provisioner" => job.provisioner.to_string(),
    ExpectedWait = "expected wait" => row.queue.expected_wait(job.id).as_ref().map(in_words).unwrap_or_default(),
}

impl Column {
    /// The default columns of the wide format.
    pub(super) const WIDE: [Self; 16] = [
        Self::CreatedAt,
        Self::Id,
        Self::Type,
        Self::Provisioner,
        Self::TemplateDisplayName,
        Self::WorkspaceName,
        Self::WorkspaceBuildTransition,
        Self::Status,
        Self::Queue,
        Self::ExpectedWait,
        Self::WorkerName,
        Self::StartedAt,
        Self::CompletedAt,
        Self::Tags,
        Self::ErrorCode,
        Self::Error,
    ];

    /// The default columns.
    pub(in crate::cli) const DEFAULT: [Self; 7] =
        [Self::CreatedAt, Self::Id, Self::Type, Self::TemplateDisplayName, Self::Status, Self::Queue, Self::Tags];

    pub(super) fn titled(self) -> Heading {
        Heading { text: self.heading().to_owned(), truncation: self.truncation() }
    }

    /// An id is of use only when it is whole, and others say much more then.
    const fn truncation(self) -> Truncation {
        match self {
            Self::Id => Truncation::Last,
            Self::CreatedAt | Self::Status | Self::Queue | Self::ErrorCode => Truncation::Later,
            _ => Truncation::First,
        }
    }
}

const fn color(status: JobStatus) -> AnsiColor {
    match status {
        JobStatus::Pending => AnsiColor::Yellow,
        JobStatus::Running => AnsiColor::Blue,
        JobStatus::Succeeded => AnsiColor::Green,
        JobStatus::Failed => AnsiColor::Red,
        JobStatus::Canceling | JobStatus::Canceled | JobStatus::Unknown => AnsiColor::BrightBlack,
    }
}

/// A job and what its cells need to know besides.
pub(super) struct Row<'a> {
    pub details: &'a JobDetails,
    pub organization: &'a Organization,
    pub queue: &'a Queue,
    /// Whether the cell of the queue says why a job is stuck.
    pub is_explained: bool,
    /// The moment from which a person looks back; `None` for exact times.
    pub now: Option<OffsetDateTime>,
}

impl Row<'_> {
    /// The position, and why the job is stuck, if it is.
    fn queue(&self) -> Cell {
        let position = self.queue.position(self.details);
        let Some(why) = self.queue.why(self.details).filter(WhyWaiting::is_stuck) else { return position.into() };
        let why = if self.is_explained { format!(": {why}") } else { String::new() };
        Cell::colored(position + &why, AnsiColor::Red)
    }

    fn at(&self, time: Option<OffsetDateTime>) -> String {
        match (time, self.now) {
            (Some(time), Some(now)) => ago(now, time),
            (time, _) => text(time.map(rfc_3339)),
        }
    }

    pub fn cells(&self, columns: &[Column]) -> Vec<Cell> {
        columns.iter().map(|column| column.cell(self)).collect()
    }
}

/// How long ago, as people say it.
fn ago(now: OffsetDateTime, time: OffsetDateTime) -> String {
    let length = HumanDuration((now - time).unsigned_abs());
    if time > now { format!("in {length}") } else { format!("{length} ago") }
}

pub(super) fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn a_person_reads_how_long_ago() {
        let now = datetime!(2026-05-07 12:00 UTC);
        for (time, said) in [
            (now - Duration::seconds(5), "5 seconds ago"),
            (now - Duration::hours(2), "2 hours ago"),
            (now - Duration::days(3), "3 days ago"),
            (now + Duration::minutes(10), "in 10 minutes"),
            (now, "0 seconds ago"),
        ] {
            assert_eq!(ago(now, time), said);
        }
    }
}
