//! Which rows a listing returns, and how its pages hang together.

use time::OffsetDateTime;

use super::{JobErrorCode, JobId, JobStatus, JobType, Tags, TemplateId, Transition, UserId, WorkspaceId};

/// Which jobs of an organization (domain: listings). The filters combine by AND; the default lets every job pass. Times
/// count in microseconds, as the database stores them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFilter {
    /// Only jobs with one of these statuses; empty for any.
    pub status: Vec<JobStatus>,
    /// Only these jobs; empty for any.
    pub ids: Vec<JobId>,
    /// Only jobs whose tags include all of these. The exact untagged set selects exactly untagged jobs (domain: tags).
    pub tags: Option<Tags>,
    /// Only jobs with each of these tags, whatever others they have: a pair more never lets more jobs pass.
    pub has_tags: Vec<(String, String)>,
    /// Only untagged jobs, that is with exactly [`Tags::untagged`].
    pub untagged: bool,
    /// Only jobs that this user asked for; the nil id is no filter (domain: listings).
    pub initiator: Option<UserId>,
    /// Only jobs whose build does this to its workspace.
    pub transition: Option<Transition>,
    /// Only jobs that work with a version of this template of the organization.
    pub template: Option<TemplateId>,
    /// Only jobs that build this workspace of the organization.
    pub workspace: Option<WorkspaceId>,
    /// Only jobs of one of these types; empty for any.
    pub types: Vec<JobType>,
    /// Only jobs that ended with one of these kinds of failure; empty for any job, with or without one.
    pub error_codes: Vec<JobErrorCode>,
    /// Only jobs created later than this.
    pub created_after: Option<OffsetDateTime>,
    /// Only jobs created earlier than this.
    pub created_before: Option<OffsetDateTime>,
    /// Only jobs that none of this applies to.
    pub exclude: Exclude,
}

/// Which jobs do not pass a [`JobFilter`], whatever else it says: those that one of these applies to. A job that has no
/// template, workspace, transition or error code is not excluded by one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exclude {
    /// Jobs with one of these statuses.
    pub status: Vec<JobStatus>,
    /// These jobs.
    pub ids: Vec<JobId>,
    /// Jobs with one of these tags.
    pub tags: Vec<(String, String)>,
    /// Untagged jobs.
    pub untagged: bool,
    /// Jobs that one of these users asked for.
    pub initiators: Vec<UserId>,
    /// Jobs whose build does one of these to its workspace.
    pub transitions: Vec<Transition>,
    /// Jobs that work with a version of one of these templates.
    pub templates: Vec<TemplateId>,
    /// Jobs that build one of these workspaces.
    pub workspaces: Vec<WorkspaceId>,
    /// Jobs of one of these types.
    pub types: Vec<JobType>,
    /// Jobs that ended with one of these kinds of failure.
    pub error_codes: Vec<JobErrorCode>,
}

/// Which part of a listing: how many rows, and after which. Each listing has a cursor of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest<C = Cursor> {
    /// At most so many rows; `None` for all. Zero rows are what they say: an empty page, and no next one.
    pub limit: Option<u32>,
    /// Only rows that come after this place; `None` from the beginning.
    pub after: Option<C>,
}

impl<C> Default for PageRequest<C> {
    fn default() -> Self {
        Self { limit: None, after: None }
    }
}

impl<C> PageRequest<C> {
    /// The first `limit` rows.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { limit: Some(limit), after: None }
    }

    /// The next `limit` rows after a place.
    #[must_use]
    pub fn after(cursor: C, limit: u32) -> Self {
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
pub struct Page<T, C = Cursor> {
    /// The rows, in the order of the listing.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` when this is the last one.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// The page out of its rows and the one behind them, by which it is known that there are more.
    pub(crate) fn of(mut rows: Vec<T>, limit: Option<u32>, cursor: impl FnOnce(&T) -> C) -> Self {
        let next = limit.filter(|limit| rows.len() > *limit as usize).and_then(|limit| {
            rows.truncate(limit as usize);
            rows.last().map(cursor)
        });
        Self { rows, next }
    }
}
