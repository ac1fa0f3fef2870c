//! What no caller should pass and no row should hold: a named error and nothing written, or an answer.
//!
//! [`ENTRIES`] has a line for every argument of every operation that is more than an id or a closed set; one that is
//! missing fails a test. Each is called with everything of its kind in [`bad`].

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use coderdb::{
    authz::{
        ActAsAgent, ActAsDaemon, Actor, BuildWorkspaces, CancelJobs, CreateWorkspaces, InsertJobs, ListQuota,
        MaintainDaemons, MaintainPrebuilds, ManageTokens, ProvisionerStates, ReadDaemons, ReadJobLogs, ReadJobs,
        ReadLicenses, ReadOrganizations, ReadQueue, ReadTemplates, ReadUsers, ReadWorkspaces, ReapJobs, RunJobs,
        SignIn, System, TemplateRight, UploadFiles, WatchJobs, WriteLicenses,
    },
    model::{
        AgentLogLine, BuildReason, ByWorker, Capabilities, Cursor, DaemonFilter, DaemonId, End, Exclude, Failure,
        FileId, GroupId, HeartbeatOutcome, JobDetails, JobFilter, JobId, JobTarget, JobTiming, LicenseId, LogLevel,
        LogSource, NameOrId, NewBuild, NewDaemon, NewFile, NewJob, NewJobLog, NewLicense, NewWorkspace, OrganizationId,
        PageRequest, PresetId, ProvisionerKeyId, ProvisionerType, QuotaCursor, ReapOutcome, SessionToken, Stuck, Tags,
        TemplateId, TemplateVersionId, TimingStage, Transition, UserId, UserRef, WorkspaceAgentId, WorkspaceBuildId,
        WorkspaceId, WorkspaceName,
    },
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{self, Error, Result, quota::CommitOutcome},
};
use fastrand::Rng;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, macros::datetime};
use uuid::Uuid;

use crate::{house_rules::files, support};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

/// Operation, argument, kind; and what comes of its bad values where that is not what [`bad`] says of the kind.
const ENTRIES: &str = "
agents::append_logs              lines.output               text  nul=ok
agents::append_logs              now                        time
agents::logs_after               after                      i64
builds::by_number                number                     i32   min=not_found minus=not_found max=not_found
api_keys::create                 name                       text  empty=invalid long=invalid wide=invalid
api_keys::create                 now                        time
api_keys::create                 expires_at                 time
api_keys::revoke                 id                         text  empty=not_found long=not_found wide=not_found
api_keys::session                now                        time
api_keys::touch                  id                         text
api_keys::touch                  now                        time
builds::create                   new.provisioner_state      bytes
builds::create                   new.deadline               time
builds::create                   new.max_deadline           time
builds::create                   new.tags                   tags
builds::create                   new.options                json
builds::create                   new.trace_metadata         json
builds::create                   now                        time
builds::update_deadline          deadline                   time
builds::update_deadline          max_deadline               time
builds::update_deadline          now                        time
builds::update_state             state                      bytes
builds::update_state             now                        time
changes::active                  digest                     text
changes::announce                texts                      text  wide=invalid
daemons::delete_old              now                        time
daemons::heartbeat               now                        time
daemons::list                    filter.tags                tags
daemons::list                    filter.has_tags            tags
daemons::list                    filter.limit               u32
daemons::list                    now                        time
daemons::list                    stale_interval             span
daemons::upsert                  new.created_at             time
daemons::upsert                  new.name                   text  empty=invalid long=invalid wide=invalid
daemons::upsert                  new.tags                   tags  long=invalid
daemons::upsert                  new.last_seen_at           time
daemons::upsert                  new.version                text
daemons::upsert                  new.api_version            text
files::insert                    file.mimetype              text  empty=invalid long=invalid wide=invalid
files::insert                    file.data                  bytes
files::insert                    now                        time
job_logs::after                  after                      i64
job_logs::append                 lines.created_at           time
job_logs::append                 lines.stage                text  nul=ok
job_logs::append                 lines.output               text  nul=ok
job_timings::insert              timings.started_at         time  last=invalid
job_timings::insert              timings.ended_at           time
job_timings::insert              timings.source             text  nul=ok
job_timings::insert              timings.action             text  nul=ok
job_timings::insert              timings.resource           text  nul=ok
jobs::acquire                    daemon.tags                tags
jobs::acquire                    now                        time
jobs::acquire_batch              daemon.tags                tags
jobs::acquire_batch              now                        time
jobs::acquire_batch              limit                      u32
jobs::by_ids_with_queue_position now                        time
jobs::by_ids_with_queue_position stale_interval             span
jobs::cancel                     now                        time
jobs::cancel_batch               now                        time
jobs::complete                   now                        time
jobs::complete                   provisioner_state          bytes
jobs::count_by_tags              filter.tags                tags
jobs::count_by_tags              filter.has_tags            tags
jobs::count_by_tags              filter.created_after       time
jobs::count_by_tags              filter.created_before      time
jobs::count_by_tags              filter.error_codes         text
jobs::count_by_tags              filter.exclude.tags        tags
jobs::count_by_tags              filter.exclude.error_codes text
jobs::created_after              after                      time
jobs::fail                       now                        time
jobs::fail                       failure.error              text  nul=ok
jobs::fail                       failure.provisioner_state  bytes
jobs::fail_insufficient_quota    now                        time
jobs::heartbeat                  now                        time
jobs::insert                     job.created_at             time
jobs::insert                     job.options                json
jobs::insert                     job.tags                   tags
jobs::insert                     job.trace_metadata         json
jobs::ids                        filter.tags                tags
jobs::ids                        filter.has_tags            tags
jobs::ids                        filter.created_after       time
jobs::ids                        filter.created_before      time
jobs::ids                        filter.error_codes         text
jobs::ids                        filter.exclude.tags        tags
jobs::ids                        filter.exclude.error_codes text
jobs::ids                        page.limit                 u32
jobs::ids                        page.after                 time  bc=ok
jobs::list                       filter.tags                tags
jobs::list                       filter.has_tags            tags
jobs::list                       filter.created_after       time
jobs::list                       filter.created_before      time
jobs::list                       filter.error_codes         text
jobs::list                       filter.exclude.tags        tags
jobs::list                       filter.exclude.error_codes text
jobs::list                       page.limit                 u32
jobs::list                       page.after                 time  bc=ok
jobs::reap                       now                        time
jobs::reap_candidates            now                        time
jobs::reap_candidates            limit                      u32
licenses::delete                 id                         i32
licenses::get                    id                         i32   min=not_found minus=not_found max=not_found
licenses::insert                 new.uploaded_at            time
licenses::insert                 new.jwt                    text  empty=invalid long=invalid
licenses::insert                 new.expires_at             time
licenses::unexpired              now                        time
organizations::by_name           name                       text  empty=not_found long=not_found wide=not_found
organizations::resolve           organization               text  empty=not_found long=not_found wide=not_found
prebuilds::at_failure_limit      limit                      nonzero
prebuilds::backoff               now                        time
prebuilds::backoff               lookback                   span
prebuilds::cancel_stale_pending  now                        time
prebuilds::cancel_stale_pending  stale_interval             span
prebuilds::ensure_organization   now                        time
queue::snapshot                  now                        time
queue::snapshot                  stale_interval             span
quota::commit                    cost                       i64   min=invalid minus=invalid max=invalid
quota::list                      page.after                 text
quota::list                      page.limit                 u32
runner::commit_quota             daily_costs                i32   min=invalid minus=invalid
runner::commit_quota             now                        time
templates::by_name               name                       text  empty=not_found long=not_found wide=not_found
templates::resolve               template                   text  empty=not_found long=not_found wide=not_found
users::by_username               username                   text  empty=not_found long=not_found wide=not_found
users::resolve                   user                       text  empty=not_found long=not_found wide=not_found
users::resolve                   me                         text  empty=not_found long=not_found wide=not_found
workspaces::by_name              name                       text
workspaces::create               new.name                   text  empty=invalid long=invalid wide=invalid
workspaces::create               new.autostart_schedule     text
workspaces::create               new.ttl                    span  max=invalid
workspaces::create               now                        time
";

