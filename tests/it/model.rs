//! A slow model of the listings and of the quota, written from the rules of `docs/domain.md`.
//!
//! It works on plain rows, read with `SELECT`s that compute nothing, and shares neither code nor SQL with the library.
//! Ties are broken by id: ascending in queues and among workers, descending in the listing.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use coderdb::model::{Cursor, JobErrorCode, JobFilter, PageRequest, Transition};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::{Uuid, uuid};

/// The user who owns prebuilt workspaces (domain: users).
pub const PREBUILDS: Uuid = uuid!("c42fdf75-3097-471c-8c33-fb52454d81c0");

// The rows of the tables -----------------------------------------------------------------------------------------------

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

// What a run of the model came across ----------------------------------------------------------------------------------

macro_rules! branches {
    ($($branch:ident = $sentence:literal,)*) => {
        /// A rule of the domain that a comparison only tests if some row makes it matter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Branch { $($branch,)* }

        const BRANCHES: &[(Branch, &str)] = &[$((Branch::$branch, $sentence),)*];
    };
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

// Tags (domain: tags) -------------------------------------------------------------------------------------------------

/// `provisioner_tagset_contains(provisioner_tags, job_tags)` of two values that are not NULL.
pub fn tagset_contains(provisioner_tags: &Value, job_tags: &Value) -> bool {
    let untagged = serde_json::json!({"scope": "organization", "owner": ""});
    if *job_tags == untagged {
        // A daemon with more tags does not take it.
        *provisioner_tags == untagged
    } else {
        jsonb_contains(provisioner_tags, job_tags)
    }
}

/// `outer @> inner`. At the top level only, an array also contains a scalar that is one of its elements.
fn jsonb_contains(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Array(elements), scalar) if !scalar.is_array() && !scalar.is_object() => {
            elements.iter().any(|element| jsonb_equal(element, scalar))
        }
        _ => nested_contains(outer, inner),
    }
}

fn nested_contains(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Object(outer), Value::Object(inner)) => {
            inner.iter().all(|(key, value)| outer.get(key).is_some_and(|mine| nested_contains(mine, value)))
        }
        (Value::Array(outer), Value::Array(inner)) => {
            inner.iter().all(|element| outer.iter().any(|mine| nested_contains(mine, element)))
        }
        (outer, inner) => jsonb_equal(outer, inner),
    }
}

/// jsonb equality: numbers by value, so that 1 equals 1.0.
pub fn jsonb_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| jsonb_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| jsonb_equal(a, b)))
        }
        _ => a == b,
    }
}

// The status and the input of a job (domain: jobs; job status) --------------------------------------------------------

impl JobRow {
    /// The first match wins (domain: job status). A NULL error and an empty one both fall through.
    pub fn status(&self) -> &'static str {
        let error = self.error.as_deref().is_some_and(|error| !error.is_empty());
        if self.completed_at.is_some() {
            if error {
                "failed"
            } else if self.canceled_at.is_some() {
                "canceled"
            } else {
                "succeeded"
            }
        } else if error {
            "failed"
        } else if self.canceled_at.is_some() {
            "canceling"
        } else if self.started_at.is_none() {
            "pending"
        } else {
            "running"
        }
    }

    /// Whether it counts for the position in a listing (domain: positions).
    fn waits_in_listing(&self) -> bool {
        self.started_at.is_none() && self.canceled_at.is_none() && self.completed_at.is_none() && self.error.is_none()
    }

    /// The queue order (domain: claims).
    fn queue_order(&self) -> (bool, OffsetDateTime, Uuid) {
        (self.initiator_id == PREBUILDS, self.created_at, self.id)
    }

    /// The value under a key; none if `input` is no object.
    fn input_key(&self, key: &str) -> Option<&Value> {
        self.input.as_object().and_then(|object| object.get(key))
    }

    /// The keys under `input` in the JSON (domain: job json).
    pub fn decoded_input(&self) -> DecodedInput {
        let empty = Map::new();
        let object = match &self.input {
            Value::Object(object) => object,
            Value::Null => &empty,
            _ => return DecodedInput { broken: true, ..DecodedInput::default() },
        };
        let absent = |key: &str| object.get(key).is_none_or(Value::is_null);
        let id = |key: &str| object.get(key).and_then(uuid_value);
        let broken = |key: &str| !absent(key) && id(key).is_none();
        DecodedInput {
            template_version_id: id("template_version_id"),
            workspace_build_id: id("workspace_build_id"),
            broken: broken("template_version_id") || broken("workspace_build_id"),
        }
    }
}

