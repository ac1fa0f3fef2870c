//! Jobs of other organizations, and who may do what with a job.

use coderdb::{
    authz::{Actor, CancelJobs, ReapJobs, RunJobs, System},
    model::{CancelOutcome, DaemonId, ExpectedStatus, Failure, JobId, OrganizationId},
    store::{self, Error},
};
use sqlx::Connection;
use time::Duration;

use super::{OWN, cancels_all, locks};
use crate::support::{
    self,
    rows::{NOW, Rows, daemon, id},
};

#[tokio::test]
async fn a_job_of_another_organization_looks_like_none_and_stays_as_it_is() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_organization(2); UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)")
        .await;
    let before = rows.everything().await;
    for (job, missing) in [(1, false), (404, true)] {
        let (job, conn, later) = (JobId(id(job)), &mut rows.conn, NOW + Duration::hours(1));
        let organization = if missing { 1 } else { 2 };
        let permit = daemon(organization, OWN);
        let errors = [
            store::jobs::heartbeat(conn, &permit, job, later).await.map(|_| ()),
            store::jobs::complete(conn, &permit, job, later, None).await.map(|_| ()),
            store::jobs::fail(conn, &permit, job, later, Failure::default()).await.map(|_| ()),
            store::jobs::cancel(conn, &cancels_all(organization), job, None, later).await.map(|_| ()),
            store::jobs::get_with_lock(conn, &locks(organization), job).await.map(|_| ()),
        ];
        for error in errors {
            let error = error.expect_err("out of scope");
            assert_eq!(error.to_string(), format!("provisioner job not found: {job}"));
        }
        let locked = store::jobs::get_for_update_skip_locked(conn, &locks(organization), job).await;
        assert_eq!(locked.expect("an answer"), None);
    }
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn who_may_cancel_what_is_as_the_domain_says() {
    let mut rows = Rows::new().await;
    // Job 1 builds the workspace of user 1; 2 is a dry run and 3 an import that user 1 asked for. All of them run.
    rows.run(
        "SELECT add_job(2), add_job(3);
         UPDATE provisioner_jobs SET type = 'template_version_dry_run' WHERE id = u(2);
         UPDATE provisioner_jobs SET type = 'template_version_import' WHERE id = u(3);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)",
    )
    .await;
    let actors = [
        ("the workspace's owner", rows.user(1, "{}", "{}").await),
        ("a member", rows.user(2, "{}", "{}").await),
        ("an owner", rows.user(3, "{owner}", "{}").await),
        ("a template admin", rows.user(4, "{template-admin}", "{}").await),
        ("an organization admin", rows.user(5, "{}", "{organization-admin}").await),
        ("an organization template admin", rows.user(6, "{}", "{organization-template-admin}").await),
        ("an auditor", rows.user(7, "{auditor}", "{organization-auditor}").await),
        ("the operator", support::operator()),
    ];
    let mut table = String::new();
    for users_may in [true, false] {
        rows.run(&format!("UPDATE templates SET allow_user_cancel_workspace_jobs = {users_may}")).await;
        for (name, actor) in &actors {
            let permit = CancelJobs::check(actor, OrganizationId(id(1))).expect("a member");
            table += &[*name, if users_may { ", true:" } else { ", false:" }].concat();
            for (job, expected) in [(1, None), (1, Some(ExpectedStatus::Pending)), (2, None), (3, None)] {
                let mut transaction = rows.conn.begin().await.expect("a transaction");
                let outcome = store::jobs::cancel(&mut transaction, &permit, JobId(id(job)), expected, NOW).await;
                table.push_str(match outcome {
                    Ok(CancelOutcome::Canceling(_)) => " yes",
                    Ok(CancelOutcome::NotAllowed) => " 403",
                    Ok(CancelOutcome::NotInExpectedState(_)) => " 412",
                    Err(Error::NotFound { .. }) => " 404",
                    other => panic!("{other:?}"),
                });
                transaction.rollback().await.expect("the rollback");
            }
            table.push('\n');
        }
    }
    // The build, the build if it were pending, the dry run, the import.
    assert_eq!(
        table,
        "the workspace's owner, true: yes 412 yes 404\n\
         a member, true: 404 404 404 404\n\
         an owner, true: yes 412 yes yes\n\
         a template admin, true: 404 404 404 yes\n\
         an organization admin, true: yes 412 yes yes\n\
         an organization template admin, true: 404 404 404 yes\n\
         an auditor, true: 404 404 404 404\n\
         the operator, true: yes 412 yes yes\n\
         the workspace's owner, false: 403 412 yes 404\n\
         a member, false: 404 404 404 404\n\
         an owner, false: yes 412 yes yes\n\
         a template admin, false: 404 404 404 yes\n\
         an organization admin, false: 403 412 yes yes\n\
         an organization template admin, false: 404 404 404 yes\n\
         an auditor, false: 404 404 404 404\n\
         the operator, false: yes 412 yes yes\n"
    );
    let outside = OrganizationId(id(2));
    assert!(actors[..2].iter().all(|(_, actor)| CancelJobs::check(actor, outside).is_err()));
}

#[test]
fn only_daemons_run_jobs_and_only_the_reaper_reaps() {
    let organization = OrganizationId(id(1));
    for system in System::ALL {
        let actor = Actor::system(*system);
        let runs = RunJobs::check(&actor, organization, DaemonId(id(7))).is_ok();
        assert_eq!(runs, *system == System::ProvisionerDaemon, "{system:?}");
        assert_eq!(ReapJobs::check(&actor).is_ok(), *system == System::Reaper, "{system:?}");
        assert_eq!(CancelJobs::check(&actor, organization).is_ok(), *system == System::Operator, "{system:?}");
    }
}