/// A bad value. Of a kind with one Rust type only the values of that type are used.
#[derive(Debug, Clone)]
enum Bad {
    Text(String),
    Time(OffsetDateTime),
    Span(Duration),
    Tags(Tags),
    Json(Value),
    Number(i64),
    Bytes(Vec<u8>),
}

impl Bad {
    fn text(&self) -> String {
        let Self::Text(text) = self else { panic!("not a text: {self:?}") };
        text.clone()
    }

    fn time(&self) -> OffsetDateTime {
        let Self::Time(time) = self else { panic!("not a time: {self:?}") };
        *time
    }

    fn span(&self) -> Duration {
        let Self::Span(span) = self else { panic!("not a span: {self:?}") };
        *span
    }

    fn tags(&self) -> Tags {
        let Self::Tags(tags) = self else { panic!("not tags: {self:?}") };
        tags.clone()
    }

    fn json(&self) -> Value {
        let Self::Json(value) = self else { panic!("not JSON: {self:?}") };
        value.clone()
    }

    fn options(&self) -> Map<String, Value> {
        Map::from_iter([("option".to_owned(), self.json())])
    }

    fn number<T: TryFrom<i64>>(&self) -> T {
        let Self::Number(number) = self else { panic!("not a number: {self:?}") };
        T::try_from(*number).unwrap_or_else(|_| panic!("{number} is not of the kind"))
    }

    fn bytes(&self) -> Vec<u8> {
        let Self::Bytes(bytes) = self else { panic!("not bytes: {self:?}") };
        bytes.clone()
    }
}

/// So many characters that no compression makes fewer.
fn noise(length: usize) -> String {
    let mut rng = Rng::with_seed(7);
    (0..length).map(|_| rng.alphanumeric()).collect()
}

/// Values by name, and what usually comes of them: `ok`, or the code of the error.
fn bad(kind: &str) -> Vec<(&'static str, &'static str, Bad)> {
    let tags = |pairs: &[(&str, &str)]| Bad::Tags(pairs.iter().copied().collect());
    let long = noise(5_000);
    match kind {
        "text" => vec![
            ("empty", "ok", Bad::Text(String::new())),
            ("long", "ok", Bad::Text(long)),
            ("wide", "ok", Bad::Text("\u{1f600}".repeat(5_000))),
            ("nul", "invalid", Bad::Text("a\0b".to_owned())),
        ],
        "time" => vec![
            ("first", "invalid", Bad::Time(datetime!(-9999-01-01 0:00 UTC))),
            ("bc", "invalid", Bad::Time(datetime!(0000-01-01 0:00 UTC))),
            ("last", "ok", Bad::Time(datetime!(9999-12-31 23:59:59.999_999_999 UTC))),
            // Two moments of a day that the calendar here does not have in UTC.
            ("beyond", "invalid", Bad::Time(datetime!(9999-12-31 23:59:59).assume_offset(hours(-23)))),
            ("before", "invalid", Bad::Time(datetime!(-9999-01-01 0:00).assume_offset(hours(23)))),
        ],
        "span" => vec![("none", "ok", Bad::Span(Duration::ZERO)), ("max", "ok", Bad::Span(Duration::MAX))],
        "tags" => vec![
            ("nul-key", "invalid", tags(&[("a\0", "b")])),
            ("nul-value", "invalid", tags(&[("a", "\0")])),
            ("long", "ok", tags(&[("owner", &long)])),
            ("many", "ok", Bad::Tags((0..10_000).map(|n| (n.to_string(), "value")).collect())),
            ("empty", "ok", tags(&[("", "")])),
        ],
        "json" => vec![
            ("nul-key", "invalid", Bad::Json(json!({"a\0": 1}))),
            ("nul-value", "invalid", Bad::Json(json!([{"a": "\0"}]))),
            ("long", "ok", Bad::Json(json!(long))),
            ("null", "ok", Bad::Json(Value::Null)),
            ("deep", "invalid", Bad::Json((0..1_000).fold(Value::Null, |inner, _| json!([inner])))),
            ("huge", "ok", Bad::Json(json!([f64::MAX, u64::MAX, i64::MIN]))),
        ],
        "i32" => {
            vec![
                ("min", "ok", Bad::Number(i32::MIN.into())),
                ("minus", "ok", Bad::Number(-1)),
                ("max", "ok", Bad::Number(i32::MAX.into())),
            ]
        }
        "u32" => vec![("zero", "ok", Bad::Number(0)), ("max", "ok", Bad::Number(u32::MAX.into()))],
        "nonzero" => vec![("max", "ok", Bad::Number(u32::MAX.into()))],
        "i64" => {
            vec![
                ("min", "ok", Bad::Number(i64::MIN)),
                ("minus", "ok", Bad::Number(-1)),
                ("max", "ok", Bad::Number(i64::MAX)),
            ]
        }
        "bytes" => vec![("empty", "ok", Bad::Bytes(vec![])), ("big", "ok", Bad::Bytes(vec![0; 3_000_000]))],
        other => panic!("{other} is no kind"),
    }
}