/// What the JSON shows of a job's input.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DecodedInput {
    pub template_version_id: Option<Uuid>,
    pub workspace_build_id: Option<Uuid>,
    pub broken: bool,
}

/// A JSON string that the database's `uuid` type reads: 32 hexadecimal digits in either case, a hyphen or none after
/// each group of four, braces around it or none. Joins and JSON must agree on what names a build.
fn uuid_value(value: &Value) -> Option<Uuid> {
    let text = value.as_str()?;
    let text = text.strip_prefix('{').map_or(Some(text), |inner| inner.strip_suffix('}'))?;
    let mut digits = String::new();
    let mut after_group = false;
    for c in text.chars() {
        if c == '-' && after_group {
            after_group = false;
        } else if c.is_ascii_hexdigit() {
            digits.push(c);
            after_group = digits.len().is_multiple_of(4) && digits.len() < 32;
        } else {
            return None;
        }
    }
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok().map(Uuid::from_u128)).flatten()
}

// Positions by tags (domain: positions) -------------------------------------------------------------------------------

/// A job that was asked for by its id, with its position by tags (domain: positions).
#[derive(Debug, Clone)]
pub struct QueuedJob<'a> {
    pub job: &'a JobRow,
    pub queue_position: i64,
    pub queue_size: i64,
}

impl Model {
    pub fn by_ids_with_queue_position(
        &self,
        ids: &[Uuid],
        now: OffsetDateTime,
        stale_interval: Duration,
    ) -> Vec<QueuedJob<'_>> {
        // Ids that name nothing are left out.
        let mut requested: Vec<&JobRow> = self.provisioner_jobs.iter().filter(|job| ids.contains(&job.id)).collect();
        requested.sort_by_key(|job| (job.created_at, job.id));

        // 1. What waits, in all organizations.
        let pending: Vec<&JobRow> = self.provisioner_jobs.iter().filter(|job| job.status() == "pending").collect();

        // 2. The distinct tag sets of the daemons that are online.
        let online: Vec<&DaemonRow> = self
            .provisioner_daemons
            .iter()
            .filter(|daemon| {
                let Some(seen) = daemon.last_seen_at else {
                    self.reached.note(Branch::NeverSeen, true);
                    return false;
                };
                let ago = now - seen;
                let online = ago <= stale_interval;
                self.reached.note(Branch::Offline, !online);
                self.reached.note(Branch::BoundaryOnline, ago == stale_interval);
                online
            })
            .collect();
        let mut tag_sets: Vec<&Value> = Vec::new();
        for daemon in &online {
            let known = tag_sets.iter().any(|tags| jsonb_equal(tags, &daemon.tags));
            self.reached.note(Branch::SharedTags, known);
            if !known {
                tag_sets.push(&daemon.tags);
            }
        }

        // 3. Those that can serve one of the jobs that were asked for.
        let relevant: Vec<&Value> =
            tag_sets.into_iter().filter(|tags| requested.iter().any(|job| tagset_contains(tags, &job.tags))).collect();
        self.reached.note(
            Branch::IrrelevantTags,
            !requested.is_empty() && online.iter().any(|d| !relevant.iter().any(|tags| jsonb_equal(tags, &d.tags))),
        );

        // 4. The queue of each: what waits and it can serve.
        let queues: Vec<(&Value, Vec<&JobRow>)> = relevant
            .into_iter()
            .map(|tags| {
                let mut queue: Vec<&JobRow> =
                    pending.iter().copied().filter(|job| tagset_contains(tags, &job.tags)).collect();
                queue.sort_by_key(|job| job.queue_order());
                let behind = |pair: &[&JobRow]| pair[0].created_at > pair[1].created_at;
                self.reached.note(Branch::ByIdsBehindPerson, queue.windows(2).any(behind));
                (tags, queue)
            })
            .collect();

