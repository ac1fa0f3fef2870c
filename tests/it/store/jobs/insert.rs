//! New jobs, and jobs by their ids.

use coderdb::{
    authz::{Actor, InsertJobs, System},
    model::{
        FileId, JobId, JobStatus, JobTarget, JobType, NewJob, OrganizationId, ProvisionerType, TemplateVersionId,
        UserId,
    },
    store,
};
use serde_json::json;
use time::Duration;
use uuid::Uuid;

use super::tags;
use crate::support::{
    self,
    rows::{NOW, Rows, id},
};

fn new_job(n: u128) -> NewJob {
    NewJob {
        id: JobId(id(n)),
        created_at: NOW,
        options: serde_json::Map::from_iter([("log_level".to_owned(), json!("debug"))]),
        tags: tags(&[("scope", "organization"), ("owner", ""), ("é", "\u{1f600}")]),
        trace_metadata: Some(json!({"traceparent": "00-1"})),
    }
}

const IMPORT: JobTarget = import(1);
const DRY_RUN: JobTarget = JobTarget::DryRun(TemplateVersionId(Uuid::from_u128(1)));

/// An import of the version from the source with the id 9, which user 2 has uploaded.
const fn import(version: u128) -> JobTarget {
    JobTarget::Import {
        version: TemplateVersionId(Uuid::from_u128(version)),
        file: FileId(Uuid::from_u128(9)),
        provisioner: ProvisionerType::Echo,
    }
}

const UPLOAD: &str = "INSERT INTO files (id, hash, created_at, created_by, mimetype, data)
                      VALUES (u(9), '', now(), u(2), '', '')";

/// Coder's own server upgrades the schema of a database that it shares.
#[tokio::test]
async fn insert_names_the_column_that_it_cannot_write_and_writes_nothing() {
    let mut rows = Rows::new().await;
    let alice = rows.user(1, "{}", "{}").await;
    let permit = InsertJobs::check(&alice, OrganizationId(id(1)), DRY_RUN).expect("a member");
    let before = rows.one("SELECT count(*) FROM provisioner_jobs").await;
    for (upgrade, column) in [
        (
            "ALTER TABLE provisioner_jobs ADD COLUMN zone text; UPDATE provisioner_jobs SET zone = '';
             ALTER TABLE provisioner_jobs ALTER zone SET NOT NULL",
            "\"zone\"",
        ),
        (
            "ALTER TABLE provisioner_jobs DROP COLUMN zone; ALTER TABLE provisioner_jobs RENAME tags TO labels",
            "\"tags\"",
        ),
    ] {
        rows.run(upgrade).await;
        // The others must prepare the statement anew first.
        rows.conn = rows.database.connect().await;
        let error = store::jobs::insert(&mut rows.conn, &permit, new_job(2)).await.expect_err(upgrade);
        assert!(error.code() == "schema" && error.to_string().contains(column), "{error}");
        assert_eq!(rows.one("SELECT count(*) FROM provisioner_jobs").await, before);
    }
}

#[tokio::test]
async fn a_new_job_waits_in_the_permits_organization_for_the_permits_initiator() {
    let mut rows = Rows::new().await;
    let alice = rows.user(1, "{}", "{}").await;
    let permit = InsertJobs::check(&alice, OrganizationId(id(1)), DRY_RUN).expect("a member");
    let job = store::jobs::insert(&mut rows.conn, &permit, new_job(2)).await.expect("the job");
    assert_eq!((job.status, job.job_type), (JobStatus::Pending, JobType::TemplateVersionDryRun.into()));
    assert_eq!((job.id, job.organization_id, job.initiator_id), (JobId(id(2)), OrganizationId(id(1)), UserId(id(1))));
    assert_eq!((job.created_at, job.updated_at, job.logs_length, job.logs_overflowed), (NOW, NOW, 0, false));
    assert_eq!(job.input.template_version_id, Some(DRY_RUN.template_version_id()));
    assert_eq!(job.tags, new_job(2).tags);
    assert_eq!(job.trace_metadata, new_job(2).trace_metadata);
    let input = rows.one("SELECT input ->> 'log_level' FROM provisioner_jobs WHERE id = u(2)").await;
    assert_eq!(input, "debug");
    assert!(InsertJobs::check(&alice, OrganizationId(id(1)), IMPORT).is_err());
    assert!(InsertJobs::check(&alice, OrganizationId(id(2)), DRY_RUN).is_err());
    for system in System::ALL {
        assert!(InsertJobs::check(&Actor::system(*system), OrganizationId(id(1)), DRY_RUN).is_err(), "{system:?}");
    }

    // A dry run has the source and the provisioner of the version.
    let version =
        store::jobs::get(&mut rows.conn, &support::read_jobs(id(1)), JobId(id(1))).await.expect("the job").job;
    assert_eq!((job.file_id, job.provisioner), (version.file_id, version.provisioner));

    // The version of an import may come after its job.
    let admin = rows.user(2, "{}", "{organization-template-admin}").await;
    rows.run(UPLOAD).await;
    for (n, version) in [(3, 1), (4, 404)] {
        let target = import(version);
        let permit = InsertJobs::check(&admin, OrganizationId(id(1)), target).expect("a template admin");
        let job = store::jobs::insert(&mut rows.conn, &permit, new_job(n)).await.expect("the job");
        assert_eq!((job.job_type, job.initiator_id), (JobType::TemplateVersionImport.into(), UserId(id(2))));
        assert_eq!(job.input.template_version_id, Some(target.template_version_id()));
        assert_eq!((job.file_id, job.provisioner), (FileId(id(9)), ProvisionerType::Echo.into()));
    }
    // Not from a source of somebody else.
    let other = rows.user(3, "{owner}", "{}").await;
    let permit = InsertJobs::check(&other, OrganizationId(id(1)), IMPORT).expect("an owner");
    let error = store::jobs::insert(&mut rows.conn, &permit, new_job(5)).await.expect_err("the source of user 2");
    assert_eq!(error.code(), "not_found");
}