fn hours(hours: i8) -> UtcOffset {
    UtcOffset::from_hms(hours, 0, 0).expect("an offset")
}

fn u(n: u32) -> Uuid {
    format!("{n:032}").parse().expect("an id")
}

struct Entry {
    operation: &'static str,
    argument: &'static str,
    kind: &'static str,
    exceptions: BTreeMap<&'static str, &'static str>,
}

fn entries() -> Vec<Entry> {
    let entry = |line: &'static str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("operation, argument, kind");
        let (operation, argument, kind) = (word(), word(), word());
        Entry {
            operation,
            argument,
            kind,
            exceptions: words.map(|word| word.split_once('=').expect("name=outcome")).collect(),
        }
    };
    ENTRIES.lines().filter(|line| !line.is_empty()).map(entry).collect()
}

/// Organization 1 has one of each kind of thing; its daemon has taken the job; user 1 owns it all, and the site.
async fn world() -> (support::Database, PgConnection, Actor) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sqlx::raw_sql(concat!(
        include_str!("golden/two_organizations.sql"),
        "UPDATE provisioner_jobs SET worker_id = u(104), started_at = moment() WHERE id = u(101);
         INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id,
            tags
         ) SELECT u(120), created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input,
            file_id, '{\"scope\": \"organization\"}' FROM provisioner_jobs WHERE id = u(101);
         UPDATE users SET rbac_roles = '{owner}' WHERE id = u(1)"
    ))
    .execute(&mut conn)
    .await
    .expect("the world");
    let permit = coderdb::authz::LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator");
    let owner = store::actors::load(&mut conn, &permit, UserId(u(1))).await.expect("the owner");
    (database, conn, owner)
}

/// Whether the transaction has written or locked anything. An aborted one has not.
async fn has_written(conn: &mut PgConnection) -> bool {
    let sql = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
    sqlx::query_scalar(sql).fetch_one(conn).await.unwrap_or(false)
}