        // 5. The best position and the longest queue.
        requested
            .into_iter()
            .map(|job| {
                let positions: Vec<(i64, i64)> = queues
                    .iter()
                    .filter_map(|(_, queue)| {
                        let index = queue.iter().position(|queued| queued.id == job.id)?;
                        Some((number(index) + 1, number(queue.len())))
                    })
                    .collect();
                let queue_position = positions.iter().map(|position| position.0).min().unwrap_or(0);
                let queue_size = positions.iter().map(|position| position.1).max().unwrap_or(0);
                self.note_positions(job, &online, &positions);
                QueuedJob { job, queue_position, queue_size }
            })
            .collect()
    }

    fn note_positions(&self, job: &JobRow, online: &[&DaemonRow], positions: &[(i64, i64)]) {
        let best = positions.iter().map(|position| position.0).min().unwrap_or(0);
        let largest = positions.iter().map(|position| position.1).max().unwrap_or(0);
        let serving: Vec<_> = online.iter().filter(|daemon| tagset_contains(&daemon.tags, &job.tags)).collect();
        let ranked = !positions.is_empty();
        self.reached.note(Branch::NoTagSet, !ranked && job.status() == "pending");
        self.reached.note(Branch::SeveralTagSets, positions.len() > 1);
        self.reached.note(Branch::PositionAndSizeDiffer, ranked && !positions.contains(&(best, largest)));
        self.reached.note(
            Branch::RankedForeign,
            ranked && serving.iter().all(|daemon| daemon.organization_id != job.organization_id),
        );
        self.reached.note(
            Branch::RankedOtherProvisioner,
            ranked && serving.iter().all(|daemon| !daemon.provisioners.contains(&job.provisioner)),
        );
        self.reached.note(Branch::RankedNotListed, ranked && !job.waits_in_listing());
    }
}

// The listing (domain: listings) --------------------------------------------------------------------------------------

/// A row of the listing (domain: listings), with an empty name for none.
#[derive(Debug, Clone)]
pub struct ListedJob<'a> {
    pub job: &'a JobRow,
    pub queue_position: i64,
    pub queue_size: i64,
    pub available_workers: Vec<Uuid>,
    pub template_version_name: String,
    pub template_id: Option<Uuid>,
    pub template_name: String,
    pub template_display_name: String,
    pub template_icon: String,
    pub workspace_id: Option<Uuid>,
    /// The workspace, if the build that the input names has this job: what the filter on workspaces means.
    pub builds_workspace: Option<Uuid>,
    pub workspace_name: String,
    pub worker_name: String,
    pub workspace_build_transition: Option<String>,
}

