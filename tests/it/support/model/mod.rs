//! A slow model of the listings and of the quota, written from the rules of `docs/domain.md`.
//!
//! It works on plain rows, read with `SELECT`s that compute nothing, and shares neither code nor SQL with the library.
//! Ties are broken by id: ascending in queues and among workers, descending in the listing.

mod jobs;
mod listing;
mod queue;
mod quota;
mod tags;

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::{Uuid, uuid};

pub use listing::ListedJob;
pub use queue::QueuedJob;
pub use tags::{jsonb_equal, tagset_contains};

macro_rules! tables {
    ($($(#[$doc:meta])* $row:ident, $table:ident ($select:literal) { $($column:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, sqlx::FromRow)]
        pub struct $row {
            $(pub $column: $type,)*
        }
        )*

        /// Every row that the listings and the quota depend on.
        #[derive(Debug, Default)]
        pub struct Model {
            $(pub $table: Vec<$row>,)*
            pub reached: Reached,
        }

        impl Model {
            pub async fn read(conn: &mut PgConnection) -> Self {
                Self {
                    $($table: sqlx::query_as($select).fetch_all(&mut *conn).await.unwrap(),)*
                    reached: Reached::default(),
                }
            }
        }
    };
}

macro_rules! branches {
    ($($branch:ident = $sentence:literal,)*) => {
        /// A rule of the domain that a comparison only tests if some row makes it matter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Branch { $($branch,)* }

        const BRANCHES: &[(Branch, &str)] = &[$((Branch::$branch, $sentence),)*];
    };
}

/// The user who owns prebuilt workspaces (domain: users).
pub const PREBUILDS: Uuid = uuid!("c42fdf75-3097-471c-8c33-fb52454d81c0");

tables! {
    /// A job (domain: jobs). The generated `job_status` is left out: it is modelled, not read.
    JobRow, provisioner_jobs (
        "SELECT id, created_at, updated_at, started_at, canceled_at, completed_at, error, organization_id, initiator_id,
            provisioner::text, storage_method::text, type::text AS job_type, input, worker_id, file_id, tags, error_code,
            trace_metadata, logs_length, logs_overflowed FROM provisioner_jobs"
    ) {
        id: Uuid,
        created_at: OffsetDateTime,
        updated_at: OffsetDateTime,
        started_at: Option<OffsetDateTime>,
        canceled_at: Option<OffsetDateTime>,
        completed_at: Option<OffsetDateTime>,
        error: Option<String>,
        organization_id: Uuid,
        initiator_id: Uuid,
        provisioner: String,
        storage_method: String,
        job_type: String,
        input: Value,
        worker_id: Option<Uuid>,
        file_id: Uuid,
        tags: Value,
        error_code: Option<String>,
        trace_metadata: Option<Value>,
        logs_length: i32,
        logs_overflowed: bool,
    }

    /// A daemon (domain: daemons).
    DaemonRow, provisioner_daemons (
        "SELECT id, created_at, name, provisioners::text[], tags, last_seen_at, organization_id FROM provisioner_daemons"
    ) {
        id: Uuid,
        created_at: OffsetDateTime,
        name: String,
        provisioners: Vec<String>,
        tags: Value,
        last_seen_at: Option<OffsetDateTime>,
        organization_id: Uuid,
    }

    /// An organization (domain: organizations).
    OrganizationRow, organizations ("SELECT id FROM organizations") {
        id: Uuid,
    }

    /// A membership (domain: organizations).
    OrganizationMemberRow, organization_members ("SELECT user_id, organization_id FROM organization_members") {
        user_id: Uuid,
        organization_id: Uuid,
    }

    /// A user (domain: users).
    UserRow, users ("SELECT id, deleted FROM users") {
        id: Uuid,
        deleted: bool,
    }

    /// A group and its members (domain: groups).
    GroupRow, groups ("SELECT id, organization_id, quota_allowance FROM groups") {
        id: Uuid,
        organization_id: Uuid,
        quota_allowance: i32,
    }

    /// A group and its members (domain: groups).
    GroupMemberRow, group_members ("SELECT user_id, group_id FROM group_members") {
        user_id: Uuid,
        group_id: Uuid,
    }

    /// A template (domain: templates).
    TemplateRow, templates ("SELECT id, organization_id, deleted, name, display_name, icon FROM templates") {
        id: Uuid,
        organization_id: Uuid,
        deleted: bool,
        name: String,
        display_name: String,
        icon: String,
    }

    /// A version of a template (domain: templates).
    VersionRow, template_versions ("SELECT id, template_id, organization_id, name FROM template_versions") {
        id: Uuid,
        template_id: Option<Uuid>,
        organization_id: Uuid,
        name: String,
    }

    /// A workspace (domain: workspaces).
    WorkspaceRow, workspaces ("SELECT id, owner_id, organization_id, deleted, name FROM workspaces") {
        id: Uuid,
        owner_id: Uuid,
        organization_id: Uuid,
        deleted: bool,
        name: String,
    }

    /// A build (domain: builds).
    BuildRow, workspace_builds (
        "SELECT id, workspace_id, template_version_id, build_number, transition::text, daily_cost, job_id FROM workspace_builds"
    ) {
        id: Uuid,
        workspace_id: Uuid,
        template_version_id: Uuid,
        build_number: i32,
        transition: String,
        daily_cost: i32,
        job_id: Uuid,
    }
}

branches! {
    UntaggedMatch = "an untagged job met an untagged daemon",
    UntaggedRefused = "an untagged job was refused by a daemon whose tags contain its own",
    TaggedMatch = "a tagged job met a daemon with more tags",
    TaggedMissing = "a tagged job missed a tag on a daemon",
    EmptyTagsMatch = "a job without any tags met a tagged daemon",
    DefaultTagsMatch = "a job with the column default met an untagged daemon",
    OddTagsMatch = "tags that are not strings matched",
    NotAnObjectTags = "tags that are not an object were compared",
    EmptyError = "a pending job had an empty error",
    FailedNotCompleted = "a failed job was not completed",
    CancelingNeverStarted = "a job that never started was canceling",
    Ranked = "a job had a position in the queue of the listing",
    RankedBehindPerson = "an older prebuilds job ranked behind a person's",
    RankedTie = "two queued jobs shared a creation time",
    QueueSizeOfUnqueued = "a job that does not wait showed the queue size",
    Workers = "a job had available workers",
    WorkersStale = "an available worker was not fresh",
    WorkersTie = "two available workers shared a creation time",
    WorkersOfCompleted = "a completed job that never started had available workers",
    WorkerOtherOrganization = "a daemon would fit but is another organization's",
    WorkerOtherProvisioner = "a daemon would fit but lacks the provisioner",
    NoWorker = "a queued job had no available worker",
    WorkerNamed = "a job named its worker",
    WorkerDeleted = "the worker's row was gone",
    BuildNoKey = "an input object had no build key",
    BuildUnknown = "a build id named nothing",
    BuildNotUuid = "a build key held no UUID",
    BuildOddSpelling = "a build id was spelled in another way",
    InputNotObject = "an input was not an object",
    InputArrayWithKey = "an input was an array that holds the key's name",
    BothKeys = "an input named a version and a build",
    VersionKeyNull = "a null version key kept the build's version out",
    VersionOfBuild = "the version came from the build",
    WorkspaceNamed = "a job named its workspace",
    WorkspaceDeleted = "a job named a deleted workspace",
    WorkspaceOtherOrganization = "a workspace was dropped by the organization",
    VersionOtherOrganization = "a version was dropped by the organization",
    VersionWithoutTemplate = "a version had no template",
    TemplateNamed = "a job named its template",
    TemplateDeleted = "a job named a deleted template",
    TemplateOtherOrganization = "a template was dropped by the organization",
    ListTie = "two rows of a listing shared a creation time",
    FilteredQueued = "a filter left a job that is not at the head of the queue",
    StatusDropped = "the status filter dropped a row that all others keep",
    IdsDropped = "the ids filter dropped a row that all others keep",
    TagsDropped = "the tags filter dropped a row that all others keep",
    HasTagsDropped = "one of several tags dropped a row that all others keep",
    UntaggedDropped = "the untagged filter dropped a row that all others keep",
    InitiatorDropped = "the initiator filter dropped a row that all others keep",
    TransitionDropped = "the transition filter dropped a row that all others keep",
    TemplateDropped = "the template filter dropped a row that all others keep",
    WorkspaceDropped = "the workspace filter dropped a row that all others keep",
    AfterDropped = "the created-after filter dropped a row at its very time",
    BeforeDropped = "the created-before filter dropped a row at its very time",
    TypesDropped = "the types filter alone dropped a row",
    ErrorCodesDropped = "the error codes filter alone dropped a row",
    StatusExcluded = "only its status excluded a row",
    IdsExcluded = "only its id excluded a row",
    TagsExcluded = "only a tag excluded a row",
    UntaggedExcluded = "only that it is untagged excluded a row",
    InitiatorsExcluded = "only its initiator excluded a row",
    TransitionsExcluded = "only its transition excluded a row",
    TemplatesExcluded = "only its template excluded a row",
    WorkspacesExcluded = "only its workspace excluded a row",
    TypesExcluded = "only its type excluded a row",
    ErrorCodesExcluded = "only its error code excluded a row",
    NilInitiator = "the nil initiator let rows of several people pass",
    PageFull = "a page was full and there was more",
    PageExact = "a page was full and there was no more",
    PageLimitZero = "a page of no rows was asked for",
    CursorTie = "a cursor stood between two rows of one time",
    BoundaryOnline = "a daemon was seen exactly at the boundary",
    Offline = "a daemon was seen too long ago",
    NeverSeen = "a daemon was never seen",
    SharedTags = "two online daemons had equal tags",
    IrrelevantTags = "an online tag set could serve no requested job",
    SeveralTagSets = "several tag sets could serve one queued job",
    PositionAndSizeDiffer = "position and size came from different tag sets",
    RankedForeign = "a job was ranked through a daemon of another organization only",
    RankedOtherProvisioner = "a job was ranked through a daemon without its provisioner only",
    NoTagSet = "a pending job had no online tag set",
    RankedNotListed = "a pending job with an empty error was ranked by its tags",
    ByIdsBehindPerson = "an older prebuilds job ranked behind a person's in a tag set",
    LatestHidesCost = "the newest build hid the cost of the one before it",
    DeletedWorkspaceCost = "a deleted workspace would have cost something",
    OtherOrganizationCost = "a workspace in another organization would have cost something",
    ExplicitMember = "an explicit membership counted",
    EveryoneMember = "the Everyone group counted",
    BothMember = "an explicit and an implicit membership of one group counted once",
    DeletedMember = "a deleted user had a membership",
    ForeignMember = "a member of a group was no member of its organization",
    NoEveryoneRow = "an organization had no row for its Everyone group",
}

/// How often each branch was reached.
#[derive(Debug)]
pub struct Reached(Vec<AtomicU64>);

impl Default for Reached {
    fn default() -> Self {
        Self(BRANCHES.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Reached {
    fn note(&self, branch: Branch, when: bool) {
        self.0[branch as usize].fetch_add(u64::from(when), Ordering::Relaxed);
    }

    pub fn add(&self, other: &Self) {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            mine.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// How often this one was, and what it says.
    pub fn count(&self, branch: Branch) -> (u64, &'static str) {
        (self.0[branch as usize].load(Ordering::Relaxed), BRANCHES[branch as usize].1)
    }

    pub fn counts(&self) -> impl Iterator<Item = (u64, &'static str)> {
        self.0.iter().zip(BRANCHES).map(|(count, (_, sentence))| (count.load(Ordering::Relaxed), *sentence))
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}