/// Calls the operation with one bad argument, the others being good.
#[expect(clippy::too_many_lines, reason = "one arm per operation")]
async fn call(conn: &mut PgConnection, owner: &Actor, entry: &Entry, bad: &Bad) -> Result<()> {
    let organization = OrganizationId(u(1));
    let (job, template, workspace, daemon) = (JobId(u(101)), TemplateId(u(102)), WorkspaceId(u(103)), DaemonId(u(104)));
    let (version, build) = (TemplateVersionId(u(107)), WorkspaceBuildId(u(108)));
    let stale = store::jobs::STALE_INTERVAL;
    let is = |argument: &str| entry.argument == argument;
    // The bad value where it is meant, else a good one.
    let time = |argument: &str| if is(argument) { bad.time() } else { NOW };
    let text = |argument: &str| if is(argument) { bad.text() } else { "text".to_owned() };
    let span = |argument: &str| if is(argument) { bad.span() } else { stale };
    let tags = |argument: &str| if is(argument) { bad.tags() } else { Tags::from_iter([("a", "b")]) };
    let operator = support::operator();
    let system = |system| Actor::system(system);
    let runs = RunJobs::check(&system(System::ProvisionerDaemon), organization, daemon)?;
    match entry.operation {
        "agents::append_logs" => {
            let permit = ActAsAgent::check(&system(System::WorkspaceAgent), WorkspaceAgentId(u(110)))?;
            let line = AgentLogLine { level: LogLevel::Info, output: text("lines.output") };
            store::agents::append_logs(conn, &permit, &[line], None, time("now")).await.map(drop)
        }
        "agents::logs_after" => {
            let permit = ReadWorkspaces::check(owner, organization)?;
            store::agents::logs_after(conn, &permit, WorkspaceAgentId(u(110)), bad.number()).await.map(drop)
        }
        "builds::by_number" => {
            let permit = ReadWorkspaces::check(owner, organization)?;
            store::builds::by_number(conn, &permit, workspace, bad.number()).await.map(drop)
        }
        "api_keys::create" => {
            let name = if is("name") { bad.text() } else { "name".to_owned() };
            let (now, expires_at) = (time("now"), time("expires_at"));
            let permit = ManageTokens::check(owner)?;
            store::api_keys::create(conn, &permit, UserId(u(1)), &name, now, expires_at).await.map(drop)
        }
        "api_keys::revoke" => store::api_keys::revoke(conn, &ManageTokens::check(owner)?, &bad.text()).await,
        "api_keys::session" => {
            let token: SessionToken = "abcdefghij-0123456789012345678901".parse().expect("a token");
            let permit = SignIn::check(&Actor::system(System::Authenticator))?;
            store::api_keys::session(conn, &permit, &token, bad.time()).await.map(drop)
        }
        "api_keys::touch" => {
            let permit = SignIn::check(&Actor::system(System::Authenticator))?;
            let id = if is("id") { bad.text() } else { "abcdefghij".to_owned() };
            store::api_keys::touch(conn, &permit, &id, time("now")).await
        }
        "builds::create" => {
            let bound = is("new.max_deadline").then(|| bad.time());
            let new = NewBuild {
                id: WorkspaceBuildId(u(5001)),
                job_id: JobId(u(5002)),
                workspace_id: workspace,
                template_version_id: version,
                preset_id: None,
                transition: Transition::Stop,
                reason: BuildReason::Initiator,
                provisioner_state: is("new.provisioner_state").then(|| bad.bytes()),
                deadline: is("new.deadline").then(|| bad.time()).or(bound),
                max_deadline: bound,
                tags: tags("new.tags"),
                options: if is("new.options") { bad.options() } else { Map::new() },
                trace_metadata: is("new.trace_metadata").then(|| bad.json()),
            };
            let permit = BuildWorkspaces::check(owner, organization)?;
            store::builds::create(conn, &permit, &new, time("now")).await.map(drop)
        }
        "builds::update_deadline" => {
            let permit = BuildWorkspaces::check(owner, organization)?;
            let bound = is("max_deadline").then(|| bad.time());
            let deadline = is("deadline").then(|| bad.time()).or(bound);
            store::builds::update_deadline(conn, &permit, build, deadline, bound, time("now")).await.map(drop)
        }
        "builds::update_state" => {
            let permit = ProvisionerStates::check(owner, organization)?;
            let bytes = if is("state") { bad.bytes() } else { vec![] };
            store::builds::update_state(conn, &permit, build, &bytes, time("now")).await
        }
        "changes::active" => {
            let (permit, digest) = (WatchJobs::check(&system(System::Watcher))?, bad.text());
            store::changes::active(conn, &permit, organization, Some(&digest)).await.map(drop)
        }
        "changes::announce" => {
            store::changes::announce(conn, &WatchJobs::check(&system(System::Watcher))?, &[bad.text()]).await
        }
        "daemons::delete_old" => {
            store::daemons::delete_old(conn, &MaintainDaemons::check(&operator)?, bad.time()).await.map(drop)
        }
        "daemons::heartbeat" => {
            let permit = ActAsDaemon::check(&system(System::ProvisionerDaemon), daemon, organization)?;
            store::daemons::heartbeat(conn, &permit, bad.time()).await.map(drop)
        }
        "daemons::list" => {
            let filter = DaemonFilter {
                tags: is("filter.tags").then(|| bad.tags()),
                limit: is("filter.limit").then(|| bad.number()),
                has_tags: if is("filter.has_tags") { bad.tags().0.into_iter().collect() } else { Vec::new() },
                ..DaemonFilter::default()
            };
            let permit = ReadDaemons::check(owner, organization)?;
            store::daemons::list(conn, &permit, &filter, time("now"), span("stale_interval")).await.map(drop)
        }
        "daemons::upsert" => {
            let new = NewDaemon {
                created_at: time("new.created_at"),
                name: text("new.name"),
                provisioners: vec![],
                replica_id: None,
                tags: tags("new.tags"),
                last_seen_at: Some(time("new.last_seen_at")),
                version: text("new.version"),
                api_version: text("new.api_version"),
                key_id: ProvisionerKeyId(u(105)),
            };
            let permit = ActAsDaemon::check(&system(System::ProvisionerDaemon), DaemonId(u(5001)), organization)?;
            store::daemons::upsert(conn, &permit, &new).await.map(drop)
        }
        "files::insert" => {
            let data = if is("file.data") { bad.bytes() } else { vec![0] };
            let new = NewFile { id: FileId(u(5001)), mimetype: text("file.mimetype"), data };
            store::files::insert(conn, &UploadFiles::check(owner)?, &new, time("now")).await.map(drop)
        }
        "job_logs::after" => {
            store::job_logs::after(conn, &ReadJobLogs::check(owner, organization)?, job, bad.number()).await.map(drop)
        }
        "job_logs::append" => {
            let line = NewJobLog {
                created_at: time("lines.created_at"),
                source: LogSource::Provisioner,
                level: LogLevel::Info,
                stage: text("lines.stage"),
                output: text("lines.output"),
            };
            store::job_logs::append(conn, &runs, job, &[line]).await.map(drop)
        }
        "job_timings::insert" => {
            let timing = JobTiming {
                started_at: time("timings.started_at"),
                ended_at: time("timings.ended_at"),
                stage: TimingStage::Apply,
                source: text("timings.source"),
                action: text("timings.action"),
                resource: text("timings.resource"),
            };
            store::job_timings::insert(conn, &runs, job, &[timing]).await.map(drop)
        }
        "jobs::acquire" | "jobs::acquire_batch" => {
            let tags = tags("daemon.tags");
            let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
            let limit = if is("limit") { bad.number() } else { 10 };
            match entry.operation {
                "jobs::acquire" => store::jobs::acquire(conn, &runs, offer, time("now")).await.map(drop),
                _ => store::jobs::acquire_batch(conn, &runs, offer, time("now"), limit).await.map(drop),
            }
        }
        "jobs::by_ids_with_queue_position" => {
            let permit = ReadJobs::check(owner, organization)?;
            let (now, stale) = (time("now"), span("stale_interval"));
            store::jobs::by_ids_with_queue_position(conn, &permit, &[job], now, stale).await.map(drop)
        }
        "jobs::cancel" | "jobs::cancel_batch" => {
            let permit = CancelJobs::check(owner, organization)?;
            match entry.operation {
                "jobs::cancel" => store::jobs::cancel(conn, &permit, job, None, bad.time()).await.map(drop),
                _ => store::jobs::cancel_batch(conn, &permit, &[job], None, bad.time()).await.map(drop),
            }
        }
        "jobs::complete" => {
            let bytes = is("provisioner_state").then(|| bad.bytes());
            store::jobs::complete(conn, &runs, job, time("now"), bytes.as_deref()).await.map(drop)
        }
        "jobs::created_after" => {
            let permit = ReadJobs::check(owner, organization)?;
            store::jobs::created_after(conn, &permit, bad.time()).await.map(drop)
        }
        "jobs::fail" => {
            let (error, bytes) = (text("failure.error"), is("failure.provisioner_state").then(|| bad.bytes()));
            let failure = Failure { error: &error, code: None, provisioner_state: bytes.as_deref() };
            store::jobs::fail(conn, &runs, job, time("now"), failure).await.map(drop)
        }
        "jobs::fail_insufficient_quota" => {
            let CommitOutcome::Rejected(rejected) = store::quota::commit(conn, &runs, job, 1_000).await? else {
                panic!("there is no budget")
            };
            store::jobs::fail_insufficient_quota(conn, &runs, &rejected, bad.time()).await.map(drop)
        }
        "jobs::insert" => {
            let new = NewJob {
                id: JobId(u(5001)),
                created_at: time("job.created_at"),
                options: if is("job.options") { bad.options() } else { Map::new() },
                tags: tags("job.tags"),
                trace_metadata: is("job.trace_metadata").then(|| bad.json()),
            };
            let permit = InsertJobs::check(owner, organization, JobTarget::DryRun(version))?;
            store::jobs::insert(conn, &permit, new).await.map(drop)
        }
        "jobs::count_by_tags" | "jobs::ids" | "jobs::list" => {
            let filter = JobFilter {
                tags: is("filter.tags").then(|| bad.tags()),
                has_tags: if is("filter.has_tags") { bad.tags().0.into_iter().collect() } else { Vec::new() },
                created_after: is("filter.created_after").then(|| bad.time()),
                created_before: is("filter.created_before").then(|| bad.time()),
                error_codes: if is("filter.error_codes") { vec![bad.text().into()] } else { Vec::new() },
                exclude: Exclude {
                    tags: if is("filter.exclude.tags") { bad.tags().0.into_iter().collect() } else { Vec::new() },
                    error_codes: if is("filter.exclude.error_codes") { vec![bad.text().into()] } else { Vec::new() },
                    ..Exclude::default()
                },
                ..JobFilter::default()
            };
            let page = PageRequest {
                limit: is("page.limit").then(|| bad.number()),
                after: is("page.after").then(|| Cursor { created_at: bad.time(), id: job }),
            };
            let permit = ReadJobs::check(owner, organization)?;
            match entry.operation {
                "jobs::count_by_tags" => store::jobs::count_by_tags(conn, &permit, &filter).await.map(drop),
                "jobs::ids" => store::jobs::ids(conn, &permit, &filter, page).await.map(drop),
                _ => store::jobs::list(conn, &permit, &filter, page).await.map(drop),
            }
        }
        "jobs::reap" => {
            store::jobs::reap(conn, &ReapJobs::check(&system(System::Reaper))?, job, bad.time()).await.map(drop)
        }
        "jobs::reap_candidates" => {
            let permit = ReapJobs::check(&system(System::Reaper))?;
            let limit = if is("limit") { bad.number() } else { 10 };
            store::jobs::reap_candidates(conn, &permit, time("now"), limit).await.map(drop)
        }
        "jobs::heartbeat" => store::jobs::heartbeat(conn, &runs, job, bad.time()).await.map(drop),
        "licenses::delete" => {
            store::licenses::delete(conn, &WriteLicenses::check(owner)?, LicenseId(bad.number())).await.map(drop)
        }
        "licenses::get" => {
            store::licenses::get(conn, &ReadLicenses::check(owner)?, LicenseId(bad.number())).await.map(drop)
        }
        "licenses::insert" => {
            let new = NewLicense {
                uploaded_at: time("new.uploaded_at"),
                jwt: text("new.jwt").into(),
                expires_at: time("new.expires_at"),
                uuid: u(5001),
            };
            store::licenses::insert(conn, &WriteLicenses::check(owner)?, &new).await.map(drop)
        }
        "licenses::unexpired" => {
            store::licenses::unexpired(conn, &ReadLicenses::check(owner)?, bad.time()).await.map(drop)
        }
        "organizations::by_name" => {
            store::organizations::by_name(conn, &ReadOrganizations::check(owner), &bad.text()).await.map(drop)
        }
        "organizations::resolve" => {
            let name = NameOrId::Name(bad.text());
            store::organizations::resolve(conn, &ReadOrganizations::check(owner), &name).await.map(drop)
        }
        "prebuilds::at_failure_limit" => {
            let permit = MaintainPrebuilds::check(&operator, organization)?;
            let limit = NonZeroU32::new(bad.number()).expect("not zero");
            store::prebuilds::at_failure_limit(conn, &permit, limit).await.map(drop)
        }
        "prebuilds::backoff" => {
            let permit = MaintainPrebuilds::check(&operator, organization)?;
            store::prebuilds::backoff(conn, &permit, time("now"), span("lookback")).await.map(drop)
        }
        "prebuilds::ensure_organization" => {
            let permit = MaintainPrebuilds::check(&operator, organization)?;
            let group = GroupId(u(5001));
            store::prebuilds::ensure_organization(conn, &permit, group, time("now")).await.map(drop)
        }
        "prebuilds::cancel_stale_pending" => {
            let permit = MaintainPrebuilds::check(&operator, organization)?;
            let ids = [(WorkspaceBuildId(u(5001)), JobId(u(5002)))];
            let (now, stale) = (time("now"), span("stale_interval"));
            store::prebuilds::cancel_stale_pending(conn, &permit, PresetId(u(111)), &ids, now, stale).await.map(drop)
        }
        "queue::snapshot" => {
            let permit = ReadQueue::check(&Actor::system(System::Watcher))?;
            store::queue::snapshot(conn, &permit, time("now"), span("stale_interval")).await.map(drop)
        }
        "quota::commit" => store::quota::commit(conn, &runs, job, bad.number()).await.map(drop),
        "quota::list" => {
            let after = is("page.after").then(|| QuotaCursor { username: bad.text(), id: UserId(u(1)) });
            let limit = is("page.limit").then(|| bad.number());
            let page = PageRequest { limit, after };
            store::quota::list(conn, &ListQuota::check(owner, organization)?, page).await.map(drop)
        }
        "runner::commit_quota" => {
            let costs = if is("daily_costs") { vec![bad.number(), bad.number()] } else { vec![0, 1] };
            store::runner::commit_quota(conn, &runs, job, Transition::Start, &costs, time("now")).await.map(drop)
        }
        "templates::by_name" => {
            let permit = ReadTemplates::check(owner, organization, TemplateRight::Read)?;
            store::templates::by_name(conn, &permit, &bad.text()).await.map(drop)
        }
        "templates::resolve" => {
            let permit = ReadTemplates::check(owner, organization, TemplateRight::Read)?;
            store::templates::resolve(conn, &permit, &NameOrId::Name(bad.text())).await.map(drop)
        }
        "users::by_username" => store::users::by_username(conn, &ReadUsers::check(owner)?, &bad.text()).await.map(drop),
        "users::resolve" => {
            let permit = ReadUsers::check(owner)?;
            let name = UserRef::Username(bad.text());
            let (user, me) = if is("me") { (UserRef::Me, Some(name)) } else { (name, None) };
            store::users::resolve(conn, &permit, &user, me.as_ref()).await.map(drop)
        }
        "workspaces::by_name" => {
            let permit = ReadWorkspaces::check(owner, organization)?;
            store::workspaces::by_name(conn, &permit, &bad.text()).await.map(drop)
        }
        "workspaces::create" => {
            let new = NewWorkspace {
                id: WorkspaceId(u(5001)),
                name: if is("new.name") { bad.text().parse::<WorkspaceName>()? } else { "name".parse()? },
                template_id: template,
                autostart_schedule: is("new.autostart_schedule").then(|| bad.text()),
                ttl: is("new.ttl").then(|| bad.span()),
            };
            let permit = CreateWorkspaces::check(owner, UserId(u(1)), organization)?;
            store::workspaces::create(conn, &permit, &new, time("now")).await.map(drop)
        }
        other => panic!("{other} is in ENTRIES, but no arm of `call` in tests/it/bad_input.rs calls it"),
    }
}