impl Model {
    /// All jobs of an organization with everything that is shown of them, newest first.
    pub fn organization(&self, organization: Uuid) -> Vec<ListedJob<'_>> {
        // One queue for everything that waits anywhere.
        let mut queue: Vec<&JobRow> = self.provisioner_jobs.iter().filter(|job| job.waits_in_listing()).collect();
        queue.sort_by_key(|job| job.queue_order());
        for pair in queue.windows(2) {
            self.reached.note(Branch::RankedBehindPerson, pair[0].created_at > pair[1].created_at);
            self.reached.note(
                Branch::RankedTie,
                (pair[0].initiator_id == PREBUILDS, pair[0].created_at)
                    == (pair[1].initiator_id == PREBUILDS, pair[1].created_at),
            );
        }
        let mut rows: Vec<ListedJob<'_>> = self
            .provisioner_jobs
            .iter()
            .filter(|job| job.organization_id == organization)
            .map(|job| self.listed(job, &queue))
            .collect();
        rows.sort_by_key(|row| Reverse((row.job.created_at, row.job.id)));
        self.reached
            .note(Branch::ListTie, rows.windows(2).any(|pair| pair[0].job.created_at == pair[1].job.created_at));
        rows
    }

    fn listed<'a>(&'a self, job: &'a JobRow, queue: &[&JobRow]) -> ListedJob<'a> {
        let queue_position = queue.iter().position(|queued| queued.id == job.id).map_or(0, |index| number(index) + 1);
        // In every row, also of a job that does not wait.
        let queue_size = number(queue.len());

        let build = self.build(job);
        // Another organization's names are not shown: of no workspace, version or template.
        let workspace = self.workspaces.iter().find(|workspace| {
            let this = build.is_some_and(|build| build.workspace_id == workspace.id);
            let same = workspace.organization_id == job.organization_id;
            self.reached.note(Branch::WorkspaceOtherOrganization, this && !same);
            this && same
        });
        // The key decides, also if its value names nothing.
        let version_id = match job.input_key("template_version_id") {
            Some(value) => uuid_value(value),
            None => build.map(|build| build.template_version_id),
        };
        let version = self.template_versions.iter().find(|version| {
            let this = version_id == Some(version.id);
            let same = version.organization_id == job.organization_id;
            self.reached.note(Branch::VersionOtherOrganization, this && !same);
            this && same
        });
        let template = self.templates.iter().find(|template| {
            let this = version.is_some_and(|version| version.template_id == Some(template.id));
            let same = template.organization_id == job.organization_id;
            self.reached.note(Branch::TemplateOtherOrganization, this && !same);
            this && same
        });
        // By its id alone.
        let worker = self.provisioner_daemons.iter().find(|daemon| job.worker_id == Some(daemon.id));

        let row = ListedJob {
            job,
            queue_position,
            queue_size,
            available_workers: self.available_workers(job),
            template_version_name: version.map(|version| version.name.clone()).unwrap_or_default(),
            template_id: template.map(|template| template.id),
            template_name: template.map(|template| template.name.clone()).unwrap_or_default(),
            template_display_name: template.map(|template| template.display_name.clone()).unwrap_or_default(),
            template_icon: template.map(|template| template.icon.clone()).unwrap_or_default(),
            workspace_id: workspace.map(|workspace| workspace.id),
            builds_workspace: workspace
                .filter(|_| build.is_some_and(|build| build.job_id == job.id))
                .map(|workspace| workspace.id),
            workspace_name: workspace.map(|workspace| workspace.name.clone()).unwrap_or_default(),
            worker_name: worker.map(|worker| worker.name.clone()).unwrap_or_default(),
            workspace_build_transition: build.map(|build| build.transition.clone()),
        };
        let version_key = job.input_key("template_version_id");
        for (branch, when) in [
            (Branch::VersionKeyNull, build.is_some() && version_key.is_some_and(Value::is_null)),
            (Branch::VersionOfBuild, version.is_some() && version_key.is_none()),
            (Branch::BothKeys, build.is_some() && version.is_some() && version_key.is_some()),
            (Branch::VersionWithoutTemplate, version.is_some_and(|version| version.template_id.is_none())),
            (Branch::TemplateNamed, template.is_some()),
            (Branch::TemplateDeleted, template.is_some_and(|template| template.deleted)),
            (Branch::WorkspaceNamed, workspace.is_some()),
            (Branch::WorkspaceDeleted, workspace.is_some_and(|workspace| workspace.deleted)),
            (Branch::WorkerNamed, worker.is_some()),
            (Branch::WorkerDeleted, worker.is_none() && job.worker_id.is_some()),
        ] {
            self.reached.note(branch, when);
        }
        self.note_queue(&row);
        row
    }

    /// The build that the input names. A value that is no UUID names none: one broken input must not fail the listing.
    fn build(&self, job: &JobRow) -> Option<&BuildRow> {
        let value = job.input_key("workspace_build_id");
        let id = value.and_then(uuid_value);
        let build = self.workspace_builds.iter().find(|build| id == Some(build.id));
        let holds_name = |elements: &Vec<Value>| elements.iter().any(|element| element == "workspace_build_id");
        for (branch, when) in [
            (Branch::InputNotObject, !job.input.is_object()),
            (Branch::InputArrayWithKey, job.input.as_array().is_some_and(holds_name)),
            (Branch::BuildNoKey, job.input.is_object() && value.is_none()),
            (Branch::BuildNotUuid, value.is_some() && id.is_none()),
            (Branch::BuildUnknown, id.is_some() && build.is_none()),
            (
                Branch::BuildOddSpelling,
                build.is_some_and(|build| value.and_then(Value::as_str) != Some(build.id.to_string().as_str())),
            ),
        ] {
            self.reached.note(branch, when);
        }
        build
    }

    /// The eligible daemons, the oldest first, of a job that has not started (domain: listings).
    fn available_workers(&self, job: &JobRow) -> Vec<Uuid> {
        let mut workers: Vec<&DaemonRow> = self
            .provisioner_daemons
            .iter()
            .filter(|daemon| {
                let waits = job.started_at.is_none();
                let same = daemon.organization_id == job.organization_id;
                let able = daemon.provisioners.contains(&job.provisioner);
                let fits = tagset_contains(&daemon.tags, &job.tags);
                self.note_tags(&daemon.tags, &job.tags);
                self.reached.note(Branch::WorkerOtherOrganization, waits && !same && able && fits);
                self.reached.note(Branch::WorkerOtherProvisioner, waits && same && !able && fits);
                // Online or not.
                self.reached.note(Branch::WorkersStale, waits && same && able && fits && daemon.last_seen_at.is_none());
                waits && same && able && fits
            })
            .collect();
        workers.sort_by_key(|daemon| (daemon.created_at, daemon.id));
        let tie = |pair: &[&DaemonRow]| pair[0].created_at == pair[1].created_at;
        self.reached.note(Branch::WorkersTie, workers.windows(2).any(tie));
        workers.iter().map(|daemon| daemon.id).collect()
    }

    fn note_tags(&self, daemon: &Value, job: &Value) {
        let untagged = serde_json::json!({"scope": "organization", "owner": ""});
        let matched = tagset_contains(daemon, job);
        let odd = |tags: &Value| tags.as_object().is_some_and(|tags| tags.values().any(|value| !value.is_string()));
        for (branch, when) in [
            (Branch::UntaggedMatch, *job == untagged && matched),
            (Branch::UntaggedRefused, *job == untagged && !matched && jsonb_contains(daemon, job)),
            (Branch::TaggedMatch, *job != untagged && job.as_object().is_some_and(|tags| tags.len() > 2) && matched),
            (Branch::TaggedMissing, job.as_object().is_some_and(|tags| tags.len() > 2) && !matched),
            (Branch::EmptyTagsMatch, job.as_object().is_some_and(Map::is_empty) && *daemon != untagged && matched),
            (
                Branch::DefaultTagsMatch,
                job.as_object().is_some_and(|tags| tags.len() == 1) && *daemon == untagged && matched,
            ),
            (Branch::OddTagsMatch, odd(daemon) && odd(job) && matched),
            (Branch::NotAnObjectTags, !daemon.is_object() || !job.is_object()),
        ] {
            self.reached.note(branch, when);
        }
    }

    fn note_queue(&self, row: &ListedJob<'_>) {
        let job = row.job;
        let waits = row.queue_position > 0;
        for (branch, when) in [
            (Branch::Ranked, waits),
            (Branch::NoWorker, waits && row.available_workers.is_empty()),
            (Branch::QueueSizeOfUnqueued, !waits && row.queue_size > 0),
            (Branch::Workers, !row.available_workers.is_empty()),
            (Branch::WorkersOfCompleted, !row.available_workers.is_empty() && job.completed_at.is_some()),
            (Branch::EmptyError, !waits && job.status() == "pending"),
            (Branch::FailedNotCompleted, job.status() == "failed" && job.completed_at.is_none()),
            (Branch::CancelingNeverStarted, job.status() == "canceling" && job.started_at.is_none()),
        ] {
            self.reached.note(branch, when);
        }
    }

    /// The rows that pass every filter, with the positions from before.
    pub fn filtered<'a>(&self, rows: &[ListedJob<'a>], filter: &JobFilter) -> Vec<ListedJob<'a>> {
        let kept: Vec<ListedJob<'a>> = rows
            .iter()
            .filter(|row| {
                let verdicts = verdicts(row, filter);
                let mut dropped = verdicts.iter().filter(|(_, passes)| !passes);
                if let (Some((branch, _)), None) = (dropped.next(), dropped.next()) {
                    let at_the_time = match branch {
                        Branch::AfterDropped => filter.created_after == Some(row.job.created_at),
                        Branch::BeforeDropped => filter.created_before == Some(row.job.created_at),
                        _ => true,
                    };
                    self.reached.note(*branch, at_the_time);
                }
                verdicts.iter().all(|(_, passes)| *passes)
            })
            .cloned()
            .collect();
        let nil = filter.initiator.is_some_and(|initiator| initiator.0.is_nil());
        let initiators: BTreeSet<Uuid> = kept.iter().map(|row| row.job.initiator_id).collect();
        self.reached.note(Branch::NilInitiator, nil && initiators.len() > 1);
        self.reached.note(
            Branch::FilteredQueued,
            kept.len() < rows.len() && kept.first().is_some_and(|row| row.queue_position > 1),
        );
        kept
    }

    /// The rows of one page, and where the next one begins.
    pub fn page<'a>(&self, rows: &[ListedJob<'a>], page: PageRequest) -> (Vec<ListedJob<'a>>, Option<Cursor>) {
        let place = |row: &ListedJob<'_>| (row.job.created_at, row.job.id);
        let rest: Vec<ListedJob<'a>> = rows
            .iter()
            .filter(|row| page.after.is_none_or(|after| place(row) < (after.created_at, after.id.0)))
            .cloned()
            .collect();
        if let Some(after) = page.after {
            let cut = rows.len() - rest.len();
            self.reached.note(
                Branch::CursorTie,
                cut > 0 && rest.first().is_some_and(|row| row.job.created_at == after.created_at),
            );
        }
        let limit = page.limit.map_or(rest.len(), |limit| limit as usize);
        let shown: Vec<ListedJob<'a>> = rest.iter().take(limit).cloned().collect();
        let more = rest.len() > shown.len();
        let next = shown
            .last()
            .filter(|_| more)
            .map(|last| Cursor { created_at: last.job.created_at, id: last.job.id.into() });
        self.reached.note(Branch::PageFull, next.is_some());
        self.reached
            .note(Branch::PageExact, !more && !shown.is_empty() && page.limit == u32::try_from(shown.len()).ok());
        self.reached.note(Branch::PageLimitZero, page.limit == Some(0) && more);
        (shown, next)
    }
}

