//! Calls each operation with one bad argument.

use std::num::NonZeroU32;

use coderdb::{
    authz::{
        ActAsAgent, ActAsDaemon, Actor, BuildWorkspaces, CancelJobs, CreateWorkspaces, InsertJobs, ListQuota,
        MaintainDaemons, MaintainPrebuilds, ManageTokens, ProvisionerStates, PruneJobs, ReadDaemons, ReadJobLogs,
        ReadJobs, ReadLicenses, ReadOrganizations, ReadQueue, ReadTemplates, ReadUsers, ReadWorkspaces, ReapJobs,
        RunJobs, SignIn, System, TemplateRight, UploadFiles, WatchJobs, WriteLicenses,
    },
    model::{
        AgentLogLine, BuildReason, Capabilities, Cursor, DaemonFilter, DaemonId, Exclude, Failure, FileId, GroupId,
        JobFilter, JobId, JobTarget, JobTiming, LicenseId, LogLevel, LogSource, NameOrId, NewBuild, NewDaemon, NewFile,
        NewJob, NewJobLog, NewLicense, NewWorkspace, OrganizationId, PageRequest, PresetId, ProvisionerKeyId,
        ProvisionerType, QuotaCursor, SessionToken, ShareBy, Tags, TemplateId, TemplateVersionId, TimingStage,
        Transition, UserId, UserRef, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId, WorkspaceName,
    },
    sqlx::{self, Connection, PgConnection},
    store::{self, Error, Result, quota::CommitOutcome},
};
use serde_json::Map;

use super::table::{Bad, Entry, bad, entries};
use super::{NOW, read_all, u, world};
use crate::support::{self, source::files};

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
        "job_logs::prune" => {
            let permit = PruneJobs::check(owner, organization)?;
            store::job_logs::prune(conn, &permit, &[job], bad.number()).await.map(drop)
        }
        "jobs::prune" | "jobs::prune_candidates" => {
            let permit = PruneJobs::check(owner, organization)?;
            let (after, before) = ((time("after"), JobId(u(1))), time("before"));
            let until = (time("until"), JobId(u(1)));
            let limit = if is("limit") { bad.number() } else { 10 };
            match entry.operation {
                "jobs::prune" => store::jobs::prune(conn, &permit, after, until, before).await.map(drop),
                _ => store::jobs::prune_candidates(conn, &permit, after, limit, before, false).await.map(drop),
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
        "prebuilds::status" => {
            let permit = MaintainPrebuilds::check(&operator, organization)?;
            store::prebuilds::status(conn, &permit, time("now"), span("lookback")).await.map(drop)
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
        "queue::history" => {
            let limit = if is("limit") { bad.number() } else { 10 };
            let permit = ReadJobs::check(owner, organization)?;
            store::queue::history(conn, &permit, time("now"), span("window"), limit).await.map(drop)
        }
        "queue::shares" => {
            let permit = ReadJobs::check(owner, organization)?;
            store::queue::shares(conn, &permit, ShareBy::Tags, time("now"), span("window")).await.map(drop)
        }
        "queue::snapshot" => {
            let permit = ReadQueue::check(&Actor::system(System::Watcher))?;
            store::queue::snapshot(conn, &permit, time("now"), span("stale_interval")).await.map(drop)
        }
        "quota::check" => {
            let permit = ListQuota::check(owner, organization)?;
            store::quota::check(conn, &permit, UserId(u(1)), template, Some(&bad.text())).await.map(drop)
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
        other => panic!("{other} is in ENTRIES, but no arm of `call` in tests/it/rules/bad_input/call.rs calls it"),
    }
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
            ["Option", "Vec", "bool", "a", "FailureCode", "RejectedCommit", "SessionToken", "ShareBy", "Uuid"].contains(word)
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
    assert!(missing.is_empty(), "ENTRIES in tests/it/rules/bad_input/table.rs lacks:\n{}", missing.join("\n"));
    assert_eq!(needed, listed.len(), "ENTRIES has lines for arguments that are not there");
}