/// Everything that lists rows, so that a row that cannot be read again is noticed.
async fn read_all(conn: &mut PgConnection, owner: &Actor) -> Result<()> {
    let organization = OrganizationId(u(1));
    let (jobs, workspaces) = (ReadJobs::check(owner, organization)?, ReadWorkspaces::check(owner, organization)?);
    let logs = ReadJobLogs::check(owner, organization)?;
    let stale = store::jobs::STALE_INTERVAL;
    let page = store::jobs::list(conn, &jobs, &JobFilter::default(), PageRequest::default()).await?;
    let ids: Vec<JobId> = page.rows.iter().map(|row| row.job.id).collect();
    store::jobs::by_ids(conn, &jobs, &ids).await?;
    store::jobs::by_ids_with_queue_position(conn, &jobs, &ids, NOW, stale).await?;
    store::jobs::created_after(conn, &jobs, datetime!(0001-01-01 0:00 UTC)).await?;
    for id in ids {
        store::jobs::get(conn, &jobs, id).await?;
        store::job_logs::after(conn, &logs, id, 0).await?;
        store::job_timings::list(conn, &logs, id).await?;
    }
    let daemons = ReadDaemons::check(owner, organization)?;
    store::daemons::list(conn, &daemons, &DaemonFilter::default(), NOW, stale).await?;
    let queue = store::queue::snapshot(conn, &ReadQueue::check(&Actor::system(System::Watcher))?, NOW, stale).await?;
    assert!(!queue.everywhere().by_tags().is_empty());
    store::daemons::eligible(conn, &daemons, &[JobId(u(101))]).await?;
    store::licenses::list(conn, &ReadLicenses::check(owner)?).await?;
    store::builds::latest(conn, &workspaces, WorkspaceId(u(103))).await?;
    store::agents::in_latest_build(conn, &workspaces, WorkspaceId(u(103))).await?;
    store::agents::logs_after(conn, &workspaces, WorkspaceAgentId(u(110)), 0).await?;
    store::workspaces::by_name(conn, &workspaces, "name").await?;
    let prebuilds = MaintainPrebuilds::check(&support::operator(), organization)?;
    store::prebuilds::running(conn, &prebuilds).await?;
    store::prebuilds::presets(conn, &prebuilds, None).await?;
    store::prebuilds::count_in_progress(conn, &prebuilds).await?;
    store::prebuilds::count_stale_pending(conn, &prebuilds).await?;
    store::jobs::reap_candidates(conn, &ReapJobs::check(&Actor::system(System::Reaper))?, NOW, 100).await?;
    Ok(())
}

