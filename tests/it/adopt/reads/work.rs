//! What is done: jobs with their logs, daemons, changes, and prebuilt workspaces.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use coderdb::{
    authz::{
        Actor, FindPrebuilds, LockJobs, MaintainPrebuilds, ReadDaemons, ReadJobLogs, ReapJobs, RunJobs, System,
        WatchJobs,
    },
    model::{
        DaemonDetails, DaemonFilter, DaemonId, DaemonJob, DaemonStatus, EligibleDaemon, JobFilter, JobId, JobLog,
        JobState, JobTiming, Label, OrganizationId, PrebuildBackoff, PrebuildMetrics, PrebuildOrganization,
        PrebuildPreset, PrebuildsInProgress, PresetId, RunningPrebuild, StalePrebuilds, Stuck, Tags, TemplateId,
    },
    sqlx::PgConnection,
    store,
};
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    things::{file, found, state},
    world::{Row, World, daemon, status},
};
use crate::{
    listing::expected_job,
    model::{JobRow, PREBUILDS, jsonb_equal, tagset_contains},
    random_database::{NOW, STALE, one},
    support::{self, read_jobs},
};

pub(super) async fn compare(conn: &mut PgConnection, world: &World<'_>, people: &[Actor], rng: &mut Rng) {
    let operator = support::operator();
    for home in world.ids("organizations") {
        jobs(conn, world, home).await;
        for who in people.iter().chain([&operator]) {
            if let Ok(permit) = ReadJobLogs::check(who, OrganizationId(home)) {
                logs(conn, world, &permit).await;
            }
        }
        taken(conn, world, home).await;
        daemons(conn, world, home, rng).await;
        active(conn, world, home).await;
        prebuilds(conn, world, home).await;
        failures(conn, world, home).await;
    }
    silent(conn, world).await;
    states(conn, world).await;
    organizations(conn, world).await;
}

