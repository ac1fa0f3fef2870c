//! Deleting old jobs and their logs.

use std::collections::BTreeSet;

use coderdb::{
    authz::PruneJobs,
    model::{JobId, OrganizationId},
    prune::{self, Pruned, Run},
    sqlx::{self, Connection as _},
    store,
};
use time::Duration;

use crate::support::{
    self,
    rows::{NOW, Rows, id},
};

fn permit(organization: u128) -> PruneJobs {
    PruneJobs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator")
}

/// Jobs 100 to 199 are old dry runs, with 30 log lines, a timing and a resource with an agent each; jobs 200 to 219 are builds
/// 1 to 20 of workspace 1, which all succeeded.
async fn history() -> Rows {
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM provisioner_jobs;
         SELECT add_job(n), add_resource(n, n), add_agent(n, n, 'agent') FROM generate_series(100, 199) AS n;
         UPDATE provisioner_jobs SET type = 'template_version_dry_run';
         SELECT add_build(n, 1, n - 199) FROM generate_series(200, 219) AS n;
         UPDATE provisioner_jobs SET started_at = at_second(1), completed_at = at_second(2), logs_length = 300;
         INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         SELECT id, at_second(1), 'provisioner', 'info', 'plan', repeat('x', 10) FROM provisioner_jobs, generate_series(1, 30);
         INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
         SELECT id, at_second(1), at_second(2), 'plan', '', '', '' FROM provisioner_jobs;
         SELECT add_organization(2); SELECT add_job(300);
         UPDATE provisioner_jobs SET organization_id = u(2), started_at = at_second(1), completed_at = at_second(2)
             WHERE id = u(300)",
    )
    .await;
    rows
}

async fn all(rows: &mut Rows, logs_only: bool) -> Pruned {
    let mut run = Run::new(NOW + Duration::days(1), logs_only);
    let mut sum = (0, 0);
    while let Some(batch) = run.next(&mut rows.conn, &permit(1)).await {
        let batch = batch.expect("a batch");
        sum = (sum.0 + batch.jobs, sum.1 + batch.log_lines);
    }
    assert_eq!(sum, (run.total().jobs, run.total().log_lines));
    run.total()
}

async fn jobs(rows: &mut Rows) -> Vec<String> {
    rows.all("SELECT ltrim(replace(id::text, '-', ''), '0') FROM provisioner_jobs ORDER BY id").await
}

const COUNTS: &str = "SELECT concat_ws(' ', (SELECT count(*) FROM provisioner_job_logs), \
                      (SELECT count(*) FROM provisioner_job_timings), (SELECT count(*) FROM workspace_builds), \
                      (SELECT count(*) FROM workspace_resources), (SELECT count(*) FROM workspace_agents))";

#[tokio::test]
async fn prune_deletes_old_jobs_with_all_that_belongs_to_them_and_keeps_the_newest_build() {
    let mut rows = history().await;
    assert_eq!(rows.one(COUNTS).await, "3600 120 20 100 100");
    let before = NOW + Duration::days(1);
    let preview = prune::preview(&mut rows.conn, &permit(1), before, false).await.expect("a preview");
    assert_eq!(preview, Pruned { seen: 120, jobs: 119, log_lines: 0, log_bytes: 119 * 300 });
    assert_eq!(all(&mut rows, false).await, Pruned { log_lines: 119 * 30, ..preview });
    assert_eq!(jobs(&mut rows).await, ["219", "300"], "the newest build, and what another organization has");
    assert_eq!(rows.one(COUNTS).await, "30 1 1 0 0");
    assert_eq!(all(&mut rows, false).await, Pruned { seen: 1, ..Pruned::default() }, "again");
}

#[tokio::test]
async fn prune_of_logs_leaves_the_jobs_and_the_logs_of_the_newest_build() {
    let mut rows = history().await;
    rows.run("SELECT add_version(100, 1)").await;
    let pruned = all(&mut rows, true).await;
    assert_eq!(pruned, Pruned { seen: 120, jobs: 119, log_lines: 119 * 30, log_bytes: 119 * 300 });
    assert_eq!(rows.one(COUNTS).await, "30 120 20 100 100");
    assert_eq!(rows.one("SELECT DISTINCT logs_length FROM provisioner_jobs WHERE organization_id = u(1)").await, "300");
}

