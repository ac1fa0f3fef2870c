//! Prebuilt workspaces, and what became of them.

use std::{cmp::Reverse, collections::BTreeMap, num::NonZeroU32, time::Duration};

use coderdb::{
    authz::{FindPrebuilds, MaintainPrebuilds},
    model::{
        Label, OrganizationId, PrebuildBackoff, PrebuildMetrics, PrebuildOrganization, PrebuildPreset,
        PrebuildsInProgress, PresetId, PresetPrebuilds, RunningPrebuild, StalePrebuilds, TemplateId,
    },
    sqlx::PgConnection,
    store,
};
use uuid::Uuid;

use super::world::{Row, World};
use crate::support::{self, model::PREBUILDS, random_database::NOW};

pub(super) async fn compare(conn: &mut PgConnection, world: &World<'_>) {
    for home in world.ids("organizations") {
        prebuilds(conn, world, home).await;
        failures(conn, world, home).await;
        status(conn, world, home).await;
    }
    organizations(conn, world).await;
}

fn permit(home: Uuid) -> MaintainPrebuilds {
    MaintainPrebuilds::check(&support::operator(), OrganizationId(home)).expect("a permit")
}

/// Whether it is the first start of a prebuilt workspace.
fn is_first(build: &Row) -> bool {
    build.id("initiator_id") == PREBUILDS && build.int("build_number") == 1 && build.text("transition") == "start"
}

#[expect(clippy::too_many_lines, reason = "one statement after the other")]
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

/// What the unclaimed workspaces of a preset do, and which of its first builds failed.
fn status_of(world: &World<'_>, home: Uuid, preset: &Row, lookback: Duration) -> Option<PresetPrebuilds> {
    let version = world.find("template_versions", preset.id("template_version_id"))?;
    let template = world.find("templates", version.id_or("template_id")?)?;
    if template.id("organization_id") != home {
        return None;
    }
    let is_active = template.id("active_version_id") == version.id("id") && !template.flag("deleted");
    let held: Vec<_> = world
        .all("workspaces")
        .filter(|workspace| {
            let is_unclaimed = workspace.id("organization_id") == home && workspace.id("owner_id") == PREBUILDS;
            is_unclaimed && !workspace.flag("deleted")
        })
        .filter_map(|workspace| {
            let builds = world.builds_of(workspace.id("id"));
            let of = builds.iter().find_map(|build| build.id_or("template_version_preset_id"));
            (of == Some(preset.id("id"))).then(|| builds[0])
        })
        .collect();
    if held.is_empty() && !(is_active && preset.get("desired_instances").is_some()) {
        return None;
    }
    let starts = |status: &str| -> Vec<&Row> {
        let is_it = |build: &&Row| build.text("transition") == "start" && world.status(build.id("job_id")) == status;
        held.iter().copied().filter(is_it).collect()
    };
    let is_ready = |build: &&&Row| {
        let agents: Vec<_> = world.agents_of(build.id("job_id")).filter(|agent| !agent.flag("deleted")).collect();
        !agents.is_empty() && agents.iter().all(|agent| agent.text("lifecycle_state") == "ready")
    };
    let mut ended: Vec<_> = world
        .all("workspace_builds")
        .filter(|build| is_first(build) && build.id_or("template_version_preset_id") == Some(preset.id("id")))
        .filter(|build| build.at("created_at") >= NOW - lookback)
        .map(|build| (build.at("created_at"), build.id("id"), world.job(build.id("job_id")).expect("its job")))
        .filter(|(_, _, job)| job.completed_at.is_some())
        .collect();
    ended.sort_by_key(|(at, id, _)| Reverse((*at, *id)));
    let failed = ended.iter().filter(|(_, _, job)| job.status() == "failed").count();
    let lately: Vec<_> = ended
        .iter()
        .take_while(|(_, _, job)| job.status() != "succeeded")
        .filter(|(_, _, job)| job.status() == "failed")
        .filter_map(|(_, _, job)| job.completed_at)
        .collect();
    let count = |n: usize| i64::try_from(n).expect("few");
    let (running, waiting) = (starts("succeeded"), starts("pending"));
    Some(PresetPrebuilds {
        template_id: template.id("id").into(),
        template_name: template.text("name"),
        preset_id: preset.id("id").into(),
        preset_name: preset.text("name"),
        is_active,
        wanted: if is_active && preset.get("desired_instances").is_some() {
            preset.small("desired_instances")
        } else {
            0
        },
        status: preset.label("prebuild_status"),
        eligible: count(running.iter().filter(is_ready).count()),
        running: count(running.len()),
        starting: count(starts("running").len()),
        waiting_since: waiting.iter().map(|build| world.job(build.id("job_id")).expect("its job").created_at).min(),
        waiting: count(waiting.len()),
        credits: held.iter().map(|build| build.int("daily_cost")).sum(),
        failed: count(failed),
        failures: count(lately.len()),
        last_failed_at: lately.into_iter().max(),
    })
}

async fn status(conn: &mut PgConnection, world: &World<'_>, home: Uuid) {
    for lookback in [Duration::from_mins(1), Duration::from_hours(100)] {
        let mut expected: Vec<_> = world
            .all("template_version_presets")
            .filter_map(|preset| status_of(world, home, preset, lookback))
            .collect();
        expected.sort_by(|a, b| {
            let key = |of: &PresetPrebuilds| {
                (of.template_name.clone(), of.template_id.0, of.preset_name.clone(), of.preset_id.0)
            };
            key(a).cmp(&key(b))
        });
        let actual = store::prebuilds::status(conn, &permit(home), NOW, lookback).await.expect("presets");
        world.note("a preset holds a prebuilt workspace", expected.iter().any(|preset| preset.credits > 0));
        world.note("a preset has a prebuild that waits", expected.iter().any(|preset| preset.waiting > 0));
        assert_eq!(actual, expected, "{lookback:?}");
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
