//! Calls each operation by its name.

use std::{num::NonZeroU32, time::Duration};

use coderdb::{
    authz::{
        ActAsAgent, ActAsDaemon, Actor, BuildWorkspaces, CancelJobs, CreateWorkspaces, FindJobs, FindPrebuilds,
        FindTemplates, InsertJobs, ListQuota, LoadActors, LockJobs, MaintainDaemons, MaintainPrebuilds, ManageTokens,
        ProvisionerStates, PruneJobs, ReadChatSettings, ReadDaemons, ReadFiles, ReadJobLogs, ReadJobs, ReadLicenses,
        ReadOrganizations, ReadPrebuildsSettings, ReadQueue, ReadQuota, ReadTemplates, ReadUsers, ReadWorkspaces,
        ReapJobs, RunJobs, SignIn, System, TemplateRight, UploadFiles, UseChats, WatchJobs, WriteLicenses,
        WritePrebuildsSettings,
    },
    model::{
        AgentLogLine, Append, ByWorker, CancelOutcome, Capabilities, ChatBinding, ChatId, DaemonFilter, DaemonId,
        DeadlineOutcome, DeleteLicenseOutcome, End, Entity, Failure, FileId, FileOutcome, GroupId, Heartbeat,
        JobFilter, JobId, JobTarget, JobTiming, LicenseId, LogLevel, LogSource, NameOrId, NewBuild, NewDaemon, NewFile,
        NewJob, NewJobLog, NewLicense, NewWorkspace, OrganizationId, PageRequest, PrebuildStatus, PrebuildsSettings,
        PresetId, ProvisionerKeyId, ProvisionerType, ReapOutcome, SessionToken, SetOutcome, ShareBy, Tags, TemplateId,
        TemplateVersionId, TimingStage, UserId, UserRef, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId,
    },
    sqlx::PgConnection,
    store::{self, Error, Result, quota::CommitOutcome},
};
use time::{OffsetDateTime, macros::datetime};

use super::steps::{commit_quota, new_build};
use crate::support::policy::{At, MISSING, NOW, u};

/// Before and after everything in the fixture.
const EPOCH: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const LATER: OffsetDateTime = datetime!(2100-01-01 0:00 UTC);

