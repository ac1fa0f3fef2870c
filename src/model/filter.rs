//! Which rows a listing returns, and how its pages hang together.

use time::OffsetDateTime;

use super::{JobId, JobStatus, Tags, TemplateId, Transition, UserId, WorkspaceId};

/// Which jobs of an organization (domain 5.4). The filters combine by AND; the default lets every job pass. Times count
/// in microseconds, as the database stores them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFilter {
    /// Only jobs with one of these statuses; empty for any.
    pub status: Vec<JobStatus>,
    /// Only these jobs; empty for any.
    pub ids: Vec<JobId>,
    /// Only jobs whose tags include all of these. The exact untagged set selects exactly untagged jobs (domain 3).
    pub tags: Option<Tags>,
    /// Only jobs that this user asked for; the nil id is no filter (domain 10.1).
    pub initiator: Option<UserId>,
    /// Only jobs whose build does this to its workspace.
    pub transition: Option<Transition>,
    /// Only jobs that work with a version of this template of the organization.
    pub template: Option<TemplateId>,
    /// Only jobs that build this workspace of the organization.
    pub workspace: Option<WorkspaceId>,
    /// Only jobs created later than this.
    pub created_after: Option<OffsetDateTime>,
    /// Only jobs created earlier than this.
    pub created_before: Option<OffsetDateTime>,
}

/// Which part of a listing: how many rows, and after which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many rows; `None` for all. Zero rows are what they say: an empty page, and no next one.
    pub limit: Option<u32>,
    /// Only rows that come after this place; `None` from the beginning.
    pub after: Option<Cursor>,
}

impl PageRequest {
    /// The first `limit` rows.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { limit: Some(limit), after: None }
    }

    /// The next `limit` rows after a place.
    #[must_use]
    pub const fn after(cursor: Cursor, limit: u32) -> Self {
        Self { limit: Some(limit), after: Some(cursor) }
    }
}

/// A place in a listing of jobs: rows that are inserted meanwhile neither repeat nor hide another row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The creation time of the last job of the page before.
    pub created_at: OffsetDateTime,
    /// Its id, because several jobs may share a time.
    pub id: JobId,
}

/// Some rows of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows, in the order of the listing.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` when this is the last one.
    pub next: Option<Cursor>,
}
