//! The timings of jobs.

use coderdb::{
    authz::ReadJobLogs,
    model::{ByWorker, JobId, JobTiming, OrganizationId, TimingStage},
    store::{self, Error},
};
use time::Duration;

use crate::support::{
    self,
    rows::{NOW, Rows, daemon, id},
};

fn timing(start: i64, end: i64, stage: TimingStage) -> JobTiming {
    let at = |seconds| NOW + Duration::seconds(seconds);
    JobTiming {
        started_at: at(start),
        ended_at: at(end),
        stage,
        source: "terraform".into(),
        action: "create".into(),
        resource: format!("docker_volume.{stage}"),
    }
}

#[tokio::test]
async fn timings_come_back_by_their_start() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(2); UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    let [init, plan, graph, apply] = [
        timing(0, 1, TimingStage::Init),
        timing(1, 1, TimingStage::Plan),
        timing(3, 4, TimingStage::Graph),
        timing(4, 9, TimingStage::Apply),
    ];
    let (permit, job) = (daemon(1, 7), JobId(id(1)));
    let reads = ReadJobLogs::check(&support::operator(), OrganizationId(id(1))).expect("an operator");
    assert_eq!(store::job_timings::list(&mut rows.conn, &reads, job).await.expect("the job"), []);
    let first = [apply.clone(), init.clone()];
    let stored = store::job_timings::insert(&mut rows.conn, &permit, job, &first).await.expect("the job");
    assert_eq!(stored, ByWorker::Done(2));
    let second = [graph.clone(), plan.clone()];
    let stored = store::job_timings::insert(&mut rows.conn, &permit, job, &second).await.expect("the job");
    assert_eq!(stored, ByWorker::Done(2));
    let again = [plan.clone(), timing(9, 9, TimingStage::Apply)];
    let stored = store::job_timings::insert(&mut rows.conn, &permit, job, &again).await.expect("the job");
    assert_eq!(stored, ByWorker::Done(1), "what is there is not stored again");
    let none = store::job_timings::insert(&mut rows.conn, &permit, job, &[]).await.expect("the job");
    assert_eq!(none, ByWorker::Done(0));
    let all = store::job_timings::list(&mut rows.conn, &reads, job).await.expect("the job");
    let known: Vec<_> = all
        .into_iter()
        .map(|JobTiming { started_at, ended_at, stage, source, action, resource }| {
            let stage = stage.known().expect("known");
            JobTiming { started_at, ended_at, stage, source, action, resource }
        })
        .collect();
    assert_eq!(known, [init, plan, graph, apply, timing(9, 9, TimingStage::Apply)]);
    assert_eq!(store::job_timings::list(&mut rows.conn, &reads, JobId(id(2))).await.expect("the job"), []);
}

#[tokio::test]
async fn timings_that_are_not_the_daemons_to_store_or_make_no_sense_are_refused() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_organization(2), add_job(2); UPDATE provisioner_jobs SET worker_id = u(7) WHERE id = u(1)")
        .await;
    let before = rows.everything().await;
    let good = timing(0, 1, TimingStage::Init);
    let one = std::slice::from_ref(&good);
    let other = store::job_timings::insert(&mut rows.conn, &daemon(1, 8), JobId(id(1)), one).await.expect("the job");
    assert_eq!(other, ByWorker::OtherOwner);
    let idle = store::job_timings::insert(&mut rows.conn, &daemon(1, 7), JobId(id(2)), one).await.expect("the job");
    assert_eq!(idle, ByWorker::NotRunningYet);
    for (organization, job) in [(2, 1), (1, 404)] {
        let job = JobId(id(job));
        let error = store::job_timings::insert(&mut rows.conn, &daemon(organization, 7), job, one).await;
        assert_eq!(error.expect_err("out of scope").to_string(), format!("provisioner job not found: {job}"));
        let reads = ReadJobLogs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator");
        let error = store::job_timings::list(&mut rows.conn, &reads, job).await;
        assert_eq!(error.expect_err("out of scope").to_string(), format!("provisioner job not found: {job}"));
    }
    let bad = [
        ("ended_at", timing(1, 0, TimingStage::Init)),
        ("started_at", JobTiming { started_at: NOW.replace_year(-1).expect("a year"), ..good.clone() }),
    ];
    for (field, bad) in bad {
        let error = store::job_timings::insert(&mut rows.conn, &daemon(1, 7), JobId(id(1)), &[good.clone(), bad]).await;
        assert!(matches!(error, Err(Error::Invalid { field: named, .. }) if named == field), "{error:?}");
    }
    assert_eq!(rows.everything().await, before);
}