#[tokio::test]
async fn prune_keeps_what_is_young_or_has_not_ended_or_is_needed() {
    let mut rows = history().await;
    let before = NOW + Duration::days(1);
    rows.run(
        "UPDATE provisioner_jobs SET created_at = at_second(86400) WHERE id = u(100);
         UPDATE provisioner_jobs SET completed_at = at_second(86400) WHERE id = u(101);
         UPDATE provisioner_jobs SET completed_at = NULL WHERE id = u(102);
         SELECT add_version(103, 1);
         INSERT INTO chat_providers (provider) VALUES ('openai');
         INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold)
             VALUES (u(1), 'openai', 'model', 200000, 80);
         INSERT INTO chats (id, owner_id, organization_id, last_model_config_id, agent_id)
             VALUES (u(1), u(1), u(1), u(1), u(104)), (u(2), u(1), u(1), u(1), NULL);
         UPDATE chats SET build_id = u(205) WHERE id = u(2);
         -- The builds since the last one that left a state.
         UPDATE provisioner_jobs SET error = 'failed' WHERE id IN (u(217), u(218), u(219));
         UPDATE workspace_builds SET provisioner_state = 'state' WHERE id = u(217);
         UPDATE workspace_builds SET provisioner_state = '' WHERE id = u(218)",
    )
    .await;
    let mut run = Run::new(before, false);
    while let Some(batch) = run.next(&mut rows.conn, &permit(1)).await {
        batch.expect("a batch");
    }
    let kept = ["100", "101", "102", "103", "104", "205", "217", "218", "219", "300"];
    assert_eq!(jobs(&mut rows).await, kept);
    assert_eq!(run.total().seen, 119);
    let lines = "SELECT count(*) FROM provisioner_job_logs";
    assert_eq!(rows.one(lines).await, (9 * 30).to_string(), "the logs of what is kept");
}

#[tokio::test]
async fn prune_leaves_a_job_alone_that_another_session_holds() {
    let mut rows = history().await;
    let mut other = rows.database.connect().await;
    let mut holder = other.begin().await.expect("a transaction");
    sqlx::raw_sql("SELECT FROM provisioner_jobs WHERE id = u(150) FOR NO KEY UPDATE")
        .execute(&mut *holder)
        .await
        .expect("a lock");
    assert_eq!(all(&mut rows, false).await.jobs, 118);
    holder.rollback().await.expect("the end");
    assert_eq!(jobs(&mut rows).await, ["150", "219", "300"]);
    assert_eq!(all(&mut rows, false).await.jobs, 1);
}

#[tokio::test]
async fn prune_that_is_given_up_anywhere_is_gone_on_with_by_the_next_run() {
    let mut rows = history().await;
    let before = NOW + Duration::days(1);
    for polls in 1..60 {
        let mut conn = rows.database.connect().await;
        let mut run = Run::new(before, false);
        let permit = permit(1);
        let mut polled = 0;
        let mut next = Box::pin(run.next(&mut conn, &permit));
        // Dropped after so many polls, wherever it is then.
        std::future::poll_fn(|context| {
            polled += 1;
            let answer = next.as_mut().poll(context);
            if answer.is_ready() || polled == polls { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
    all(&mut rows, false).await;
    assert_eq!(jobs(&mut rows).await, ["219", "300"]);
    assert_eq!(rows.one(COUNTS).await, "30 1 1 0 0");
}

#[tokio::test]
async fn prune_by_two_at_once_deletes_each_job_once() {
    let mut rows = history().await;
    let mut other = rows.database.connect().await;
    let (before, permit) = (NOW + Duration::days(1), permit(1));
    let run = async |conn: &mut sqlx::PgConnection| {
        let mut run = Run::new(before, false);
        while let Some(batch) = run.next(conn, &permit).await {
            batch.expect("a batch");
        }
        run.total()
    };
    let (one, two) = tokio::join!(run(&mut rows.conn), run(&mut other));
    assert_eq!((one.jobs + two.jobs, one.log_lines + two.log_lines), (119, 119 * 30));
    assert_eq!(jobs(&mut rows).await, ["219", "300"]);
}

#[tokio::test]
async fn prune_of_nothing_writes_nothing_and_pages_go_on_where_the_last_one_ended() {
    let mut rows = history().await;
    let mut seen = BTreeSet::new();
    let mut after = (NOW - Duration::days(9), JobId(id(0)));
    loop {
        let before = NOW + Duration::days(1);
        let page =
            store::jobs::prune_candidates(&mut rows.conn, &permit(1), after, 7, before, false).await.expect("a page");
        let Some(last) = page.last() else { break };
        after = (last.created_at, last.id);
        for job in &page {
            assert!(seen.insert(job.id), "{} comes twice", job.id);
        }
    }
    assert_eq!(seen.len(), 120);
    let mut run = Run::new(NOW - Duration::days(1), false);
    assert!(run.next(&mut rows.conn, &permit(1)).await.is_none());
    assert_eq!(jobs(&mut rows).await.len(), 121);
}