async fn jobs(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let permit = read_jobs(home);
    let here: Vec<&JobRow> = world.jobs().iter().filter(|job| job.organization_id == home).collect();
    let ids: Vec<_> = world.jobs().iter().map(|job| JobId(job.id)).collect();
    let mut actual = store::jobs::by_ids(conn, &permit, &ids).await.expect("jobs");
    actual.sort_by_key(|job| job.id);
    let mut expected = here.clone();
    expected.sort_by_key(|job| job.id);
    let same = |actual: &[coderdb::model::Job], expected: &[&JobRow]| {
        let expected: Vec<_> = expected.iter().zip(actual).map(|(row, job)| expected_job(row, &job.input)).collect();
        assert_eq!(actual, expected);
    };
    assert_eq!(actual.len(), expected.len());
    same(&actual, &expected);
    for after in here.iter().map(|job| job.created_at) {
        let mut expected: Vec<_> = here.iter().filter(|job| job.created_at > after).copied().collect();
        expected.sort_by_key(|job| (job.created_at, job.id));
        let actual = store::jobs::created_after(conn, &permit, after).await.expect("jobs");
        assert_eq!(actual.len(), expected.len());
        same(&actual, &expected);
    }
    let lock = LockJobs::check(&support::operator(), OrganizationId(home)).expect("a permit");
    for row in world.jobs() {
        let is_here = row.organization_id == home;
        let locked = found(store::jobs::get_with_lock(conn, &lock, JobId(row.id)).await);
        let free =
            store::jobs::get_for_update_skip_locked(conn, &lock, JobId(row.id)).await.expect("nobody else has it");
        assert_eq!((locked.is_some(), free.is_some()), (is_here, is_here));
        for job in [locked, free].into_iter().flatten() {
            same(&[job], &[row]);
        }
    }

    let mut groups: Vec<(&Value, &str, Vec<&JobRow>)> = Vec::new();
    for job in here {
        match groups.iter_mut().find(|(tags, by, _)| jsonb_equal(tags, &job.tags) && **by == job.provisioner) {
            Some((_, _, jobs)) => jobs.push(job),
            None => groups.push((&job.tags, &job.provisioner, vec![job])),
        }
    }
    // Of tags that are equal and written in two ways, either may be shown.
    let mut expected: Vec<_> = groups
        .iter()
        .map(|(tags, provisioner, jobs)| {
            let prebuilds = jobs.iter().filter(|job| job.initiator_id == PREBUILDS).count();
            let oldest = jobs.iter().map(|job| job.created_at).min().expect("a job");
            let keys = tags.as_object().map(|tags| tags.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
            (Reverse(jobs.len()), prebuilds, oldest, (*provisioner).to_owned(), keys)
        })
        .collect();
    let actual = store::jobs::count_by_tags(conn, &permit, &JobFilter::default()).await.expect("counts");
    assert!(actual.is_sorted_by_key(|count| Reverse(count.jobs)));
    let size = |count: i64| usize::try_from(count).expect("a count");
    let mut actual: Vec<_> = actual
        .into_iter()
        .map(|count| {
            let keys = count.tags.0.into_keys().collect();
            (
                Reverse(size(count.jobs)),
                size(count.prebuilds),
                count.oldest,
                count.provisioner.as_str().to_owned(),
                keys,
            )
        })
        .collect();
    (expected.sort(), actual.sort());
    assert_eq!(actual, expected);
}

async fn logs(conn: &mut PgConnection, world: &World<'_>, permit: &ReadJobLogs) {
    for job in world.jobs() {
        let build = world.all("workspace_builds").find(|build| build.id("job_id") == job.id);
        let workspace = build.and_then(|build| world.workspace(build.id("workspace_id"), job.organization_id, None));
        let is_theirs = |owner: Uuid| {
            workspace.is_some_and(|workspace| workspace.id("owner_id") == owner)
                || job.job_type == "template_version_dry_run" && job.initiator_id == owner
                || job.job_type == "template_version_import" && permit.imports()
        };
        let is_there =
            job.organization_id == permit.organization().0 && permit.owner().is_none_or(|owner| is_theirs(owner.0));
        world.note("somebody reads the logs of one's own job", is_there && permit.owner().is_some());
        world.note("somebody reads no logs of others", !is_there && job.organization_id == permit.organization().0);
        let lines = world.all("provisioner_job_logs").filter(|line| line.id("job_id") == job.id);
        let mut lines: Vec<_> = lines
            .map(|line| JobLog {
                id: line.int("id"),
                created_at: line.at("created_at"),
                source: line.label("source"),
                level: line.label("level"),
                stage: line.text("stage"),
                output: line.text("output"),
            })
            .collect();
        lines.sort_by_key(|line| line.id);
        for after in lines.iter().map(|line| line.id).chain([0]).collect::<Vec<_>>() {
            let later: Vec<_> = lines.iter().filter(|line| line.id > after).cloned().collect();
            let actual = found(store::job_logs::after(conn, permit, JobId(job.id), after).await);
            assert_eq!(actual, is_there.then_some(later), "{permit:?} {job:?}");
        }
        let timings = world.all("provisioner_job_timings").filter(|row| row.id("job_id") == job.id);
        let mut timings: Vec<_> = timings
            .map(|row| JobTiming {
                started_at: row.at("started_at"),
                ended_at: row.at("ended_at"),
                stage: row.label("stage"),
                source: row.text("source"),
                action: row.text("action"),
                resource: row.text("resource"),
            })
            .collect();
        let mut actual = found(store::job_timings::list(conn, permit, JobId(job.id)).await);
        assert!(actual.iter().all(|actual| actual.is_sorted_by_key(|timing| (timing.started_at, timing.ended_at))));
        timings.sort_by(|a, b| a.resource.cmp(&b.resource));
        actual.iter_mut().for_each(|actual| actual.sort_by(|a, b| a.resource.cmp(&b.resource)));
        assert_eq!(actual, is_there.then_some(timings), "{permit:?} {job:?}");
    }
}

/// What only the daemon reads that carries out a job.
async fn taken(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let daemons: BTreeSet<Uuid> =
        world.jobs().iter().filter_map(|job| job.worker_id).chain(world.ids("provisioner_daemons")).collect();
    for worker in daemons {
        let who = Actor::system(System::ProvisionerDaemon);
        let permit = RunJobs::check(&who, OrganizationId(home), DaemonId(worker)).expect("a permit");
        for job in world.jobs() {
            let is_theirs = job.organization_id == home && job.worker_id == Some(worker) && job.completed_at.is_none();
            let source = world.find("files", job.file_id).filter(|_| is_theirs).map(file);
            world.note("a daemon reads the source of its job", source.is_some());
            assert_eq!(found(store::files::of_job(conn, &permit, JobId(job.id)).await), source);
            let build = world.all("workspace_builds").find(|build| is_theirs && build.id("job_id") == job.id);
            world.note("a daemon reads the state before its build", build.is_some_and(|build| state(build).is_some()));
            assert_eq!(found(store::builds::state_of_job(conn, &permit, JobId(job.id)).await), build.map(state));
        }
    }
}

async fn daemons(conn: &mut PgConnection, world: &World<'_>, home: Uuid, rng: &mut Rng) {
    let permit = ReadDaemons::check(&support::operator(), OrganizationId(home)).expect("a permit");
    let listed = world.model.organization(home);
    let job_of = |job: Option<&JobRow>| {
        job.map(|job| {
            let shown = listed.iter().find(|listed| listed.job.id == job.id).expect("it is of the organization");
            DaemonJob {
                id: JobId(job.id),
                status: status(job.status()),
                template_name: shown.template_name.clone(),
                template_display_name: shown.template_display_name.clone(),
                template_icon: shown.template_icon.clone(),
            }
        })
    };
    let mut here: Vec<&Row> =
        world.all("provisioner_daemons").filter(|row| row.id("organization_id") == home).collect();
    here.sort_by_key(|row| Reverse((row.at("created_at"), row.id("id"))));
    let details = |row: &Row| {
        let jobs =
            || world.jobs().iter().filter(|job| job.worker_id == Some(row.id("id")) && job.organization_id == home);
        let current = jobs().filter(|job| job.completed_at.is_none()).max_by_key(|job| (job.started_at, job.id));
        let previous = jobs().filter(|job| job.completed_at.is_some()).max_by_key(|job| (job.completed_at, job.id));
        DaemonDetails {
            daemon: daemon(row),
            status: match (row.at_or("last_seen_at"), current) {
                (Some(at), Some(_)) if at >= NOW - STALE => DaemonStatus::Busy,
                (Some(at), None) if at >= NOW - STALE => DaemonStatus::Idle,
                _ => DaemonStatus::Offline,
            },
            key_name: world.find("provisioner_keys", row.id("key_id")).expect("its key").text("name"),
            current_job: job_of(current),
            previous_job: job_of(previous),
        }
    };
    let own = |row: &Row| row.get("tags").cloned().unwrap_or_default();
    let usual = || [("scope".to_owned(), "organization".to_owned()), ("owner".to_owned(), String::new())];
    let pair = one(rng, &[("env", "on-prem"), ("owner", ""), ("n", "1")]);
    let pair = (pair.0.to_owned(), pair.1.to_owned());
    let ids: Vec<_> = here.iter().filter(|_| rng.bool()).map(|row| DaemonId(row.id("id"))).collect();
    let filters = [
        DaemonFilter::default(),
        DaemonFilter { ids, ..DaemonFilter::default() },
        DaemonFilter { limit: Some(rng.u32(0..3)), ..DaemonFilter::default() },
        DaemonFilter { tags: Some(Tags::from_iter(usual())), ..DaemonFilter::default() },
        DaemonFilter { tags: Some(Tags::from_iter([pair.clone()])), ..DaemonFilter::default() },
        DaemonFilter { has_tags: vec![pair], ..DaemonFilter::default() },
    ];
    for filter in filters {
        let value = |tags: &Tags| serde_json::to_value(&tags.0).expect("JSON");
        let kept = here.iter().filter(|row| {
            (filter.ids.is_empty() || filter.ids.contains(&DaemonId(row.id("id"))))
                && filter.tags.as_ref().is_none_or(|tags| tagset_contains(&own(row), &value(tags)))
                && filter.has_tags.iter().all(|(key, text)| tagset_contains(&own(row), &json!({ key: text })))
        });
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let expected: Vec<_> = kept.map(|row| details(row)).take(limit).collect();
        let is = |status| expected.iter().any(|details: &DaemonDetails| details.status == status);
        world.note("a daemon is busy", is(DaemonStatus::Busy));
        world.note("a daemon is idle", is(DaemonStatus::Idle));
        let shows = |job: &Option<DaemonJob>| job.as_ref().is_some_and(|job| !job.template_name.is_empty());
        world
            .note("a daemon shows the template of its job", expected.iter().any(|details| shows(&details.current_job)));
        world.note(
            "a daemon shows the template of the job before",
            expected.iter().any(|details| shows(&details.previous_job)),
        );
        let actual = store::daemons::list(conn, &permit, &filter, NOW, STALE.unsigned_abs()).await.expect("daemons");
        assert_eq!(actual, expected, "{filter:?}");
    }

    let jobs: Vec<_> = world.jobs().iter().filter(|_| rng.u8(..4) > 0).collect();
    let mut expected = Vec::new();
    for job in jobs.iter().filter(|job| job.organization_id == home) {
        for row in &here {
            let daemon = daemon(row);
            let does = daemon.provisioners.contains(&Label::of(job.provisioner.clone()));
            if does && tagset_contains(&own(row), &job.tags) {
                expected.push(EligibleDaemon { job_id: JobId(job.id), daemon });
            }
        }
    }
    expected.sort_by_key(|able| (able.job_id, able.daemon.created_at, able.daemon.id));
    world.note("a daemon may take a job", !expected.is_empty());
    let ids: Vec<_> = jobs.iter().map(|job| JobId(job.id)).collect();
    assert_eq!(store::daemons::eligible(conn, &permit, &ids).await.expect("daemons"), expected);
}

async fn states(conn: &mut PgConnection, world: &World<'_>) {
    let permit = WatchJobs::check(&Actor::system(System::Watcher)).expect("a permit");
    let ids: Vec<_> = world.jobs().iter().map(|job| JobId(job.id)).collect();
    let mut actual = store::changes::of_jobs(conn, &permit, &ids).await.expect("states");
    actual.sort_by_key(|job| job.id);
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut expected: Vec<_> = world
        .jobs()
        .iter()
        .map(|job| JobState {
            id: JobId(job.id),
            organization_id: job.organization_id.into(),
            status: status(job.status()),
            error: said(&job.error),
            error_code: said(&job.error_code).map(Into::into),
            last_log_id: world
                .all("provisioner_job_logs")
                .filter(|line| line.id("job_id") == job.id)
                .map(|line| line.int("id"))
                .max(),
        })
        .collect();
    expected.sort_by_key(|job| job.id);
    assert_eq!(actual, expected);
}

async fn active(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let permit = WatchJobs::check(&Actor::system(System::Watcher)).expect("a permit");
    let now = store::changes::active(conn, &permit, OrganizationId(home), None).await.expect("jobs");
    let mut expected: Vec<_> = world
        .jobs()
        .iter()
        .filter(|job| job.organization_id == home && ["pending", "running", "canceling"].contains(&job.status()))
        .map(|job| (JobId(job.id), status(job.status())))
        .collect();
    let mut jobs = now.jobs.expect("nobody knew them before");
    (expected.sort_by_key(|(id, _)| *id), jobs.sort_by_key(|(id, _)| *id));
    world.note("jobs wait or run", !expected.is_empty());
    assert_eq!(jobs, expected);
    let again = store::changes::active(conn, &permit, OrganizationId(home), Some(&now.digest)).await.expect("jobs");
    assert_eq!((again.digest, again.jobs), (now.digest, None));
}

async fn silent(conn: &mut PgConnection, world: &World<'_>) {
    let permit = ReapJobs::check(&Actor::system(System::Reaper)).expect("a permit");
    let minutes = |minutes| NOW - time::Duration::minutes(minutes);
    let mut expected: Vec<_> = world
        .jobs()
        .iter()
        .filter(|job| job.completed_at.is_none())
        .filter_map(|job| match job.started_at {
            None if job.updated_at < minutes(30) => Some((job.id, job.organization_id, Stuck::Pending)),
            Some(_) if job.updated_at < minutes(5) => Some((job.id, job.organization_id, Stuck::Hung)),
            _ => None,
        })
        .collect();
    let actual = store::jobs::reap_candidates(conn, &permit, NOW, 1_000).await.expect("jobs");
    let mut actual: Vec<_> = actual.iter().map(|job| (job.id.0, job.organization_id.0, job.stuck)).collect();
    (expected.sort_by_key(|job| job.0), actual.sort_by_key(|job| job.0));
    assert_eq!(actual, expected);
    world.note("a job has waited for too long", expected.iter().any(|(.., stuck)| *stuck == Stuck::Pending));
    world.note("a daemon is silent for too long", expected.iter().any(|(.., stuck)| *stuck == Stuck::Hung));
    let some = store::jobs::reap_candidates(conn, &permit, NOW, 1).await.expect("jobs");
    assert_eq!(some.len(), expected.len().min(1));
}

// Prebuilt workspaces --------------------------------------------------------------------------------------------------

fn permit(home: Uuid) -> MaintainPrebuilds {
    MaintainPrebuilds::check(&support::operator(), OrganizationId(home)).expect("a permit")
}

/// Whether it is the first start of a prebuilt workspace.
fn is_first(build: &Row) -> bool {
    build.id("initiator_id") == PREBUILDS && build.int("build_number") == 1 && build.text("transition") == "start"
}

async fn prebuilds(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let template_of = |workspace: &Row| world.find("templates", workspace.id("template_id")).expect("its template");
    let in_place = || {
        world.all("workspace_builds").filter_map(|build| {
            let workspace = world.workspace(build.id("workspace_id"), home, None)?;
            Some((build, workspace, template_of(workspace), world.status(build.id("job_id"))))
        })
    };

    let mut stale = BTreeMap::<PresetId, i64>::new();
    for (build, workspace, template, status) in in_place() {
        let job = world.job(build.id("job_id")).expect("its job");
        let is_stale = is_first(build)
            && status == "pending"
            && (job.worker_id, job.canceled_at, job.completed_at) == (None, None, None)
            && build.id("template_version_id") != template.id("active_version_id")
            && workspace.id("owner_id") == PREBUILDS
            && !workspace.flag("deleted");
        if let Some(preset) = build.id_or("template_version_preset_id").filter(|_| is_stale) {
            *stale.entry(preset.into()).or_default() += 1;
        }
    }
    let stale: Vec<_> = stale.into_iter().map(|(preset_id, count)| StalePrebuilds { preset_id, count }).collect();
    world.note("a pending prebuild is stale", !stale.is_empty());
    assert_eq!(store::prebuilds::count_stale_pending(conn, &permit(home)).await.expect("counts"), stale);

    let mut progress = BTreeMap::<_, i64>::new();
    for (build, workspace, template, status) in in_place() {
        let counts = ["pending", "running"].contains(&status)
            && build.id("initiator_id") == PREBUILDS
            && !workspace.flag("deleted")
            && template.id("active_version_id") == build.id("template_version_id")
            && world.builds_of(workspace.id("id"))[0].id("id") == build.id("id");
        if counts {
            let preset = build.id_or("template_version_preset_id");
            let place =
                ["start", "stop", "delete"].iter().position(|transition| *transition == build.text("transition"));
            *progress
                .entry((template.id("id"), preset.is_none(), preset, place, build.text("transition")))
                .or_default() += 1;
        }
    }
    let progress: Vec<_> = progress
        .into_iter()
        .map(|((template, _, preset, _, transition), count)| PrebuildsInProgress {
            template_id: template.into(),
            template_version_id: world.find("templates", template).expect("a template").id("active_version_id").into(),
            transition: Label::of(transition),
            preset_id: preset.map(Into::into),
            count,
        })
        .collect();
    world.note("a prebuild waits or runs", !progress.is_empty());
    assert_eq!(store::prebuilds::count_in_progress(conn, &permit(home)).await.expect("counts"), progress);

    let mut running: Vec<_> = world
        .all("workspaces")
        .filter(|workspace| {
            let is_unclaimed = workspace.id("organization_id") == home && workspace.id("owner_id") == PREBUILDS;
            is_unclaimed && !workspace.flag("deleted")
        })
        .filter_map(|workspace| {
            let builds = world.builds_of(workspace.id("id"));
            let latest = builds.first()?;
            let runs = latest.text("transition") == "start" && world.status(latest.id("job_id")) == "succeeded";
            let agents: Vec<_> = world.agents_of(latest.id("job_id")).filter(|agent| !agent.flag("deleted")).collect();
            runs.then(|| RunningPrebuild {
                id: workspace.id("id").into(),
                name: workspace.text("name"),
                template_id: workspace.id("template_id").into(),
                template_version_id: latest.id("template_version_id").into(),
                current_preset_id: builds
                    .iter()
                    .find_map(|build| build.id_or("template_version_preset_id"))
                    .map(Into::into),
                ready: !agents.is_empty() && agents.iter().all(|agent| agent.text("lifecycle_state") == "ready"),
                created_at: workspace.at("created_at"),
            })
        })
        .collect();
    running.sort_by_key(|running| (running.created_at, running.id));
    world.note("an unclaimed workspace runs", !running.is_empty());
    world.note("an unclaimed workspace is ready", running.iter().any(|running| running.ready));
    assert_eq!(store::prebuilds::running(conn, &permit(home)).await.expect("workspaces"), running);

    let mut metrics = BTreeMap::<(String, Uuid, String), [i64; 3]>::new();
    for (build, workspace, template, status) in in_place().filter(|(build, ..)| is_first(build)) {
        let Some(preset) = build.id_or("template_version_preset_id") else { continue };
        let preset = world.find("template_version_presets", preset).expect("a preset").text("name");
        let counts = metrics.entry((template.text("name"), template.id("id"), preset)).or_default();
        counts[0] += 1;
        counts[1] += i64::from(status == "failed");
        counts[2] += i64::from(workspace.id("owner_id") != PREBUILDS);
    }
    let metrics: Vec<_> = metrics
        .into_iter()
        .map(|((template_name, id, preset_name), [created, failed, claimed])| PrebuildMetrics {
            template_id: TemplateId(id),
            template_name,
            preset_name,
            created,
            failed,
            claimed,
        })
        .collect();
    world.note("a prebuild has failed", metrics.iter().any(|metrics| metrics.failed > 0));
    world.note("a prebuild is claimed", metrics.iter().any(|metrics| metrics.claimed > 0));
    assert_eq!(store::prebuilds::metrics(conn, &permit(home)).await.expect("counts"), metrics);
}

/// Presets with the version and the template that they are of, where there is one.
fn presets<'a>(world: &'a World<'_>, home: Uuid) -> Vec<(&'a Row, &'a Row, &'a Row)> {
    let found = world.all("template_version_presets").filter_map(|preset| {
        let version = world.find("template_versions", preset.id("template_version_id"))?;
        let template = world.find("templates", version.id_or("template_id")?)?;
        (template.id("organization_id") == home).then_some((preset, version, template))
    });
    found.filter(|(preset, ..)| preset.get("desired_instances").is_some()).collect()
}

