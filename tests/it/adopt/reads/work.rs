//! What is done: jobs with their logs, daemons, changes, and quota.

use std::{cmp::Reverse, collections::BTreeSet};

use coderdb::{
    authz::{Actor, FindJobs, ListQuota, LockJobs, ReadDaemons, ReadJobLogs, ReapJobs, RunJobs, System, WatchJobs},
    model::{
        DaemonDetails, DaemonFilter, DaemonId, DaemonJob, DaemonStatus, EligibleDaemon, FoundJob, GroupQuota,
        JobFilter, JobId, JobLog, JobState, JobTiming, Label, OrganizationId, PageRequest, Stuck, Tags, TemplateQuota,
        UserQuota,
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
use crate::support::{
    self,
    listing::expected_job,
    model::{JobRow, PREBUILDS, jsonb_equal, tagset_contains},
    random_database::{NOW, STALE, one},
    read_jobs,
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
        quota(conn, world, home).await;
        quota_by(conn, world, home).await;
        quota_check(conn, world, home).await;
    }
    for who in people.iter().chain([&operator]) {
        named(conn, world, who).await;
    }
    silent(conn, world).await;
    states(conn, world).await;
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
    expected.sort();
    actual.sort();
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
        if let Some(actual) = &mut actual {
            actual.sort_by(|a, b| a.resource.cmp(&b.resource));
        }
        assert_eq!(actual, is_there.then_some(timings), "{permit:?} {job:?}");
    }
}

