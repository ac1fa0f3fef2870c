//! Which old jobs could be deleted.

use std::collections::BTreeSet;

use coderdb::{
    authz::PruneJobs,
    model::{JobId, OrganizationId},
    sqlx::PgConnection,
    store,
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::world::{Row, World};
use crate::support::{self, random_database::NOW};

const EPOCH: OffsetDateTime = datetime!(1970-01-01 0:00 UTC);

pub(super) async fn compare(conn: &mut PgConnection, world: &World<'_>) {
    for home in world.ids("organizations") {
        let permit = PruneJobs::check(&support::operator(), OrganizationId(home)).expect("a permit");
        for before in [NOW + time::Duration::days(1), NOW - time::Duration::seconds(1)] {
            for logs_only in [false, true] {
                let after = (EPOCH, JobId(Uuid::nil()));
                let old = store::jobs::prune_candidates(conn, &permit, after, 1_000, before, logs_only).await;
                let actual: Vec<_> = old.expect("jobs").iter().map(|job| (job.id.0, job.is_deletable)).collect();
                assert_eq!(actual, expected(world, home, before, logs_only));
            }
        }
        assert_eq!(store::jobs::dead_rows(conn, &permit).await.expect("an answer"), None, "nothing is dead here");
    }
}

fn expected(world: &World<'_>, home: Uuid, before: OffsetDateTime, logs_only: bool) -> Vec<(Uuid, bool)> {
    let versions: BTreeSet<_> = world.all("template_versions").map(|version| version.id("job_id")).collect();
    let chats: BTreeSet<_> = world.all("chats").filter_map(|chat| chat.id_or("build_id")).collect();
    let agents: BTreeSet<_> = world.all("chats").filter_map(|chat| chat.id_or("agent_id")).collect();
    let has_ended =
        |job: Uuid| world.jobs().iter().find(|row| row.id == job).is_some_and(|row| row.completed_at.is_some());
    let left_a_state = |build: &Row| {
        let job = world.jobs().iter().find(|row| row.id == build.id("job_id")).expect("the job of a build");
        let has_state = build.text_or("provisioner_state").is_some_and(|state| state != "\\x");
        has_ended(job.id) && (job.status() == "succeeded" || has_state)
    };
    let is_deletable = |job: Uuid| {
        let build = world.all("workspace_builds").find(|build| build.id("job_id") == job);
        let is_replaced = build.is_none_or(|build| {
            world.all("workspace_builds").any(|newer| {
                newer.id("workspace_id") == build.id("workspace_id")
                    && newer.int("build_number") > build.int("build_number")
                    && left_a_state(newer)
            })
        });
        let agent_is_bound =
            world.all("workspace_resources").filter(|resource| resource.id("job_id") == job).any(|resource| {
                world
                    .all("workspace_agents")
                    .any(|agent| agent.id("resource_id") == resource.id("id") && agents.contains(&agent.id("id")))
            });
        let is_bound = build.is_some_and(|build| chats.contains(&build.id("id"))) || agent_is_bound;
        is_replaced && !is_bound && (logs_only || !versions.contains(&job))
    };
    let mut old: Vec<_> = world
        .jobs()
        .iter()
        .filter(|job| job.organization_id == home && job.created_at < before)
        .map(|job| (job.created_at, job.id, job.completed_at.is_some_and(|at| at < before) && is_deletable(job.id)))
        .collect();
    old.sort_unstable();
    world.note("an old job may go", old.iter().any(|(.., may_go)| *may_go));
    world.note("an old job stays", old.iter().any(|(.., may_go)| !may_go));
    old.into_iter().map(|(_, id, may_go)| (id, may_go)).collect()
}