async fn failures(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    for template in world.all("templates").map(|row| Some(row.id("id"))).chain([None]) {
        let mut expected: Vec<_> = presets(world, home)
            .into_iter()
            .filter(|(_, _, of)| template.is_none_or(|template| template == of.id("id")))
            .collect();
        expected.sort_by_key(|(preset, version, template)| {
            let at = version.at("created_at");
            (template.text("name"), template.id("id"), at, version.id("id"), preset.text("name"), preset.id("id"))
        });
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(preset, version, template)| PrebuildPreset {
                template_id: template.id("id").into(),
                template_name: template.text("name"),
                template_deleted: template.flag("deleted"),
                template_deprecated: !template.text("deprecated").is_empty(),
                template_version_id: version.id("id").into(),
                template_version_name: version.text("name"),
                is_active_version: template.id("active_version_id") == version.id("id"),
                preset_id: preset.id("id").into(),
                preset_name: preset.text("name"),
                desired_instances: preset.small("desired_instances"),
                status: preset.label("prebuild_status"),
            })
            .collect();
        let actual = store::prebuilds::presets(conn, &permit(home), template.map(TemplateId)).await.expect("presets");
        world.note("a preset wants prebuilt workspaces", !expected.is_empty());
        assert_eq!(actual, expected);
    }

    // A preset counts where its version is the active one of any template of the organization.
    let mut counting: Vec<_> = world
        .all("template_version_presets")
        .filter(|preset| preset.get("desired_instances").is_some())
        .flat_map(|preset| {
            let active = world.all("templates").filter(move |template| {
                let is_here = template.id("organization_id") == home && !template.flag("deleted");
                is_here && template.id("active_version_id") == preset.id("template_version_id")
            });
            active.map(move |_| preset)
        })
        .collect();
    counting.sort_by_key(|preset| preset.id("id"));
    let first_builds = |preset: &Row| {
        let mut builds: Vec<_> = world
            .all("workspace_builds")
            .filter(|build| is_first(build) && build.id_or("template_version_preset_id") == Some(preset.id("id")))
            .map(|build| (build.at("created_at"), build.id("id"), world.job(build.id("job_id")).expect("its job")))
            .collect();
        builds.sort_by_key(|(at, id, _)| Reverse((*at, *id)));
        builds
    };
    for lookback in [Duration::from_mins(1), Duration::from_hours(1), Duration::from_hours(100)] {
        let expected = counting.iter().filter_map(|preset| {
            let builds = first_builds(preset);
            let failed: Vec<_> = builds
                .iter()
                .filter(|(at, ..)| *at >= NOW - lookback)
                .take_while(|(_, _, job)| job.status() != "succeeded")
                .filter(|(_, _, job)| job.status() == "failed")
                .filter_map(|(_, _, job)| job.completed_at)
                .collect();
            let last_failed_at = failed.iter().max().copied()?;
            let failures = i64::try_from(failed.len()).expect("few");
            Some(PrebuildBackoff { preset_id: preset.id("id").into(), failures, last_failed_at })
        });
        let actual = store::prebuilds::backoff(conn, &permit(home), NOW, lookback).await.expect("presets");
        let expected: Vec<_> = expected.collect();
        world.note("a preset has failed of late", !expected.is_empty());
        world.note("a preset has failed several times", expected.iter().any(|backoff| backoff.failures > 1));
        assert_eq!(actual, expected, "{lookback:?}");
    }
    for limit in 1..3_u32 {
        let expected = counting.iter().filter(|preset| {
            let ended = first_builds(preset)
                .into_iter()
                .filter(|(_, _, job)| ["succeeded", "failed"].contains(&job.status()) && job.completed_at.is_some());
            let newest: Vec<_> = ended.take(limit as usize).collect();
            newest.len() == limit as usize && newest.iter().all(|(_, _, job)| job.status() == "failed")
        });
        let limit = NonZeroU32::new(limit).expect("not zero");
        let actual = store::prebuilds::at_failure_limit(conn, &permit(home), limit).await.expect("presets");
        let expected: Vec<_> = expected.map(|preset| PresetId(preset.id("id"))).collect();
        world.note("a preset is at its limit of failures", !expected.is_empty());
        assert_eq!(actual, expected);
    }
}

async fn organizations(conn: &mut PgConnection, world: &World<'_>) {
    let permit = FindPrebuilds::check(&support::operator()).expect("a permit");
    let mut expected: Vec<_> = world
        .all("organizations")
        .filter(|row| !row.flag("deleted") && !presets(world, row.id("id")).is_empty())
        .map(|row| {
            let id = row.id("id");
            let groups: Vec<_> = world
                .all("groups")
                .filter(|group| group.id("organization_id") == id && group.text("name") == "coderprebuiltworkspaces")
                .map(|group| group.id("id"))
                .collect();
            let is_in = |row: &Row| row.id("user_id") == PREBUILDS && groups.contains(&row.id("group_id"));
            PrebuildOrganization {
                id: id.into(),
                name: row.text("name"),
                is_member: world.is_member(PREBUILDS.into(), id),
                has_group: !groups.is_empty(),
                is_in_group: world.all("group_members").any(is_in),
            }
        })
        .collect();
    expected.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    world.note("the prebuilds user is in its group", expected.iter().any(|organization| organization.is_in_group));
    assert_eq!(store::prebuilds::organizations(conn, &permit).await.expect("organizations"), expected);
}
