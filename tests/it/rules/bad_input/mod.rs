//! What no caller should pass and no row should hold: a named error and nothing written, or an answer.
//!
//! [`ENTRIES`] has a line for every argument of every operation that is more than an id or a closed set; one that is
//! missing fails a test. Each is called with everything of its kind in [`bad`].

mod call;
mod rows;
mod table;

use coderdb::{
    authz::{
        Actor, MaintainPrebuilds, ReadDaemons, ReadJobLogs, ReadJobs, ReadLicenses, ReadQueue, ReadWorkspaces,
        ReapJobs, System,
    },
    model::{DaemonFilter, JobFilter, JobId, OrganizationId, PageRequest, UserId, WorkspaceAgentId, WorkspaceId},
    sqlx::{self, PgConnection},
    store::{self, Result},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support;

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

fn u(n: u32) -> Uuid {
    format!("{n:032}").parse().expect("an id")
}

/// Organization 1 has one of each kind of thing; its daemon has taken the job; user 1 owns it all, and the site.
async fn world() -> (support::Database, PgConnection, Actor) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sqlx::raw_sql(concat!(
        include_str!("../../golden/two_organizations.sql"),
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