/// What each filter says of a row, as the documentation of [`JobFilter`] has it.
fn verdicts(row: &ListedJob<'_>, filter: &JobFilter) -> [(Branch, bool); 23] {
    let job = row.job;
    let code = |codes: &[JobErrorCode]| codes.iter().any(|code| job.error_code.as_deref() == Some(code.as_str()));
    let exclude = &filter.exclude;
    let transition = |wanted: &Transition| row.workspace_build_transition.as_deref() == Some(wanted.as_str());
    let untagged = jsonb_equal(&job.tags, &serde_json::json!({"scope": "organization", "owner": ""}));
    let has_tag = |(key, value): &(String, String)| job.tags.get(key) == Some(&Value::String(value.clone()));
    [
        (Branch::IdsDropped, filter.ids.is_empty() || filter.ids.iter().any(|id| id.0 == job.id)),
        (
            Branch::StatusDropped,
            filter.status.is_empty() || filter.status.iter().any(|status| status.as_str() == job.status()),
        ),
        (
            Branch::TagsDropped,
            filter.tags.as_ref().is_none_or(|tags| {
                let pairs = tags.0.iter().map(|(key, value)| (key.clone(), Value::String(value.clone())));
                tagset_contains(&job.tags, &Value::Object(pairs.collect()))
            }),
        ),
        // Terms: each must hold, and several together mean no more than that.
        (Branch::HasTagsDropped, filter.has_tags.iter().all(has_tag)),
        (Branch::UntaggedDropped, !filter.untagged || untagged),
        (
            Branch::InitiatorDropped,
            filter.initiator.is_none_or(|initiator| initiator.0.is_nil() || initiator.0 == job.initiator_id),
        ),
        (
            Branch::TransitionDropped,
            filter.transition.is_none_or(|wanted| row.workspace_build_transition.as_deref() == Some(wanted.as_str())),
        ),
        (Branch::TemplateDropped, filter.template.is_none_or(|template| row.template_id == Some(template.0))),
        (Branch::WorkspaceDropped, filter.workspace.is_none_or(|workspace| row.builds_workspace == Some(workspace.0))),
        (Branch::AfterDropped, filter.created_after.is_none_or(|after| job.created_at > after)),
        (Branch::BeforeDropped, filter.created_before.is_none_or(|before| job.created_at < before)),
        (
            Branch::TypesDropped,
            filter.types.is_empty() || filter.types.iter().any(|job_type| job_type.as_str() == job.job_type),
        ),
        (Branch::ErrorCodesDropped, filter.error_codes.is_empty() || code(&filter.error_codes)),
        (Branch::StatusExcluded, !exclude.status.iter().any(|status| status.as_str() == job.status())),
        (Branch::IdsExcluded, !exclude.ids.iter().any(|id| id.0 == job.id)),
        (Branch::TagsExcluded, !exclude.tags.iter().any(has_tag)),
        (Branch::UntaggedExcluded, !(exclude.untagged && untagged)),
        (Branch::InitiatorsExcluded, !exclude.initiators.iter().any(|initiator| initiator.0 == job.initiator_id)),
        (Branch::TransitionsExcluded, !exclude.transitions.iter().any(transition)),
        (Branch::TemplatesExcluded, !exclude.templates.iter().any(|id| row.template_id == Some(id.0))),
        (Branch::WorkspacesExcluded, !exclude.workspaces.iter().any(|id| row.builds_workspace == Some(id.0))),
        (Branch::TypesExcluded, !exclude.types.iter().any(|job_type| job_type.as_str() == job.job_type)),
        (Branch::ErrorCodesExcluded, !code(&exclude.error_codes)),
    ]
}