#[tokio::test]
async fn bad_input_is_a_named_error_with_nothing_written_or_an_answer() {
    let (_database, mut conn, owner) = world().await;
    let (mut wrong, mut calls) = (Vec::new(), 0);
    for entry in entries() {
        let mut unused = entry.exceptions.clone();
        for (name, usual, bad) in bad(entry.kind) {
            calls += 1;
            let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.expect("a transaction");
            let result = call(&mut tx, &owner, &entry, &bad).await;
            let outcome = match &result {
                Ok(()) => "ok",
                Err(error) => error.code(),
            };
            if outcome != unused.remove(name).unwrap_or(usual) {
                wrong.push(format!("{} {} {name}: {:.200}", entry.operation, entry.argument, format!("{result:?}")));
            }
            match result {
                Ok(()) => {
                    if let Err(error) = read_all(&mut tx, &owner).await {
                        wrong.push(format!("after {} {} {name}: {error:?}", entry.operation, entry.argument));
                    }
                }
                Err(Error::Invalid { .. } | Error::NotFound { .. } | Error::Conflict { .. }) => {
                    if has_written(&mut tx).await {
                        wrong.push(format!("{} {} {name} has written", entry.operation, entry.argument));
                    }
                }
                Err(error) => wrong.push(format!("{} {} {name}: {error:?}", entry.operation, entry.argument)),
            }
            tx.rollback().await.expect("nothing stays");
        }
        if !unused.is_empty() {
            wrong.push(format!("{} {}: nothing is called {unused:?}", entry.operation, entry.argument));
        }
    }
    assert!(wrong.is_empty(), "{} of {calls} calls:\n{}", wrong.len(), wrong.join("\n"));
}

/// The arguments of an operation, and the fields of those that are structs: name and type.
fn arguments(signature: &str, models: &str) -> Vec<(String, String)> {
    let pairs = |text: &str| -> Vec<(String, String)> {
        let line = |line: &str| {
            let (name, kind) = line.trim().trim_start_matches("pub ").split_once(": ")?;
            Some((name.trim_start_matches('_').to_owned(), kind.trim_end_matches(',').to_owned()))
        };
        text.lines().filter(|line| !line.trim_start().starts_with("//")).filter_map(line).collect()
    };
    let mut found = Vec::new();
    for (name, kind) in pairs(&signature.replace(", ", ",\n")) {
        let plain = kind.trim_start_matches('&').trim_start_matches('[').trim_end_matches(']');
        let plain = plain.replace("<'_>", "").replace("<QuotaCursor>", "");
        let ends = ["{", "<'a> {", "<C = Cursor> {", "<Level = LogLevel> {", "<Stage = TimingStage> {"];
        let fields = ends.iter().find_map(|end| {
            let (_, rest) =
                models.split_once(&format!("pub struct {plain}{}{end}", if *end == "{" { " " } else { "" }))?;
            rest.split_once("\n}").map(|(fields, _)| pairs(fields))
        });
        match fields {
            Some(fields) => {
                for (field, kind) in fields {
                    let nested = arguments(&format!("{field}: {kind}"), models);
                    let nested = if nested.len() > 1 { nested } else { vec![(field, kind)] };
                    found.extend(nested.into_iter().map(|(field, kind)| (format!("{name}.{field}"), kind)));
                }
            }
            None => found.push((name, kind)),
        }
    }
    found
}