/// Does it, and counts what came back.
#[expect(clippy::too_many_lines, reason = "one arm per operation")]
pub async fn run(operation: &str, conn: &mut PgConnection, who: &Actor, at: At) -> Result<usize> {
    let organization = OrganizationId(u(at.organization));
    let user = UserId(u(at.user));
    let thing = |kind: u32| u(at.home * 100 + kind);
    let (job, template, workspace) = (JobId(thing(1)), TemplateId(thing(2)), WorkspaceId(thing(3)));
    let (daemon, chat, version) = (DaemonId(thing(4)), ChatId(thing(6)), TemplateVersionId(thing(7)));
    let (build, agent) = (WorkspaceBuildId(thing(8)), WorkspaceAgentId(thing(10)));
    let (provisioners, tags) = ([ProvisionerType::Echo], Tags::from_iter([("a", "b")]));
    let offer = Capabilities { provisioners: &provisioners, tags: &tags };
    let stale = store::jobs::STALE_INTERVAL;
    Ok(match operation {
        "actors::load" => {
            let found = store::actors::load(conn, &LoadActors::check(who)?, user).await?;
            usize::from(found.user_id() == Some(user))
        }
        "agents::append_logs" => {
            let permit = ActAsAgent::check(who, agent)?;
            let line = AgentLogLine { level: LogLevel::Info, output: "a line".to_owned() };
            let outcome = store::agents::append_logs(conn, &permit, &[line.clone(), line], None, NOW).await?;
            usize::from(matches!(outcome, Append::Stored { .. }))
        }
        "agents::in_latest_build" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            store::agents::in_latest_build(conn, &permit, workspace).await?.len()
        }
        "agents::lifecycle" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            usize::from(store::agents::lifecycle(conn, &permit, agent).await?.started_at.is_none())
        }
        "agents::logs_after" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            store::agents::logs_after(conn, &permit, agent, 0).await?.len()
        }
        "agents::update_logs_overflowed" => {
            let permit = ActAsAgent::check(who, agent)?;
            store::agents::update_logs_overflowed(conn, &permit, true).await?;
            1
        }
        "api_keys::create" => {
            let permit = ManageTokens::check(who)?;
            let created = store::api_keys::create(conn, &permit, UserId(u(1)), "another", NOW, NOW).await?;
            usize::from(created.id().len() == SessionToken::ID_LENGTH)
        }
        "api_keys::list" => store::api_keys::list(conn, &ManageTokens::check(who)?, None).await?.len(),
        "api_keys::revoke" => {
            store::api_keys::revoke(conn, &ManageTokens::check(who)?, "abcdefghij").await?;
            1
        }
        "api_keys::session" => {
            let token: SessionToken = "abcdefghij-0123456789012345678901".parse().expect("a token");
            let signed_in = store::api_keys::session(conn, &SignIn::check(who)?, &token, NOW).await?;
            // Where a label or a text of the key is another one, it lets nobody in.
            signed_in.map_or(0, |signed_in| usize::from(signed_in.actor.user_id() == Some(UserId(u(1)))))
        }
        "api_keys::touch" => {
            store::api_keys::touch(conn, &SignIn::check(who)?, "abcdefghij", NOW).await?;
            1
        }
        "builds::by_job" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            usize::from(store::builds::by_job(conn, &permit, job).await?.id == build)
        }
        "builds::by_number" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            usize::from(store::builds::by_number(conn, &permit, workspace, 1).await?.id == build)
        }
        "builds::create" => {
            let new = NewBuild { template_version_id: version, ..new_build(workspace) };
            let permit = BuildWorkspaces::check(who, organization)?;
            usize::from(store::builds::create(conn, &permit, &new, NOW).await? == 2)
        }
        "builds::get" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            usize::from(store::builds::get(conn, &permit, build).await?.workspace_id == workspace)
        }
        "builds::latest" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            usize::from(store::builds::latest(conn, &permit, workspace).await?.is_some_and(|found| found.id == build))
        }
        "builds::options" => {
            let permit = BuildWorkspaces::check(who, organization)?;
            usize::from(store::builds::options(conn, &permit, build).await?.is_empty())
        }
        "builds::state" => {
            let permit = ProvisionerStates::check(who, organization)?;
            usize::from(store::builds::state(conn, &permit, build).await?.is_some_and(|state| state == b"state"))
        }
        "builds::state_of_job" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            usize::from(store::builds::state_of_job(conn, &permit, job).await?.is_some_and(|state| state == b"state"))
        }
        "builds::update_deadline" => {
            let permit = BuildWorkspaces::check(who, organization)?;
            let outcome = store::builds::update_deadline(conn, &permit, build, Some(NOW), None, NOW).await?;
            usize::from(outcome == DeadlineOutcome::Updated)
        }
        "builds::update_state" => {
            let permit = ProvisionerStates::check(who, organization)?;
            store::builds::update_state(conn, &permit, build, b"another", NOW).await?;
            1
        }
        "changes::active" => {
            let active = store::changes::active(conn, &WatchJobs::check(who)?, OrganizationId(u(1)), None).await?;
            active.jobs.map_or(0, |jobs| jobs.len())
        }
        "changes::announce" => {
            store::changes::announce(conn, &WatchJobs::check(who)?, &["a text".to_owned()]).await?;
            1
        }
        "changes::of_jobs" => store::changes::of_jobs(conn, &WatchJobs::check(who)?, &[JobId(u(101))]).await?.len(),
        "chats::bind" => {
            let binding = ChatBinding { workspace_id: Some(workspace), ..ChatBinding::default() };
            let bound = store::chats::bind(conn, &UseChats::check(who)?, chat, binding).await?;
            usize::from(bound.id == chat)
        }
        "chats::bind_build_agent" => {
            let bound = store::chats::bind_build_agent(conn, &UseChats::check(who)?, chat, None, None).await?;
            usize::from(bound.id == chat)
        }
        "chats::get" => usize::from(store::chats::get(conn, &UseChats::check(who)?, chat).await?.id == chat),
        "chats::get_with_lock" => {
            usize::from(store::chats::get_with_lock(conn, &UseChats::check(who)?, chat).await?.id == chat)
        }
        "daemons::delete_old" => {
            let later = NOW + Duration::from_hours(30 * 24);
            let deleted = store::daemons::delete_old(conn, &MaintainDaemons::check(who)?, later).await?;
            usize::from(deleted == 3)
        }
        "daemons::eligible" => {
            store::daemons::eligible(conn, &ReadDaemons::check(who, organization)?, &[job]).await?.len()
        }
        "daemons::heartbeat" => {
            let permit = ActAsDaemon::check(who, daemon, organization)?;
            let outcome = store::daemons::heartbeat(conn, &permit, NOW).await?;
            usize::from(outcome == coderdb::model::HeartbeatOutcome::Recorded)
        }
        "daemons::list" => {
            let permit = ReadDaemons::check(who, organization)?;
            store::daemons::list(conn, &permit, &DaemonFilter::default(), NOW, stale).await?.len()
        }
        "daemons::upsert" => {
            let new = NewDaemon {
                created_at: NOW,
                name: format!("daemon-{}", at.home),
                provisioners: vec![ProvisionerType::Echo],
                replica_id: None,
                tags: Tags::default(),
                last_seen_at: Some(NOW),
                version: String::new(),
                api_version: "1.0".to_owned(),
                key_id: ProvisionerKeyId(u(105)),
            };
            let stored = store::daemons::upsert(conn, &ActAsDaemon::check(who, daemon, organization)?, &new).await;
            match stored {
                // Not a leak: only a daemon may ask, and it may act as every daemon.
                Err(Error::Conflict { .. }) => {
                    return Err(Error::NotFound { entity: Entity::Daemon, key: daemon.to_string() });
                }
                stored => usize::from(stored?.organization_id == organization),
            }
        }
        "files::get" => {
            let id = FileId(thing(12));
            usize::from(store::files::get(conn, &ReadFiles::check(who)?, id).await?.id == id)
        }
        "files::insert" => {
            let permit = UploadFiles::check(who)?;
            let file = NewFile { id: FileId(u(5001)), mimetype: "text/plain".to_owned(), data: b"new".to_vec() };
            usize::from(store::files::insert(conn, &permit, &file, NOW).await? == FileOutcome::Stored)
        }
        "files::of_job" => {
            let file = store::files::of_job(conn, &RunJobs::check(who, organization, daemon)?, job).await?;
            usize::from(file.id == FileId(thing(12)))
        }
        "job_logs::after" => store::job_logs::after(conn, &ReadJobLogs::check(who, organization)?, job, 0).await?.len(),
        "job_logs::append" => {
            let line = NewJobLog {
                created_at: NOW,
                source: LogSource::Provisioner,
                level: LogLevel::Info,
                stage: String::new(),
                output: "a line".to_owned(),
            };
            let permit = RunJobs::check(who, organization, daemon)?;
            let outcome = store::job_logs::append(conn, &permit, job, &[line.clone(), line]).await?;
            usize::from(matches!(outcome, ByWorker::Done(Append::Stored { .. })))
        }
        "job_timings::insert" => {
            let timing = JobTiming {
                started_at: NOW,
                ended_at: NOW,
                stage: TimingStage::Apply,
                source: String::new(),
                action: String::new(),
                resource: String::new(),
            };
            let permit = RunJobs::check(who, organization, daemon)?;
            let timings = [timing.clone(), timing];
            usize::from(store::job_timings::insert(conn, &permit, job, &timings).await? == ByWorker::Done(2))
        }
        "job_timings::list" => {
            store::job_timings::list(conn, &ReadJobLogs::check(who, organization)?, job).await?.len()
        }
        "jobs::acquire" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            usize::from(store::jobs::acquire(conn, &permit, offer, NOW).await?.is_some_and(|taken| taken.id == job))
        }
        "jobs::acquire_batch" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            store::jobs::acquire_batch(conn, &permit, offer, NOW, 10).await?.len()
        }
        "jobs::by_ids" => store::jobs::by_ids(conn, &ReadJobs::check(who, organization)?, &[job]).await?.len(),
        "jobs::by_ids_with_queue_position" => {
            let permit = ReadJobs::check(who, organization)?;
            store::jobs::by_ids_with_queue_position(conn, &permit, &[job], NOW, stale).await?.len()
        }
        "jobs::cancel" => {
            let outcome = store::jobs::cancel(conn, &CancelJobs::check(who, organization)?, job, None, NOW).await?;
            usize::from(matches!(outcome, CancelOutcome::Canceled(canceled) if canceled.id == job))
        }
        "jobs::cancel_batch" | "jobs::would_cancel_batch" => {
            let permit = CancelJobs::check(who, organization)?;
            let outcomes = match operation {
                "jobs::cancel_batch" => store::jobs::cancel_batch(conn, &permit, &[job], None, NOW).await?,
                _ => store::jobs::would_cancel_batch(conn, &permit, &[job], None).await?,
            };
            // Left out is what a cancel of one does not find.
            let missing = || Error::NotFound { entity: Entity::Job, key: job.to_string() };
            usize::from(matches!(outcomes.get(&job).ok_or_else(missing)?, CancelOutcome::Canceled(_)))
        }
        "jobs::complete" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            let outcome = store::jobs::complete(conn, &permit, job, NOW, None).await?;
            usize::from(matches!(outcome, ByWorker::Done(End::Ended(ended)) if ended.job.id == job))
        }
        "jobs::count_by_tags" => {
            let permit = ReadJobs::check(who, organization)?;
            let counts = store::jobs::count_by_tags(conn, &permit, &JobFilter::default()).await?;
            counts.iter().map(|tags| usize::try_from(tags.jobs).expect("few")).sum()
        }
        "jobs::created_after" => {
            let permit = ReadJobs::check(who, organization)?;
            store::jobs::created_after(conn, &permit, NOW - Duration::from_secs(1)).await?.len()
        }
        "jobs::fail" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            let outcome =
                store::jobs::fail(conn, &permit, job, NOW, Failure { error: "an error", ..Failure::default() }).await?;
            usize::from(matches!(outcome, ByWorker::Done(End::Ended(ended)) if ended.job.id == job))
        }
        "jobs::fail_insufficient_quota" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            // The rejected commit is that of the job's own daemon, whoever fails the job.
            let worker = Actor::system(System::ProvisionerDaemon);
            let commit = RunJobs::check(&worker, OrganizationId(u(at.home)), daemon)?;
            let committed = commit_quota(conn, &commit, job, 1_000_000).await?;
            let rejected = match committed {
                CommitOutcome::Rejected(rejected) => rejected,
                // Asked again, after the job has failed.
                CommitOutcome::JobEnded => return Ok(0),
                accepted @ CommitOutcome::Accepted(_) => panic!("{accepted:?} is beyond the budget"),
            };
            let outcome = store::jobs::fail_insufficient_quota(conn, &permit, &rejected, NOW).await?;
            usize::from(matches!(outcome, ByWorker::Done(End::Ended(ended)) if ended.job.id == job))
        }
        "jobs::find_of_build" => {
            usize::from(store::jobs::find_of_build(conn, &FindJobs::check(who), build).await?.id == job)
        }
        "jobs::find_of_dry_run" => {
            usize::from(store::jobs::find_of_dry_run(conn, &FindJobs::check(who), version, job).await?.id == job)
        }
        "jobs::find_of_version" => {
            usize::from(store::jobs::find_of_version(conn, &FindJobs::check(who), version).await?.id == job)
        }
        "jobs::get" => {
            let found = store::jobs::get(conn, &ReadJobs::check(who, organization)?, job).await?;
            usize::from(found.job.organization_id == organization)
        }
        "jobs::get_for_update_skip_locked" => {
            let permit = LockJobs::check(who, organization)?;
            usize::from(store::jobs::get_for_update_skip_locked(conn, &permit, job).await?.is_some())
        }
        "jobs::get_with_lock" => {
            let permit = LockJobs::check(who, organization)?;
            usize::from(store::jobs::get_with_lock(conn, &permit, job).await?.organization_id == organization)
        }
        "jobs::insert" => {
            let new = NewJob {
                id: JobId(u(5001)),
                created_at: NOW,
                options: serde_json::Map::new(),
                tags: Tags::default(),
                trace_metadata: None,
            };
            let permit = InsertJobs::check(who, organization, JobTarget::DryRun(version))?;
            usize::from(Some(store::jobs::insert(conn, &permit, new).await?.initiator_id) == who.user_id())
        }
        "jobs::ids" => {
            let permit = ReadJobs::check(who, organization)?;
            store::jobs::ids(conn, &permit, &JobFilter::default(), PageRequest::default()).await?.rows.len()
        }
        "jobs::list" => {
            let permit = ReadJobs::check(who, organization)?;
            store::jobs::list(conn, &permit, &JobFilter::default(), PageRequest::default()).await?.rows.len()
        }
        "job_logs::prune" => {
            let permit = PruneJobs::check(who, organization)?;
            usize::try_from(store::job_logs::prune(conn, &permit, &[job], 10).await?.0).expect("few lines")
        }
        "jobs::prune" => {
            let permit = PruneJobs::check(who, organization)?;
            let old = store::jobs::prune(conn, &permit, (EPOCH, JobId(u(0))), (LATER, JobId(u(0))), LATER).await?;
            old.iter().filter(|job| job.is_deletable).count()
        }
        "jobs::prune_candidates" => {
            let permit = PruneJobs::check(who, organization)?;
            let old = store::jobs::prune_candidates(conn, &permit, (EPOCH, JobId(u(0))), 10, LATER, false).await?;
            old.iter().filter(|job| job.is_deletable).count()
        }
        "jobs::dead_rows" => {
            let permit = PruneJobs::check(who, OrganizationId(u(1)))?;
            usize::from(store::jobs::dead_rows(conn, &permit).await?.is_none())
        }
        "jobs::reap" => {
            let later = NOW + Duration::from_hours(1);
            let outcome = store::jobs::reap(conn, &ReapJobs::check(who)?, JobId(u(101)), later).await?;
            usize::from(matches!(outcome, ReapOutcome::Reaped { .. }))
        }
        "jobs::reap_candidates" => {
            let later = NOW + Duration::from_hours(1);
            let stuck = store::jobs::reap_candidates(conn, &ReapJobs::check(who)?, later, 10).await?;
            usize::from(stuck.len() == 3)
        }
        "jobs::heartbeat" => {
            let permit = RunJobs::check(who, organization, daemon)?;
            let outcome = store::jobs::heartbeat(conn, &permit, job, NOW).await?;
            usize::from(outcome == ByWorker::Done(Heartbeat { cancel_requested: false }))
        }
        "licenses::delete" => {
            let outcome = store::licenses::delete(conn, &WriteLicenses::check(who)?, LicenseId(1)).await?;
            usize::from(outcome == DeleteLicenseOutcome::Deleted)
        }
        "licenses::get" => {
            usize::from(store::licenses::get(conn, &ReadLicenses::check(who)?, LicenseId(1)).await?.id == LicenseId(1))
        }
        "licenses::insert" => {
            let jwt = "another".to_owned().into();
            let new = NewLicense { uploaded_at: NOW, jwt, expires_at: NOW, uuid: u(2) };
            usize::from(store::licenses::insert(conn, &WriteLicenses::check(who)?, &new).await?.uuid == u(2))
        }
        "licenses::list" => store::licenses::list(conn, &ReadLicenses::check(who)?).await?.len(),
        "licenses::refresh" => {
            store::licenses::refresh(conn, &WriteLicenses::check(who)?).await?;
            1
        }
        "licenses::unexpired" => {
            let before = NOW - Duration::from_secs(1);
            store::licenses::unexpired(conn, &ReadLicenses::check(who)?, before).await?.len()
        }
        "organizations::by_name" => {
            let name = format!("organization-{}", at.organization);
            let found = store::organizations::by_name(conn, &ReadOrganizations::check(who), &name).await?;
            usize::from(found.id == organization)
        }
        "organizations::default" => {
            let found = store::organizations::default(conn, &ReadOrganizations::check(who)).await?;
            usize::from(found.id == organization)
        }
        "organizations::get" => {
            let found = store::organizations::get(conn, &ReadOrganizations::check(who), organization).await?;
            usize::from(found.id == organization)
        }
        "organizations::list" => {
            let all = store::organizations::list(conn, &ReadOrganizations::check(who)).await?;
            let key = organization.to_string();
            let found = all.iter().find(|found| found.id == organization);
            found.map(|_| 1).ok_or(Error::NotFound { entity: Entity::Organization, key })?
        }
        "organizations::resolve" => {
            let wanted = NameOrId::Id(organization);
            let found = store::organizations::resolve(conn, &ReadOrganizations::check(who), &wanted).await?;
            usize::from(found.id == organization)
        }
        "prebuilds::at_failure_limit" => {
            let permit = MaintainPrebuilds::check(who, organization)?;
            store::prebuilds::at_failure_limit(conn, &permit, NonZeroU32::MIN).await?.len()
        }
        "prebuilds::backoff" => {
            let permit = MaintainPrebuilds::check(who, organization)?;
            store::prebuilds::backoff(conn, &permit, NOW, stale).await?.len()
        }
        "prebuilds::cancel_stale_pending" => {
            let (permit, preset) = (MaintainPrebuilds::check(who, organization)?, PresetId(thing(11)));
            let ids = [(WorkspaceBuildId(u(5001)), JobId(u(5002)))];
            store::prebuilds::cancel_stale_pending(conn, &permit, preset, &ids, NOW, stale).await?.len()
        }
        "prebuilds::count_in_progress" => {
            store::prebuilds::count_in_progress(conn, &MaintainPrebuilds::check(who, organization)?).await?.len()
        }
        "prebuilds::count_stale_pending" => {
            store::prebuilds::count_stale_pending(conn, &MaintainPrebuilds::check(who, organization)?).await?.len()
        }
        "prebuilds::ensure_organization" => {
            let permit = MaintainPrebuilds::check(who, organization)?;
            let outcome = store::prebuilds::ensure_organization(conn, &permit, GroupId(u(5001)), NOW).await?;
            usize::from(outcome == SetOutcome::Changed)
        }
        "prebuilds::metrics" => {
            store::prebuilds::metrics(conn, &MaintainPrebuilds::check(who, organization)?).await?.len()
        }
        "prebuilds::organizations" => {
            // The one that is deleted is not among them.
            let found = store::prebuilds::organizations(conn, &FindPrebuilds::check(who)?).await?;
            usize::from(found.len() == 2)
        }
        "prebuilds::presets" => {
            store::prebuilds::presets(conn, &MaintainPrebuilds::check(who, organization)?, None).await?.len()
        }
        "prebuilds::running" => {
            store::prebuilds::running(conn, &MaintainPrebuilds::check(who, organization)?).await?.len()
        }
        "prebuilds::status" => {
            let permit = MaintainPrebuilds::check(who, organization)?;
            store::prebuilds::status(conn, &permit, NOW, stale).await?.len()
        }
        "prebuilds::set_status" => {
            let (permit, preset) = (MaintainPrebuilds::check(who, organization)?, PresetId(thing(11)));
            let outcome = store::prebuilds::set_status(conn, &permit, preset, PrebuildStatus::HardLimited).await?;
            usize::from(outcome == SetOutcome::Changed)
        }
        "queue::history" => {
            store::queue::history(conn, &ReadJobs::check(who, organization)?, NOW, stale, 100).await?.samples()
        }
        "queue::shares" => {
            store::queue::shares(conn, &ReadJobs::check(who, organization)?, ShareBy::Tags, NOW, stale).await?.len()
        }
        "queue::snapshot" => {
            let whole = store::queue::snapshot(conn, &ReadQueue::check(who)?, NOW, stale).await?;
            usize::from(whole.everywhere().why(JobId(u(101))).is_some())
        }
        "quota::by_group" => store::quota::by_group(conn, &ListQuota::check(who, organization)?).await?.len(),
        "quota::by_template" => store::quota::by_template(conn, &ListQuota::check(who, organization)?).await?.len(),
        "quota::check" => {
            let permit = ListQuota::check(who, organization)?;
            usize::from(store::quota::check(conn, &permit, user, template, None).await?.samples == 0)
        }
        "quota::commit" => {
            let outcome = commit_quota(conn, &RunJobs::check(who, organization, daemon)?, job, 0).await?;
            usize::from(matches!(outcome, CommitOutcome::Accepted(_)))
        }
        "quota::explain" => {
            let explanation = store::quota::explain(conn, &ReadQuota::check(who, user, organization)?).await?;
            usize::from(explanation.quota.credits_consumed >= 0)
        }
        "quota::list" => {
            let members =
                store::quota::list(conn, &ListQuota::check(who, organization)?, PageRequest::first(100)).await?;
            // The others are there to ask.
            members.rows.iter().filter(|member| member.id.0 == u(at.organization)).count()
        }
        "quota::usage" => {
            let quota = store::quota::usage(conn, &ReadQuota::check(who, user, organization)?).await?;
            // In the fixture, user n owns in organization n what costs n.
            let consumed = if at.user == at.organization && at.user != MISSING { at.user } else { 0 };
            usize::from(quota.credits_consumed == i64::from(consumed))
        }
        "settings::chat_workspace_ttl" => {
            let ttl = store::settings::chat_workspace_ttl(conn, &ReadChatSettings::check(who)?).await?;
            usize::from(ttl == "8h")
        }
        "settings::deployment_id" => {
            let id = store::settings::deployment_id(conn, &ReadLicenses::check(who)?).await?;
            usize::from(id.as_deref() == Some("deployment"))
        }
        "settings::prebuilds" => {
            let settings = store::settings::prebuilds(conn, &ReadPrebuildsSettings::check(who)?).await?;
            usize::from(settings.reconciliation_paused)
        }
        "settings::set_prebuilds" => {
            let (permit, running) = (WritePrebuildsSettings::check(who)?, PrebuildsSettings::default());
            let outcome = store::settings::set_prebuilds(conn, &permit, running).await?;
            usize::from(outcome == SetOutcome::Changed)
        }
        "templates::by_name" => {
            let (permit, name) =
                (ReadTemplates::check(who, organization, TemplateRight::Read)?, format!("template-{}", at.home));
            usize::from(store::templates::by_name(conn, &permit, &name).await?.id == template)
        }
        "templates::find" => {
            let found = store::templates::find(conn, &FindTemplates::check(who, TemplateRight::Read), template).await?;
            usize::from(found.template.organization_id == organization)
        }
        "templates::get" => {
            let permit = ReadTemplates::check(who, organization, TemplateRight::Read)?;
            usize::from(store::templates::get(conn, &permit, template).await?.id == template)
        }
        "templates::resolve" => {
            let permit = ReadTemplates::check(who, organization, TemplateRight::Read)?;
            usize::from(store::templates::resolve(conn, &permit, &NameOrId::Id(template)).await?.id == template)
        }
        "templates::version" => {
            let permit = ReadTemplates::check(who, organization, TemplateRight::Read)?;
            usize::from(store::templates::version(conn, &permit, template, version).await?.id == version)
        }
        "users::by_username" => {
            let name = format!("user-{}", at.user);
            usize::from(store::users::by_username(conn, &ReadUsers::check(who)?, &name).await?.id == user)
        }
        "users::get" => usize::from(store::users::get(conn, &ReadUsers::check(who)?, user).await?.id == user),
        "users::resolve" => {
            let found = store::users::resolve(conn, &ReadUsers::check(who)?, &UserRef::Id(user), None).await?;
            usize::from(found.id == user)
        }
        "workspaces::by_name" => {
            let (permit, name) = (ReadWorkspaces::check(who, organization)?, format!("workspace-{}", at.home));
            store::workspaces::by_name(conn, &permit, &name).await?.len()
        }
        "workspaces::create" => {
            let permit = CreateWorkspaces::check(who, user, organization)?;
            let name = "another".parse()?;
            let id = WorkspaceId(u(5001));
            let new = NewWorkspace { id, name, template_id: template, autostart_schedule: None, ttl: None };
            store::workspaces::create(conn, &permit, &new, NOW).await?;
            let everybody = ReadWorkspaces::check(&Actor::system(System::Operator), organization)?;
            usize::from(store::workspaces::get(conn, &everybody, id).await?.owner_id == user)
        }
        "workspaces::get" => {
            let permit = ReadWorkspaces::check(who, organization)?;
            usize::from(store::workspaces::get(conn, &permit, workspace).await?.id == workspace)
        }
        "workspaces::get_with_lock" => {
            let permit = BuildWorkspaces::check(who, organization)?;
            usize::from(store::workspaces::get_with_lock(conn, &permit, workspace).await?.id == workspace)
        }
        other => panic!("{other} is in POLICY, but no arm of `run` in tests/it/support/operations/run.rs calls it"),
    })
}