// Quota (domain: quota) -----------------------------------------------------------------------------------------------

impl Model {
    /// The members of groups, each once: those that are stored, and those of Everyone (domain: groups).
    fn group_members_expanded(&self) -> BTreeSet<(Uuid, Uuid)> {
        let explicit = self.group_members.iter().map(|member| (member.group_id, member.user_id));
        let implied = self.organization_members.iter().map(|member| (member.organization_id, member.user_id));
        explicit
            .chain(implied)
            .filter(|(_, user_id)| {
                let deleted = self.users.iter().any(|user| user.id == *user_id && user.deleted);
                self.reached.note(Branch::DeletedMember, deleted);
                !deleted
            })
            .collect()
    }

    /// The budget (domain: quota).
    pub fn quota_allowance(&self, user: Uuid, organization: Uuid) -> i64 {
        let members = self.group_members_expanded();
        let member = self.organization_members.iter().any(|m| (m.organization_id, m.user_id) == (organization, user));
        self.reached.note(Branch::NoEveryoneRow, member && !self.groups.iter().any(|group| group.id == organization));
        self.groups
            .iter()
            .filter(|group| group.organization_id == organization && members.contains(&(group.id, user)))
            .map(|group| {
                let explicit = self.group_members.iter().any(|m| (m.group_id, m.user_id) == (group.id, user));
                self.reached.note(Branch::ExplicitMember, explicit);
                self.reached.note(Branch::EveryoneMember, group.id == organization && member);
                self.reached.note(Branch::BothMember, explicit && group.id == organization && member);
                self.reached.note(Branch::ForeignMember, explicit && !member);
                i64::from(group.quota_allowance)
            })
            .sum()
    }

    /// What is consumed (domain: quota).
    pub fn quota_consumed(&self, owner: Uuid, organization: Uuid) -> i64 {
        self.workspaces
            .iter()
            .filter(|workspace| workspace.owner_id == owner)
            .filter_map(|workspace| {
                let mut builds: Vec<_> =
                    self.workspace_builds.iter().filter(|build| build.workspace_id == workspace.id).collect();
                builds.sort_by_key(|build| build.build_number);
                let latest = builds.pop()?;
                let here = workspace.organization_id == organization;
                let costs = latest.daily_cost != 0;
                self.reached.note(Branch::DeletedWorkspaceCost, here && workspace.deleted && costs);
                self.reached.note(Branch::OtherOrganizationCost, !here && !workspace.deleted && costs);
                if !here || workspace.deleted {
                    return None;
                }
                self.reached.note(Branch::LatestHidesCost, !costs && builds.pop().is_some_and(|b| b.daily_cost != 0));
                Some(i64::from(latest.daily_cost))
            })
            .sum()
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}
