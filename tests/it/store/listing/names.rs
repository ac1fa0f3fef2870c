//! The names that a listing joins.

use coderdb::{
    model::{JobDetails, JobFilter, PageRequest, Transition},
    store::{self, Error},
};
use serde_json::json;

use super::{ELSEWHERE, ORGANIZATION, TEMPLATE, USER, VERSION, WORKSPACE, World, n, untagged};
use crate::support::{
    self,
    random_database::{self as rows, with},
};

#[tokio::test]
async fn a_build_shows_its_workspace_version_template_and_transition() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, untagged(), json!({})).await;
    world.build(1, WORKSPACE, 1, json!({"transition": "stop"})).await;
    sqlx::query("UPDATE provisioner_jobs SET worker_id = $1").bind(n(100)).execute(&mut world.conn).await.unwrap();
    let row = world.get(1).await;
    assert_eq!(row.workspace_build_transition, Some(Transition::Stop.into()));
    assert_eq!((row.workspace_id, row.workspace_name.as_str()), (Some(WORKSPACE.into()), "workspace"));
    assert_eq!((row.template_id, row.template_name.as_str()), (Some(TEMPLATE.into()), "template"));
    assert_eq!((row.template_display_name.as_str(), row.template_icon.as_str()), ("A Template", "/icon/k8s.svg"));
    assert_eq!(row.template_version_name, "v1");
    assert_eq!((row.job.worker_id, row.worker_name.as_str()), (Some(n(100).into()), "daemon-100"));

    // Soft deletion hides nothing; the deletion of a daemon leaves its id.
    for sql in [
        "UPDATE workspaces SET deleted = true",
        "UPDATE templates SET deleted = true",
        "DELETE FROM provisioner_daemons",
    ] {
        sqlx::query(sql).execute(&mut world.conn).await.unwrap();
    }
    let later = world.get(1).await;
    assert_eq!(later, JobDetails { worker_name: String::new(), ..row });
}

#[tokio::test]
async fn an_import_shows_its_version_and_template_and_no_workspace() {
    let mut world = World::new().await;
    world.job(1, json!({"type": "template_version_import", "input": {"template_version_id": VERSION}})).await;
    let row = world.get(1).await;
    assert_eq!((row.template_version_name.as_str(), row.template_name.as_str()), ("v1", "template"));
    assert_eq!((row.workspace_id, row.workspace_name.as_str(), row.workspace_build_transition), (None, "", None));

    world.insert("template_versions", rows::version(n(50), ORGANIZATION, USER, None, "draft")).await;
    world.job(2, json!({"input": {"template_version_id": n(50)}})).await;
    let row = world.get(2).await;
    assert_eq!(
        (row.template_version_name.as_str(), row.template_id),
        ("draft", None),
        "a version may have no template yet"
    );
}

#[tokio::test]
async fn a_version_in_the_input_outranks_the_version_of_the_build() {
    let mut world = World::new().await;
    world.insert("template_versions", rows::version(n(50), ORGANIZATION, USER, None, "v2")).await;
    world.build(1, WORKSPACE, 1, json!({})).await;
    for (id, version, name) in
        [(2, json!(n(50)), "v2"), (3, json!(null), ""), (4, json!(n(51)), ""), (5, json!("v2"), "")]
    {
        world.job(id, json!({"input": {"workspace_build_id": n(1), "template_version_id": version}})).await;
        let row = world.get(id).await;
        assert_eq!((row.template_version_name.as_str(), row.workspace_name.as_str()), (name, "workspace"));
    }
}

#[tokio::test]
async fn a_name_of_another_organization_never_leaks() {
    let mut world = World::new().await;
    let theirs = json!({"organization_id": ELSEWHERE});
    world.build(1, WORKSPACE, 1, json!({})).await;
    world.job(2, with(json!({"organization_id": null, "input": {"workspace_build_id": n(1)}}), theirs.clone())).await;
    world.job(3, with(json!({"organization_id": null, "input": {"template_version_id": VERSION}}), theirs)).await;
    for id in [2, 3] {
        let row = store::jobs::get(&mut world.conn, &support::read_jobs(ELSEWHERE), n(id).into()).await.unwrap();
        let names = [&row.workspace_name, &row.template_version_name, &row.template_name, &row.template_icon];
        assert_eq!(names, [""; 4], "job {id}");
        assert_eq!(
            (row.workspace_id, row.template_id, row.template_display_name.as_str()),
            (None, None, ""),
            "job {id}"
        );
    }
    // A version of ours of a template of theirs shows its own name alone.
    world.insert("templates", rows::template(n(60), ELSEWHERE, USER, "secret")).await;
    world.insert("template_versions", rows::version(n(61), ORGANIZATION, USER, Some(n(60)), "v1")).await;
    world.job(4, json!({"input": {"template_version_id": n(61)}})).await;
    let row = world.get(4).await;
    assert_eq!((row.template_version_name.as_str(), row.template_name.as_str(), row.template_id), ("v1", "", None));
    assert_eq!(world.ids(&JobFilter { template: Some(n(60).into()), ..JobFilter::default() }).await, []);
    // Nor does a filter tell that a job has to do with something of theirs.
    for filter in [
        JobFilter { template: Some(TEMPLATE.into()), ..JobFilter::default() },
        JobFilter { workspace: Some(WORKSPACE.into()), ..JobFilter::default() },
    ] {
        let page = store::jobs::list(&mut world.conn, &support::read_jobs(ELSEWHERE), &filter, PageRequest::default())
            .await
            .unwrap();
        assert_eq!(page.rows, []);
    }
}

#[tokio::test]
async fn a_job_of_another_organization_is_not_found() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    for (organization, id) in [(ELSEWHERE, 1), (n(70), 1), (ORGANIZATION, 2)] {
        let outcome = store::jobs::get(&mut world.conn, &support::read_jobs(organization), n(id).into()).await;
        assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
    }
    let ids = JobFilter { ids: vec![n(1).into()], ..JobFilter::default() };
    let page =
        store::jobs::list(&mut world.conn, &support::read_jobs(ELSEWHERE), &ids, PageRequest::default()).await.unwrap();
    assert_eq!(page.rows, []);
}