#[tokio::test]
async fn a_job_that_cannot_be_stored_is_refused_by_name_and_leaves_nothing() {
    let mut rows = Rows::new().await;
    let owner = rows.user(1, "{owner}", "{}").await;
    let before = rows.everything().await;
    let with = |change: fn(&mut NewJob)| {
        let mut job = new_job(2);
        change(&mut job);
        job
    };
    let refused: &[(NewJob, &str, &str)] = &[
        (with(|job| job.tags = tags(&[("a", "b\0")])), "invalid", "tags"),
        (with(|job| job.tags = tags(&[("a\0", "b")])), "invalid", "tags"),
        (with(|job| job.trace_metadata = Some(json!({"a": [{"b": "\0"}]}))), "invalid", "trace_metadata"),
        (with(|job| drop(job.options.insert("a".into(), json!("\0")))), "invalid", "options"),
        (with(|job| drop(job.options.insert("template_version_id".into(), json!(1)))), "invalid", "options"),
        (with(|job| drop(job.options.insert("workspace_build_id".into(), json!(1)))), "invalid", "options"),
        (with(|job| job.created_at = job.created_at.replace_year(0).expect("a year")), "invalid", "created_at"),
        (with(|job| job.id = JobId(id(1))), "conflict", "provisioner_jobs_pkey"),
    ];
    let permit = InsertJobs::check(&owner, OrganizationId(id(1)), DRY_RUN).expect("an owner");
    for (job, code, names) in refused {
        let error = store::jobs::insert(&mut rows.conn, &permit, job.clone()).await.expect_err(names);
        assert_eq!(error.code(), *code, "{error}");
        assert!(error.to_string().contains(names), "{error}");
    }
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn a_job_is_about_a_version_of_its_own_organization() {
    let mut rows = Rows::new().await;
    let owner = rows.user(2, "{owner}", "{}").await;
    rows.run(UPLOAD).await;
    rows.run(
        "SELECT add_organization(2), add_organization(3), add_template(2), add_job(2);
         UPDATE templates SET organization_id = u(2) WHERE id = u(2);
         SELECT add_version(2, 2);
         UPDATE template_versions SET organization_id = u(2) WHERE id = u(2);
         UPDATE organizations SET deleted = true WHERE id = u(3)",
    )
    .await;
    let before = rows.everything().await;
    let version = |n| TemplateVersionId(id(n));
    let nowhere = [
        (1, import(2)),
        (1, JobTarget::DryRun(version(2))),
        (1, JobTarget::DryRun(version(404))),
        (2, JobTarget::DryRun(version(1))),
        (2, import(1)),
        (3, import(404)),
        (404, import(404)),
    ];
    for (organization, target) in nowhere {
        let permit = InsertJobs::check(&owner, OrganizationId(id(organization)), target).expect("an owner");
        let error = store::jobs::insert(&mut rows.conn, &permit, new_job(5)).await.expect_err("not there");
        let missing = format!("template version or its source not found: {}", target.template_version_id());
        assert_eq!(error.to_string(), missing);
    }
    assert_eq!(rows.everything().await, before);
    let permit = InsertJobs::check(&owner, OrganizationId(id(2)), JobTarget::DryRun(version(2))).expect("an owner");
    store::jobs::insert(&mut rows.conn, &permit, new_job(5)).await.expect("the job");
}

#[tokio::test]
async fn jobs_by_ids_are_those_of_the_organization_and_the_others_are_left_out() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_organization(2), add_job(2), add_job(3)").await;
    rows.run("UPDATE provisioner_jobs SET organization_id = u(2) WHERE id = u(3)").await;
    let wanted = [1, 2, 3, 404].map(|n| JobId(id(n)));
    for (organization, expected) in [(1, &wanted[..2]), (2, &wanted[2..3])] {
        let permit = support::read_jobs(id(organization));
        let mut found = store::jobs::by_ids(&mut rows.conn, &permit, &wanted).await.expect("the jobs");
        found.sort_by_key(|job| job.id);
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), expected);
        for job in found {
            assert_eq!(store::jobs::get(&mut rows.conn, &permit, job.id).await.expect("the job").job, job);
        }
        assert_eq!(store::jobs::by_ids(&mut rows.conn, &permit, &[]).await.expect("nothing"), []);
    }
}

#[tokio::test]
async fn created_after_is_strict_oldest_first_and_within_the_organization() {
    let mut rows = Rows::new().await;
    rows.run(
        "SELECT add_organization(2), add_job(2), add_job(3), add_job(4);
         UPDATE provisioner_jobs SET created_at = at_second(3) WHERE id = u(2);
         UPDATE provisioner_jobs SET created_at = at_second(2) WHERE id = u(3);
         UPDATE provisioner_jobs SET created_at = at_second(9), organization_id = u(2) WHERE id = u(4)",
    )
    .await;
    let permit = support::read_jobs(id(1));
    let after = |seconds| NOW + Duration::seconds(seconds);
    let mut found = Vec::new();
    for seconds in [-1, 0, 2, 3] {
        let jobs = store::jobs::created_after(&mut rows.conn, &permit, after(seconds)).await.expect("jobs");
        found.push(jobs.into_iter().map(|job| job.id.0).collect::<Vec<_>>());
    }
    assert_eq!(found, [vec![id(1), id(3), id(2)], vec![id(3), id(2)], vec![id(2)], vec![]]);
}