#[test]
fn every_argument_that_may_be_bad_is_in_the_table() {
    let models: String = files("src/model").into_iter().map(|(_, text)| text).collect();
    let closed: Vec<&str> =
        models.lines().filter_map(|line| line.trim().split_once(", \"").map(|(name, _)| name)).collect();
    // A closed set, a part of the database that a type says, or nothing but ids.
    let harmless = |kind: &str| {
        let words: Vec<&str> = kind.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        words.iter().all(|word| {
            ["Option", "Vec", "bool", "a", "FailureCode", "RejectedCommit", "SessionToken", "Uuid"].contains(word)
                // A label is never sent, but compared.
                || ["Level", "Stage", "impl", "Into", "Label"].contains(word)
                || (word.ends_with("Id") && *word != "LicenseId" && *word != "NameOrId")
                || closed.contains(word)
        })
    };
    let listed: Vec<(&str, &str)> = entries().iter().map(|entry| (entry.operation, entry.argument)).collect();
    let (mut missing, mut needed) = (Vec::new(), 0);
    for (file, code) in files("src/store") {
        let module = file.split(['/', '.']).next().expect("a name");
        for rest in code.split("\npub async fn ").skip(1) {
            let (name, rest) = rest.split_once('(').expect("arguments");
            let Some((_, signature)) = rest.split(") ->").next().and_then(|all| all.split_once("permit: &")) else {
                continue;
            };
            let operation = format!("{module}::{name}");
            let rest = signature.split_once(',').map_or("", |(_, rest)| rest);
            for (argument, kind) in arguments(rest, &models) {
                if !harmless(&kind) {
                    needed += 1;
                    if !listed.contains(&(operation.as_str(), argument.as_str())) {
                        missing.push(format!("{operation} {argument}: {kind}"));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "ENTRIES in tests/it/bad_input.rs lacks:\n{}", missing.join("\n"));
    assert_eq!(needed, listed.len(), "ENTRIES has lines for arguments that are not there");
}

#[tokio::test]
async fn a_row_that_holds_what_it_should_not_fails_no_list() {
    let (_database, mut conn, owner) = world().await;
    let deep = format!("'{}{}'", "[".repeat(1_000), "]".repeat(1_000));
    let nested = format!("'{{\"a\": {}{}}}'", "[".repeat(1_000), "]".repeat(1_000));
    let documents = [
        "'null'",
        "'[]'",
        "'[\"scope\"]'",
        "'\"text\"'",
        "'5'",
        "'1e400'",
        "'{\"a\": 1}'",
        "'{\"a\": null}'",
        &deep,
        &nested,
    ];
    let moments =
        ["'infinity'", "'-infinity'", "'4713-01-01 00:00+00 BC'", "'294276-12-31 23:59+00'", "'10000-01-01 00:00+00'"];
    let names = ["repeat('x', 5000)", "''", "E'\\u0001\\n'"];
    let columns: &[(&str, &str, &[&str])] = &[
        ("provisioner_jobs", "input", &documents),
        ("provisioner_jobs", "tags", &documents),
        ("provisioner_jobs", "trace_metadata", &documents),
        ("provisioner_jobs", "error", &names),
        ("provisioner_jobs", "created_at", &moments),
        ("provisioner_jobs", "updated_at", &moments),
        ("provisioner_jobs", "started_at", &moments),
        ("provisioner_jobs", "canceled_at", &moments),
        ("provisioner_jobs", "completed_at", &moments),
        ("provisioner_jobs", "worker_id", &["u(1)", "NULL"]),
        ("provisioner_daemons", "tags", &documents),
        ("provisioner_daemons", "created_at", &moments),
        ("provisioner_daemons", "last_seen_at", &moments),
        ("provisioner_daemons", "provisioners", &["'{}'", "'{echo,echo}'"]),
        ("provisioner_daemons", "version", &names),
        ("provisioner_job_logs", "created_at", &moments),
        ("provisioner_job_timings", "started_at", &moments),
        ("provisioner_job_timings", "ended_at", &moments),
        ("provisioner_job_timings", "resource", &names),
        ("workspace_builds", "created_at", &moments),
        ("workspace_builds", "deadline", &moments),
        ("workspace_builds", "daily_cost", &["-1", "2147483647", "-2147483648"]),
        ("workspace_builds", "provisioner_state", &["''", "NULL"]),
        ("workspace_agents", "created_at", &moments),
        ("workspace_agents", "first_connected_at", &moments),
        ("workspace_agents", "last_connected_at", &moments),
        ("workspace_agent_logs", "created_at", &moments),
        ("workspaces", "created_at", &moments),
        ("workspaces", "ttl", &["-1", "9223372036854775807"]),
        ("templates", "display_name", &["''", "repeat('x', 64)"]),
        ("licenses", "exp", &moments),
        ("organizations", "name", &names),
        ("users", "username", &names[..1]),
    ];
    sqlx::raw_sql(
        "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         SELECT id, created_at, 'provisioner', 'info', '', '' FROM provisioner_jobs;
         INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
         SELECT id, created_at, created_at, 'plan', '', '', '' FROM provisioner_jobs;
         INSERT INTO workspace_agent_logs (agent_id, created_at, output, level)
         SELECT id, created_at, '', 'info' FROM workspace_agents",
    )
    .execute(&mut conn)
    .await
    .expect("rows to spoil");
    let mut wrong = Vec::new();
    for (table, column, values) in columns {
        for value in *values {
            let mut tx = conn.begin().await.expect("a transaction");
            let key =
                if *table == "provisioner_job_logs" || *table == "provisioner_job_timings" { "job_id" } else { "id" };
            let key = if *table == "workspace_agent_logs" { "agent_id" } else { key };
            let row = format!("(SELECT {key} FROM {table} ORDER BY {key}::text LIMIT 1)");
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE {key} = {row}");
            let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *tx).await;
            assert!(done.unwrap_or_else(|error| panic!("{sql:.200}: {error}")).rows_affected() > 0, "{sql:.200}");
            if let Err(error) = read_all(&mut tx, &owner).await {
                wrong.push(format!("{table}.{column} = {value:.40}: {error:?}"));
            }
            let permit = ReadWorkspaces::check(&owner, OrganizationId(u(1))).expect("an owner");
            for agent in store::agents::in_latest_build(&mut tx, &permit, WorkspaceId(u(103))).await.expect("agents") {
                let _ = agent.status(NOW, Duration::MAX);
            }
            tx.rollback().await.expect("nothing stays");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_job_with_a_broken_input_says_so_and_does_not_keep_others_from_their_daemon() {
    let (_database, mut conn, owner) = world().await;
    let organization = OrganizationId(u(1));
    let jobs = ReadJobs::check(&owner, organization).expect("an owner");
    let runs =
        RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(u(104))).expect("a daemon");
    let tags = Tags::from_iter([("scope", "organization"), ("owner", "a")]);
    let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    let broken = [
        json!({"workspace_build_id": "not a UUID"}).to_string(),
        json!({"workspace_build_id": 5}).to_string(),
        json!({"template_version_id": {}}).to_string(),
        json!({"workspace_build_id": "x".repeat(5_000)}).to_string(),
        json!([]).to_string(),
        json!("text").to_string(),
    ];
    for input in broken {
        let mut tx = conn.begin().await.expect("a transaction");
        let sql = "UPDATE provisioner_jobs SET input = $1::jsonb WHERE id = u(120)";
        sqlx::query(sql).bind(&input).execute(&mut *tx).await.expect("a broken input");
        let page =
            store::jobs::list(&mut tx, &jobs, &JobFilter::default(), PageRequest::default()).await.expect("jobs");
        let says =
            |job: &coderdb::model::Job| job.input.error.as_deref().is_some_and(|e| e.starts_with("decode input"));
        for row in page.rows {
            assert_eq!(says(&row.job), row.job.id == JobId(u(120)), "{input:.60}: {:?}", row.job);
        }
        let taken = store::jobs::acquire(&mut tx, &runs, offer, NOW).await.expect("an answer").expect("the job");
        assert!(says(&taken), "its daemon sees it and fails it");
        tx.rollback().await.expect("nothing stays");
    }
    // A job with tags that no daemon can have waits, is passed over, and is reaped when it is due.
    sqlx::raw_sql(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id,
            tags
         ) SELECT u(121), created_at - interval '1 hour', updated_at, organization_id, initiator_id, provisioner,
            storage_method, type, input, file_id, tags FROM provisioner_jobs WHERE id = u(120)",
    )
    .execute(&mut conn)
    .await
    .expect("an older job");
    for tags in ["null", "[]", "\"scope\"", "5", r#"{"scope": 1}"#, r#"{"scope": null}"#] {
        let mut tx = conn.begin().await.expect("a transaction");
        let sql = "UPDATE provisioner_jobs SET tags = $1::jsonb WHERE id = u(121)";
        sqlx::query(sql).bind(tags).execute(&mut *tx).await.expect("broken tags");
        let taken = store::jobs::acquire(&mut tx, &runs, offer, NOW).await.expect("an answer").expect("another job");
        assert_eq!(taken.id, JobId(u(120)), "{tags}");
        assert_eq!(store::jobs::acquire(&mut tx, &runs, offer, NOW).await.expect("an answer"), None, "{tags}");
        let reaper = ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper");
        let later = NOW + store::jobs::PENDING_AFTER + Duration::from_secs(1);
        let outcome = store::jobs::reap(&mut tx, &reaper, JobId(u(121)), later).await.expect("an answer");
        assert!(matches!(outcome, ReapOutcome::Reaped { stuck: Stuck::Pending, .. }), "{tags}: {outcome:?}");
        tx.rollback().await.expect("nothing stays");
    }
}

#[tokio::test]
async fn pages_over_times_beyond_the_calendar_show_every_job_once() {
    let (_database, mut conn, owner) = world().await;
    sqlx::raw_sql(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id
         ) SELECT u(700 + n::integer), at, moment(), u(1), u(1), 'echo', 'file', 'workspace_build', '{}', u(0)
         FROM unnest('{infinity,infinity,294276-12-31,294276-12-31,10000-01-01,9999-12-31,2026-01-01,0001-01-01,
            0001-01-01 BC,0044-03-15 BC,4713-01-01 BC,4713-01-01 BC,-infinity,-infinity}'::timestamptz[])
            WITH ORDINALITY AS job (at, n)",
    )
    .execute(&mut conn)
    .await
    .expect("jobs of all times");
    let permit = ReadJobs::check(&owner, OrganizationId(u(1))).expect("an owner");
    let filter = JobFilter::default();
    let all = store::jobs::list(&mut conn, &permit, &filter, PageRequest::default()).await.expect("jobs").rows;
    for size in 1..=4 {
        let (mut walked, mut request) = (Vec::new(), PageRequest::first(size));
        loop {
            let page = store::jobs::list(&mut conn, &permit, &filter, request).await.expect("a page");
            walked.extend(page.rows);
            let Some(next) = page.next.filter(|_| walked.len() <= all.len()) else { break };
            request = PageRequest::after(next, size);
        }
        let ids = |rows: &[JobDetails]| rows.iter().map(|row| row.job.id).collect::<Vec<_>>();
        assert_eq!(ids(&walked), ids(&all), "pages of {size}");
    }
}

/// What `docs/operations.md` says of a clock that goes backwards.
#[tokio::test]
async fn a_clock_that_goes_backwards_reaps_nobody_and_makes_no_time_negative() {
    let (_database, mut conn, owner) = world().await;
    let (organization, daemon, job) = (OrganizationId(u(1)), DaemonId(u(104)), JobId(u(101)));
    let actor = Actor::system(System::ProvisionerDaemon);
    let runs = RunJobs::check(&actor, organization, daemon).expect("a daemon");
    let jobs = ReadJobs::check(&owner, organization).expect("an owner");
    let earlier = NOW - Duration::from_hours(24 * 365);

    let acts = ActAsDaemon::check(&actor, daemon, organization).expect("a daemon");
    let outcome = store::daemons::heartbeat(&mut conn, &acts, earlier).await.expect("an answer");
    assert_eq!(outcome, HeartbeatOutcome::Ignored);
    let _ = store::jobs::heartbeat(&mut conn, &runs, job, earlier).await.expect("an answer");
    let found = store::jobs::get(&mut conn, &jobs, job).await.expect("the job").job;
    assert_eq!(found.updated_at, NOW, "the sign of life stays");

    let reaper = ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper");
    assert_eq!(store::jobs::reap_candidates(&mut conn, &reaper, earlier, 100).await.expect("an answer"), []);
    for id in [101, 120] {
        let outcome = store::jobs::reap(&mut conn, &reaper, JobId(u(id)), earlier).await.expect("an answer");
        assert_eq!(outcome, ReapOutcome::Alive);
    }
    let maintains = MaintainDaemons::check(&support::operator()).expect("an operator");
    assert_eq!(store::daemons::delete_old(&mut conn, &maintains, earlier).await.expect("an answer"), 0);

    let line = |created_at, output: &str| NewJobLog {
        created_at,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: String::new(),
        output: output.to_owned(),
    };
    let lines = [line(NOW, "first"), line(earlier, "second")];
    let _ = store::job_logs::append(&mut conn, &runs, job, &lines).await.expect("an answer");
    let reads = ReadJobLogs::check(&owner, organization).expect("an owner");
    let logs = store::job_logs::after(&mut conn, &reads, job, 0).await.expect("the lines");
    assert!(logs.iter().map(|log| log.output.as_str()).eq(["first", "second"]), "lines keep their order");

    let cancels = CancelJobs::check(&support::operator(), organization).expect("an operator");
    let _ = store::jobs::cancel(&mut conn, &cancels, job, None, earlier).await.expect("an answer");
    let ended = store::jobs::complete(&mut conn, &runs, job, earlier, None).await.expect("an answer");
    assert!(matches!(ended, ByWorker::Done(End::Ended(_))), "{ended:?}");
    let tags = Tags::from_iter([("scope", "organization")]);
    let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    let taken = store::jobs::acquire(&mut conn, &runs, offer, earlier).await.expect("an answer").expect("a job");
    assert_eq!((taken.created_at, taken.started_at), (NOW, Some(earlier)));
    let negative: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM provisioner_job_stats
         WHERE least(queued_secs, completion_secs, canceled_secs, init_secs, plan_secs, graph_secs, apply_secs) < 0",
    )
    .fetch_one(&mut conn)
    .await
    .expect("the durations");
    assert_eq!(negative, 0);
    let outlived: (f64, f64) = sqlx::query_as(
        "SELECT completion_secs::float8, canceled_secs::float8 FROM provisioner_job_stats WHERE job_id = u(101)",
    )
    .fetch_one(&mut conn)
    .await
    .expect("the job's durations");
    assert_eq!(outlived, (0.0, 0.0));
}
