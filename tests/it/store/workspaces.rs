//! Workspaces: names and creation.

use std::time::Duration;

use coderdb::{
    authz::{Actor, CreateWorkspaces, ReadWorkspaces, System},
    model::{Entity, NewWorkspace, OrganizationId, TemplateId, UserId, WorkspaceId, WorkspaceName},
    store::{self, Error},
};
use sqlx::{Connection, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

fn u(n: u32) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

async fn world() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sqlx::raw_sql(include_str!("../golden/rows.sql")).execute(&mut conn).await.unwrap();
    sqlx::raw_sql("SELECT add_member(1, 1), add_user(2), add_user(3), add_member(1, 3)")
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::raw_sql("UPDATE users SET status = 'suspended' WHERE id = u(3)").execute(&mut conn).await.unwrap();
    (database, conn)
}

async fn create(conn: &mut PgConnection, organization: u32, owner: u32, new: &NewWorkspace) -> Result<(), Error> {
    let who = support::site_owner(conn).await;
    let permit = CreateWorkspaces::check(&who, UserId(u(owner)), OrganizationId(u(organization))).unwrap();
    store::workspaces::create(conn, &permit, new, NOW).await
}

fn new(n: u32, name: &str) -> NewWorkspace {
    NewWorkspace {
        id: WorkspaceId(u(n)),
        name: name.parse().unwrap(),
        template_id: TemplateId(u(1)),
        autostart_schedule: None,
        ttl: Some(Duration::from_secs(1)),
    }
}

async fn count(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM workspaces").fetch_one(conn).await.unwrap()
}

#[test]
fn a_name_is_letters_digits_and_single_hyphens_inside() {
    for name in ["a", "1", "a-b", "A-1-z", "New", "CREATE", "new-1", "creates", &"x".repeat(32)] {
        assert_eq!(name.parse::<WorkspaceName>().unwrap().as_str(), name);
    }
    for text in [
        "",
        "-",
        "-a",
        "a-",
        "a--b",
        "a b",
        "a_b",
        "ä",
        "a\0",
        "a\n",
        "new",
        "create",
        &"x".repeat(33),
        &"x".repeat(5_000),
    ] {
        let error = Error::from(text.parse::<WorkspaceName>().unwrap_err());
        assert!(matches!(error, Error::Invalid { field: "name", .. }), "{text:?}");
    }
}

#[tokio::test]
async fn a_workspace_that_was_created_is_found() {
    let (_database, mut conn) = world().await;
    create(&mut conn, 1, 1, &new(2, "dev")).await.unwrap();
    let permit = ReadWorkspaces::check(&support::operator(), OrganizationId(u(1))).unwrap();
    let found = store::workspaces::by_name(&mut conn, &permit, "DEV").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].owner_id), (WorkspaceId(u(2)), UserId(u(1))));
    let ttl: i64 =
        sqlx::query_scalar("SELECT ttl FROM workspaces WHERE name = 'dev'").fetch_one(&mut conn).await.unwrap();
    assert_eq!(ttl, 1_000_000_000);
}

#[tokio::test]
async fn a_name_in_any_case_is_taken_until_its_workspace_is_deleted() {
    let (_database, mut conn) = world().await;
    create(&mut conn, 1, 1, &new(2, "dev")).await.unwrap();
    let error = create(&mut conn, 1, 1, &new(3, "Dev")).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { constraint: "workspaces_owner_id_lower_idx" }), "{error:?}");
    let error = create(&mut conn, 1, 1, &new(2, "other")).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { constraint: "workspaces_pkey" }), "{error:?}");
    assert_eq!(count(&mut conn).await, 2);
    sqlx::query("UPDATE workspaces SET deleted = true").execute(&mut conn).await.unwrap();
    create(&mut conn, 1, 1, &new(3, "Dev")).await.unwrap();
}

#[tokio::test]
async fn a_workspace_needs_a_template_of_its_organization_and_an_owner_who_is_an_active_member() {
    let (_database, mut conn) = world().await;
    sqlx::raw_sql("SELECT add_organization(2), add_member(2, 1)").execute(&mut conn).await.unwrap();
    for (organization, owner) in [(2, 1), (1, 2), (1, 3), (1, 7)] {
        let error = create(&mut conn, organization, owner, &new(2, "dev")).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { entity: Entity::Template, .. }), "{error:?}");
    }
    for gone in ["UPDATE organizations SET deleted = true WHERE id = u(1)", "UPDATE users SET deleted = true"] {
        let mut transaction = conn.begin().await.unwrap();
        let who = support::site_owner(&mut transaction).await;
        let permit = CreateWorkspaces::check(&who, UserId(u(1)), OrganizationId(u(1))).unwrap();
        // The trigger that protects organizations with workspaces is not what is tested here.
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut *transaction).await.unwrap();
        sqlx::raw_sql(gone).execute(&mut *transaction).await.unwrap();
        let error = store::workspaces::create(&mut transaction, &permit, &new(2, "dev"), NOW).await.unwrap_err();
        assert_eq!(error.code(), "not_found", "{gone}");
        transaction.rollback().await.unwrap();
    }
    assert_eq!(count(&mut conn).await, 1);
}

#[tokio::test]
async fn bad_schedules_and_times_are_invalid() {
    let (_database, mut conn) = world().await;
    let schedule = NewWorkspace { autostart_schedule: Some("a\0b".to_owned()), ..new(2, "dev") };
    let ttl = NewWorkspace { ttl: Some(Duration::MAX), ..new(2, "dev") };
    for bad in [schedule, ttl] {
        assert_eq!(create(&mut conn, 1, 1, &bad).await.unwrap_err().code(), "invalid");
    }
    assert_eq!(count(&mut conn).await, 1);
}

#[test]
fn the_reconciler_creates_workspaces_for_the_prebuilds_user_only() {
    let actor = Actor::system(System::PrebuildReconciler);
    assert!(CreateWorkspaces::check(&actor, UserId::PREBUILDS, OrganizationId(u(1))).is_ok());
    assert!(CreateWorkspaces::check(&actor, UserId(u(1)), OrganizationId(u(1))).is_err());
}
