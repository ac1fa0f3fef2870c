//! Claims: who takes which job.

use std::sync::Arc;

use coderdb::{
    model::{Capabilities, DaemonId, Job, JobId, ProvisionerType},
    store::{self, Error},
};
use time::Duration;
use tokio::task::JoinSet;

use super::{BOTH, tags};
use crate::support::rows::{NOW, Rows, daemon, id};

#[tokio::test]
async fn a_daemon_gets_people_first_then_the_oldest_and_only_what_it_can_take() {
    let mut rows = Rows::new().await;
    rows.run(
        "SELECT add_organization(2);
         DELETE FROM provisioner_jobs;
         SELECT add_job(n) FROM generate_series(10, 20) AS n;
         UPDATE provisioner_jobs SET tags = '{\"scope\": \"organization\", \"owner\": \"\"}';
         UPDATE provisioner_jobs SET created_at = at_second(1), initiator_id = prebuilds() WHERE id = u(10);
         UPDATE provisioner_jobs SET created_at = at_second(3) WHERE id = u(11);
         UPDATE provisioner_jobs SET created_at = at_second(2) WHERE id = u(12);
         UPDATE provisioner_jobs SET organization_id = u(2) WHERE id = u(13);
         UPDATE provisioner_jobs SET provisioner = 'terraform' WHERE id = u(14);
         UPDATE provisioner_jobs SET tags = '{\"scope\": \"organization\", \"owner\": \"\", \"gpu\": \"1\"}' WHERE id = u(15);
         UPDATE provisioner_jobs SET started_at = at_second(0) WHERE id = u(16);
         UPDATE provisioner_jobs SET canceled_at = at_second(0), completed_at = at_second(0) WHERE id = u(17);
         UPDATE provisioner_jobs SET completed_at = at_second(0), error = 'x' WHERE id = u(18);
         UPDATE provisioner_jobs SET created_at = at_second(4), canceled_at = at_second(1) WHERE id = u(19);
         UPDATE provisioner_jobs SET created_at = at_second(5), error = '' WHERE id = u(20)",
    )
    .await;
    let untagged = tags(&[("scope", "organization"), ("owner", "")]);
    let offer = Capabilities { provisioners: &[ProvisionerType::Echo], tags: &untagged };
    let permit = daemon(1, 7);
    let now = NOW + Duration::minutes(1);
    let mut order = Vec::new();
    while let Some(job) = store::jobs::acquire(&mut rows.conn, &permit, offer, now).await.expect("an answer") {
        assert_eq!((job.started_at, job.updated_at), (Some(now), now));
        assert_eq!(job.worker_id, Some(DaemonId(id(7))));
        order.push(job.id.0);
    }
    assert_eq!(order, [id(12), id(11), id(19), id(20), id(10)]);
    let rest = "SELECT count(*) FROM provisioner_jobs WHERE worker_id IS NULL";
    assert_eq!(rows.one(rest).await, "6");

    rows.run("UPDATE provisioner_jobs SET worker_id = NULL, started_at = NULL WHERE worker_id IS NOT NULL").await;
    let mut batches = Vec::new();
    for limit in [0, 3, 9, 9] {
        let batch = store::jobs::acquire_batch(&mut rows.conn, &permit, offer, now, limit).await.expect("jobs");
        assert!(batch.iter().all(|job| job.worker_id == Some(DaemonId(id(7))) && job.started_at == Some(now)));
        batches.push(batch.into_iter().map(|job| job.id.0).collect::<Vec<_>>());
    }
    assert_eq!(batches, [vec![], vec![id(12), id(11), id(19)], vec![id(20), id(10)], vec![]]);
    let none = Capabilities { provisioners: &[], tags: &untagged };
    assert_eq!(store::jobs::acquire(&mut rows.conn, &permit, none, now).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_daemon_with_bad_tags_is_refused_by_name() {
    let mut rows = Rows::new().await;
    let bad = tags(&[("a", "\0")]);
    let offer = Capabilities { provisioners: BOTH, tags: &bad };
    let error = store::jobs::acquire(&mut rows.conn, &daemon(1, 7), offer, NOW).await.expect_err("NUL");
    assert!(matches!(error, Error::Invalid { field: "tags", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_daemons_take_each_job_once_and_none_is_starved_by_tags() {
    const KINDS: usize = 4;
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM provisioner_jobs;
         SELECT add_job(n) FROM generate_series(1000, 1399) AS n;
         UPDATE provisioner_jobs SET tags = jsonb_build_object('kind', (right(id::text, 3)::integer % 4)::text),
             created_at = created_at + right(id::text, 3)::integer * interval '1 second'",
    )
    .await;
    let database = Arc::new(rows.database);
    let mut daemons = JoinSet::new();
    for n in 0..32_usize {
        let mut conn = database.connect().await;
        daemons.spawn(async move {
            let own = tags(&[("kind", &(n % KINDS).to_string())]);
            let offer = Capabilities { provisioners: BOTH, tags: &own };
            let permit = daemon(1, n as u128 + 1);
            let mut taken = Vec::new();
            loop {
                // Some take one at a time, others several.
                let jobs = if n < 16 {
                    store::jobs::acquire(&mut conn, &permit, offer, NOW).await.expect("an answer").into_iter().collect()
                } else {
                    store::jobs::acquire_batch(&mut conn, &permit, offer, NOW, 3).await.expect("an answer")
                };
                if jobs.is_empty() {
                    return taken;
                }
                assert!(jobs.iter().all(|job| job.tags == own && job.worker_id == Some(permit.daemon())));
                taken.extend(jobs.into_iter().map(|job: Job| job.id));
            }
        });
    }
    let mut taken: Vec<JobId> = daemons.join_all().await.into_iter().flatten().collect();
    taken.sort();
    assert_eq!(taken.len(), 400);
    taken.dedup();
    assert_eq!(taken.len(), 400, "a job was taken twice");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM provisioner_jobs WHERE worker_id IS NULL")
        .fetch_one(&mut rows.conn)
        .await
        .expect("a count");
    assert_eq!(left, 0);
}
