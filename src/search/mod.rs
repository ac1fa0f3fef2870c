//! Which jobs, as a line of text: `initiator:prebuilds -status:failed created:>1h`. One grammar for the command line
//! and for services; docs/search.md has it.
//!
//! ```no_run
//! use coderdb::{
//!     authz::{Actor, ReadJobs},
//!     model::PageRequest,
//!     search::Query,
//!     store,
//! };
//!
//! # async fn doc(conn: &mut coderdb::sqlx::PgConnection, actor: &Actor) -> Result<(), Box<dyn std::error::Error>> {
//! let query: Query = "initiator:prebuilds status:pending created:>1h".parse()?;
//! let (organization, filter) = query.resolve(conn, actor, None, time::OffsetDateTime::now_utc()).await?;
//! let permit = ReadJobs::check(actor, organization.id)?;
//! let stuck = store::jobs::list(conn, &permit, &filter, PageRequest::first(50)).await?;
//! println!("{} jobs wait for {query}", stuck.rows.len());
//! # Ok(()) }
//! ```

mod created;
mod error;
mod parse;
mod print;
mod resolve;

pub use created::*;
pub use error::*;

use crate::model::{
    JobErrorCode, JobId, JobStatus, JobType, NameOrId, OrganizationId, TemplateId, Transition, UserRef, WorkspaceId,
};

/// What jobs must have and must not have: all terms hold. The empty one lets every job pass.
///
/// It is read from a text (`FromStr`), and written as one (`Display`) that reads as the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    terms: Vec<Term>,
}

/// One condition, or that it must not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Whether only jobs pass for which the condition does not hold.
    pub negated: bool,
    /// What holds, or does not.
    pub condition: Condition,
}

/// What may be asked of a job. Lists are alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `status:pending,running`.
    Status(Vec<JobStatus>),
    /// `initiator:prebuilds`: who asked for it.
    Initiator(UserRef),
    /// `organization:coder`: whose it is; the default organization if not asked.
    Organization(NameOrId<OrganizationId>),
    /// `template:docker`: with a version of which template it works.
    Template(NameOrId<TemplateId>),
    /// `workspace:alice/dev`: which workspace it builds.
    Workspace(NameOrId<WorkspaceId>),
    /// `transition:stop`: what its build does to the workspace.
    Transition(Transition),
    /// `type:workspace_build`.
    Type(Vec<JobType>),
    /// `tag:env=aws`: one of its tags.
    Tag(String, String),
    /// `tag:none`: that it is untagged, and only untagged daemons take it.
    Untagged,
    /// `id:…`.
    Id(Vec<JobId>),
    /// `created:>1h`: when it entered the queue.
    Created(Created),
    /// `error_code:INSUFFICIENT_QUOTA`: what kind of failure ended it.
    ErrorCode(Vec<JobErrorCode>),
}

impl Condition {
    /// Every key, in the order of the conditions.
    pub const KEYS: &[&str] = &[
        "status",
        "initiator",
        "organization",
        "template",
        "workspace",
        "transition",
        "type",
        "tag",
        "id",
        "created",
        "error_code",
    ];

    /// The key before the colon.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Initiator(_) => "initiator",
            Self::Organization(_) => "organization",
            Self::Template(_) => "template",
            Self::Workspace(_) => "workspace",
            Self::Transition(_) => "transition",
            Self::Type(_) => "type",
            Self::Tag(..) | Self::Untagged => "tag",
            Self::Id(_) => "id",
            Self::Created(_) => "created",
            Self::ErrorCode(_) => "error_code",
        }
    }
}

impl Query {
    /// The terms, in the order in which they were given.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Asks for this, too.
    ///
    /// # Errors
    /// [`Problem::Repeated`] when it has asked for the same before: two statuses of one job can only be a mistake.
    /// Several tags, several bounds on the time, and several negations make sense.
    pub fn push(&mut self, term: Term) -> Result<(), Problem> {
        let is_same = |there: &Term| match (&there.condition, &term.condition) {
            (Condition::Created(_), _)
            | (Condition::Tag(..), Condition::Untagged)
            | (Condition::Untagged, Condition::Tag(..)) => false,
            (Condition::Tag(a, _), Condition::Tag(b, _)) => a == b,
            (a, b) => a.key() == b.key(),
        };
        if !term.negated && self.terms.iter().filter(|there| !there.negated).any(is_same) {
            let instead = match term.condition {
                Condition::Status(_) | Condition::Type(_) | Condition::Id(_) | Condition::ErrorCode(_) => {
                    "name alternatives behind one key, as in status:pending,running"
                }
                _ => "search once for each",
            };
            return Err(Problem::Repeated { key: term.condition.key(), instead });
        }
        self.terms.push(term);
        Ok(())
    }
}
