//! What an operator does at the command line to a queue that is flooded, failures included.

mod cancel_many;
mod cancel_one;
mod logs;
mod prebuilds;
mod prune;

use assert_cmd::Command;
use tokio::task::block_in_place;

use crate::support::{Outcome, rows::Rows, run};

/// Jobs 1001 and on wait: three of four for prebuilt workspaces, the others are imports of user 1. Job 1 is a build that
/// runs, 2 a dry run that runs, 3 has failed, 4 is canceled, and 5 is being canceled.
async fn flooded(jobs: u32) -> Rows {
    let mut rows = Rows::new().await;
    rows.run(&format!(
        "UPDATE templates SET allow_user_cancel_workspace_jobs = false;
         SELECT add_job(n) FROM generate_series(2, 5) AS n;
         SELECT add_job(1000 + n) FROM generate_series(1, {jobs}) AS n;
         UPDATE provisioner_jobs SET created_at = at_second(n), initiator_id = prebuilds()
         FROM generate_series(1, {jobs}) AS n WHERE id = u(1000 + n) AND n % 4 <> 0;
         UPDATE provisioner_jobs SET type = 'template_version_import' WHERE id > u(1000) AND initiator_id = u(1);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0) WHERE id <= u(5);
         UPDATE provisioner_jobs SET type = 'template_version_dry_run' WHERE id = u(2);
         UPDATE provisioner_jobs SET completed_at = at_second(1), error = 'no' WHERE id = u(3);
         UPDATE provisioner_jobs SET completed_at = at_second(1), canceled_at = at_second(1) WHERE id = u(4);
         UPDATE provisioner_jobs SET canceled_at = at_second(1) WHERE id = u(5)"
    ))
    .await;
    rows
}

fn coderdb(rows: &Rows) -> Command {
    let mut coderdb = rows.database.coderdb();
    coderdb.env("CODER_ORGANIZATION", "org1");
    coderdb
}

fn cancel(rows: &Rows, args: &[&str]) -> Outcome {
    block_in_place(|| run(coderdb(rows).args(["provisioner", "jobs", "cancel"]).args(args)))
}

async fn statuses(rows: &mut Rows) -> Vec<String> {
    rows.all("SELECT job_status || ' ' || count(*) FROM provisioner_jobs GROUP BY job_status ORDER BY job_status").await
}
