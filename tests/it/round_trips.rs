//! What each operation costs on the wire, once its statement is prepared.

use coderdb::{
    authz::{
        Actor, CancelJobs, LoadActors, ReadOrganizations, ReadTemplates, ReadUsers, ReadWorkspaces, RunJobs, System,
    },
    demo,
    model::{
        Capabilities, DaemonId, JobFilter, JobType, LogLevel, LogSource, NewJobLog, PageRequest, ProvisionerType, Tags,
        UserId,
    },
    store,
};

use crate::support::{self, operator, proxy::Counted, read_jobs, read_quota};

/// Runs the expression twice, and counts the second time.
macro_rules! round_trips {
    ($counted:ident, $($name:literal: $call:expr => $expected:literal,)*) => {$(
        let _ = $call.await.expect($name);
        $counted.take();
        let _ = $call.await.expect($name);
        assert_eq!($counted.take(), $expected, $name);
    )*};
}

#[tokio::test]
async fn every_read_is_one_round_trip() {
    let database = support::database().await;
    let options = demo::Options::default();
    let _ = demo::load(&mut database.connect().await, &options, |_| {}).await.unwrap();
    let mut counted = Counted::connect(&database).await;
    let organizations = ReadOrganizations::of(&operator());
    let organization = store::organizations::default(&mut counted.conn, &organizations).await.unwrap().id;
    let (users, jobs) = (ReadUsers::check(&operator()).unwrap(), read_jobs(organization));
    let templates = ReadTemplates::check(&operator(), organization).unwrap();
    let workspaces = ReadWorkspaces::check(&operator(), organization).unwrap();
    let quota = read_quota(UserId::PREBUILDS, organization);
    let filter = JobFilter::default();
    let page = store::jobs::list(&mut counted.conn, &jobs, &filter, PageRequest::first(1)).await.unwrap();
    let job = page.rows[0].job.id;
    let found = store::workspaces::by_name(&mut counted.conn, &workspaces, "api").await.unwrap();
    let workspace = &found[0];
    let now = demo::ANCHOR;

    round_trips! { counted,
        "actors::load": store::actors::load(&mut counted.conn, &LoadActors::check(&operator()).unwrap(), UserId::PREBUILDS) => 1,
        "jobs::list": store::jobs::list(&mut counted.conn, &jobs, &filter, PageRequest::first(50)) => 1,
        "jobs::get": store::jobs::get(&mut counted.conn, &jobs, job) => 1,
        "jobs::by_ids_with_queue_position": store::jobs::by_ids_with_queue_position(
            &mut counted.conn, &jobs, &[job], now, store::jobs::STALE_INTERVAL) => 1,
        "organizations::by_name": store::organizations::by_name(&mut counted.conn, &organizations, "coder") => 1,
        "organizations::default": store::organizations::default(&mut counted.conn, &organizations) => 1,
        "organizations::get": store::organizations::get(&mut counted.conn, &organizations, organization) => 1,
        "quota::usage": store::quota::usage(&mut counted.conn, &quota) => 1,
        "templates::by_name": store::templates::by_name(&mut counted.conn, &templates, "kubernetes") => 1,
        "templates::get": store::templates::get(&mut counted.conn, &templates, workspace.template_id) => 1,
        "users::by_username": store::users::by_username(&mut counted.conn, &users, "prebuilds") => 1,
        "users::get": store::users::get(&mut counted.conn, &users, UserId::PREBUILDS) => 1,
        "workspaces::by_name": store::workspaces::by_name(&mut counted.conn, &workspaces, "api") => 1,
        "workspaces::get": store::workspaces::get(&mut counted.conn, &workspaces, workspace.id) => 1,
    }
}

#[tokio::test]
async fn every_step_of_a_jobs_life_is_one_round_trip() {
    let database = support::database().await;
    let options = demo::Options::default();
    let _ = demo::load(&mut database.connect().await, &options, |_| {}).await.unwrap();
    let mut counted = Counted::connect(&database).await;
    let actor = Actor::system(System::ProvisionerDaemon);
    let organization = store::organizations::default(&mut counted.conn, &ReadOrganizations::of(&operator())).await;
    let organization = organization.unwrap().id;
    let daemon: DaemonId = "c0de0000-000a-4000-8000-000000000002".parse().unwrap();
    let run = RunJobs::check(&actor, organization, daemon).unwrap();
    let cancel = CancelJobs::check(&operator(), organization).unwrap();
    let tags = Tags::from_iter([("scope", "organization"), ("owner", ""), ("env", "on-prem")]);
    let capabilities = Capabilities { provisioners: &[ProvisionerType::Terraform], tags: &tags };
    let now = demo::ANCHOR;
    // The import is first in the queue, then come builds of prebuilds.
    let taken = store::jobs::acquire_batch(&mut counted.conn, &run, capabilities, now, 3).await.unwrap();
    let job = taken.iter().find(|job| job.job_type == JobType::WorkspaceBuild).expect("a build").id;
    let line = NewJobLog {
        created_at: now,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: "Planning Infrastructure".to_owned(),
        output: "a line".to_owned(),
    };
    let lines = vec![line; 200];

    round_trips! { counted,
        "jobs::acquire": store::jobs::acquire(&mut counted.conn, &run, capabilities, now) => 1,
        "jobs::acquire_batch": store::jobs::acquire_batch(&mut counted.conn, &run, capabilities, now, 2) => 1,
        "jobs::update": store::jobs::update(&mut counted.conn, &run, job, now) => 1,
        "job_logs::append": store::job_logs::append(&mut counted.conn, &run, job, &lines) => 1,
        "quota::commit": store::quota::commit(&mut counted.conn, &run, job, 1) => 1,
        "jobs::cancel": store::jobs::cancel(&mut counted.conn, &cancel, job, None, now) => 1,
        "jobs::complete": store::jobs::complete(&mut counted.conn, &run, job, now, None) => 1,
        "jobs::fail": store::jobs::fail(&mut counted.conn, &run, job, now, coderdb::model::Failure::default()) => 1,
    }
}