/// The jobs that builds, versions and dry runs are about.
async fn named(conn: &mut PgConnection, world: &World<'_>, who: &Actor) {
    let permit = FindJobs::check(who);
    let reached = |job: Option<&JobRow>| {
        let job = job?;
        let home = job.organization_id;
        let is_reached = who.user_id().is_none_or(|user| world.is_member(user, home) && world.is_organization(home));
        is_reached.then_some(FoundJob { id: JobId(job.id), organization_id: home.into() })
    };
    for build in world.all("workspace_builds") {
        let expected = reached(world.job(build.id("job_id")));
        assert_eq!(found(store::jobs::find_of_build(conn, &permit, build.id("id").into()).await), expected);
    }
    for version in world.all("template_versions") {
        let (id, home) = (version.id("id"), version.id("organization_id"));
        let own = world.job(version.id("job_id")).filter(|job| job.organization_id == home);
        let expected = reached(own);
        assert_eq!(found(store::jobs::find_of_version(conn, &permit, id.into()).await), expected);
        for job in world.jobs() {
            let named =
                job.input.as_object().and_then(|input| input.get("template_version_id")).and_then(Value::as_str);
            let is_it =
                job.organization_id == home && named.is_some_and(|named| named.to_lowercase() == id.to_string());
            let expected = reached(Some(job).filter(|job| is_it && job.job_type == "template_version_dry_run"));
            world.note("a dry run is found", expected.is_some());
            assert_eq!(found(store::jobs::find_of_dry_run(conn, &permit, id.into(), JobId(job.id)).await), expected);
        }
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

/// Who may consume something, consumes it, or has an allowance, in pages, too.
async fn quota(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let permit = ListQuota::check(&support::operator(), OrganizationId(home)).expect("a permit");
    let model = &world.model;
    let has_allowance = |user: Uuid| {
        model.group_members.iter().filter(|member| member.user_id == user).any(|member| {
            let mut groups = model.groups.iter().filter(|group| group.id == member.group_id);
            groups.any(|group| group.organization_id == home && group.quota_allowance != 0)
        })
    };
    let mut expected: Vec<_> = world
        .all("users")
        .map(|row| {
            let (id, deleted) = (row.id("id"), row.flag("deleted"));
            UserQuota {
                id: id.into(),
                username: row.text("username"),
                deleted,
                is_member: !deleted && world.is_member(id.into(), home),
                credits_consumed: model.quota_consumed(id, home),
                budget: model.quota_allowance(id, home),
            }
        })
        .filter(|user| user.is_member || user.credits_consumed != 0 || !user.deleted && has_allowance(user.id.0))
        .collect();
    expected.sort_by_key(|user| (user.username.to_lowercase(), user.id));
    world.note("somebody consumes something", expected.iter().any(|user| user.credits_consumed != 0));
    let actual = store::quota::list(conn, &permit, PageRequest::default()).await.expect("a page");
    assert_eq!((actual.rows, actual.next), (expected.clone(), None));
    let first = store::quota::list(conn, &permit, PageRequest::first(1)).await.expect("a page");
    assert_eq!(first.rows, expected.iter().take(1).cloned().collect::<Vec<_>>());
    assert_eq!(first.next.is_some(), expected.len() > 1);
}

/// What is consumed by template and group.
async fn quota_by(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let permit = ListQuota::check(&support::operator(), OrganizationId(home)).expect("a permit");
    let here = || world.all("workspaces").filter(|row| row.id("organization_id") == home && !row.flag("deleted"));
    let cost = |workspace: &Row| world.builds_of(workspace.id("id")).first().map_or(0, |build| build.int("daily_cost"));
    let mut expected: Vec<_> = world
        .all("templates")
        .map(|template| {
            let of: Vec<_> = here().filter(|row| row.id("template_id") == template.id("id")).collect();
            TemplateQuota {
                id: template.id("id").into(),
                name: template.text("name"),
                deleted: template.flag("deleted"),
                workspaces: i64::try_from(of.len()).expect("few"),
                credits_consumed: of.into_iter().map(cost).sum(),
            }
        })
        .filter(|template| template.workspaces > 0)
        .collect();
    expected.sort_by_key(|template| (Reverse(template.credits_consumed), template.id));
    assert_eq!(store::quota::by_template(conn, &permit).await.expect("templates"), expected);

    let members = world.model.group_members_expanded();
    let mut expected: Vec<_> = world
        .all("groups")
        .filter(|group| group.id("organization_id") == home)
        .map(|group| {
            let id = group.id("id");
            let of = || members.iter().filter(|(of, _)| *of == id);
            GroupQuota {
                id: id.into(),
                name: group.text("name"),
                allowance: group.small("quota_allowance"),
                members: of().map(|_| 1).sum(),
                credits_consumed: of().map(|(_, user)| world.model.quota_consumed(*user, home)).sum(),
            }
        })
        .collect();
    expected.sort_by_key(|group| (Reverse(group.credits_consumed), group.id));
    world.note("a group consumes something", expected.iter().any(|group| group.credits_consumed != 0));
    assert_eq!(store::quota::by_group(conn, &permit).await.expect("groups"), expected);
}

/// What a start would do to the budget of each user, with and without a preset.
async fn quota_check(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    let permit = ListQuota::check(&support::operator(), OrganizationId(home)).expect("a permit");
    let template_of = |version: Uuid| world.find("template_versions", version).and_then(|row| row.id_or("template_id"));
    let name_of = |preset: Uuid| world.find("template_version_presets", preset).map(|row| row.text("name"));
    for template in world.all("templates").filter(|row| row.id("organization_id") == home && !row.flag("deleted")) {
        let active = template.id("active_version_id");
        let presets = world.all("template_version_presets").filter(|row| row.id("template_version_id") == active);
        let presets: Vec<_> = presets.map(|row| Some((row.id("id"), row.text("name")))).chain([None]).collect();
        for preset in presets {
            let name = preset.as_ref().map(|(_, name)| name.as_str());
            let mut starts: Vec<_> = world
                .all("workspace_builds")
                .filter_map(|build| Some((build, world.job(build.id("job_id"))?)))
                .filter(|(build, job)| {
                    job.organization_id == home
                        && job.status() == "succeeded"
                        && build.text("transition") == "start"
                        && template_of(build.id("template_version_id")) == Some(template.id("id"))
                        && name.is_none_or(|name| {
                            build.id_or("template_version_preset_id").and_then(name_of).as_deref() == Some(name)
                        })
                })
                .collect();
            starts.sort_by_key(|(_, job)| Reverse((job.created_at, job.id)));
            let mut costs: Vec<_> = starts.iter().take(50).map(|(build, _)| build.small("daily_cost")).collect();
            costs.sort_unstable();
            let claims: Vec<_> = world
                .all("workspaces")
                .filter(|row| {
                    row.id("owner_id") == PREBUILDS
                        && row.id("organization_id") == home
                        && row.id("template_id") == template.id("id")
                        && !row.flag("deleted")
                })
                .filter_map(|row| {
                    let builds = world.builds_of(row.id("id"));
                    let latest = builds.first()?;
                    let current = builds.iter().find_map(|build| build.id_or("template_version_preset_id"));
                    let mut agents =
                        world.agents_of(latest.id("job_id")).filter(|agent| !agent.flag("deleted")).peekable();
                    let can_be_claimed = latest.text("transition") == "start"
                        && world.status(latest.id("job_id")) == "succeeded"
                        && latest.id("template_version_id") == active
                        && current.is_some()
                        && current == preset.as_ref().map(|(id, _)| *id)
                        && agents.peek().is_some()
                        && agents.all(|agent| agent.text("lifecycle_state") == "ready");
                    can_be_claimed.then(|| latest.small("daily_cost"))
                })
                .collect();
            world.note("the costs of starts are known", !costs.is_empty());
            for user in world.all("users").map(|row| row.id("id")).take(3) {
                let id = template.id("id").into();
                let found = store::quota::check(conn, &permit, user.into(), id, name).await.expect("an answer");
                let quota = (world.model.quota_consumed(user, home), world.model.quota_allowance(user, home));
                assert_eq!((found.quota.credits_consumed, found.quota.budget), quota);
                assert_eq!(found.samples, costs.len());
                assert_eq!(found.median, costs.get(costs.len().div_ceil(2).saturating_sub(1)).copied());
                assert_eq!(found.p95, costs.get((costs.len() * 19).div_ceil(20).saturating_sub(1)).copied());
                let claim = found.claim.map(|claim| (claim.workspaces, claim.least, claim.most));
                let least_and_most = claims.iter().min().zip(claims.iter().max());
                assert_eq!(claim, least_and_most.map(|(least, most)| (claims.len(), *least, *most)));
            }
        }
    }
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
    expected.sort_by_key(|(id, _)| *id);
    jobs.sort_by_key(|(id, _)| *id);
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
    expected.sort_by_key(|job| job.0);
    actual.sort_by_key(|job| job.0);
    assert_eq!(actual, expected);
    world.note("a job has waited for too long", expected.iter().any(|(.., stuck)| *stuck == Stuck::Pending));
    world.note("a daemon is silent for too long", expected.iter().any(|(.., stuck)| *stuck == Stuck::Hung));
    let some = store::jobs::reap_candidates(conn, &permit, NOW, 1).await.expect("jobs");
    assert_eq!(some.len(), expected.len().min(1));
}
