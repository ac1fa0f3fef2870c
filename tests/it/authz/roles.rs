//! Where the rights of a user come from: roles, their state, and the lists of templates.

use coderdb::{
    authz::{Actor, LoadActors, ReadDaemons, ReadJobLogs, ReadJobs, System},
    model::{OrganizationId, UserId},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{self, Error},
};

use crate::support::policy::{At, u};
use crate::support::{
    self,
    operations::{run::run, steps::build},
    policy::{MISSING, fixture},
};

#[tokio::test]
async fn whoever_is_suspended_deleted_or_unknown_is_not_even_an_actor() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    fixture(&mut conn).await;
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
    for n in [50, 51, MISSING] {
        let id = UserId(u(n));
        let error = store::actors::load(&mut conn, &permit, id).await.expect_err("nobody");
        assert_eq!(error.to_string(), format!("user not found: {id}"));
    }
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_at_the_next_look() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    fixture(&mut conn).await;
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
    let may_read = async |conn: &mut PgConnection| {
        let actor = store::actors::load(conn, &permit, UserId(u(12))).await.expect("the actor");
        ReadJobs::check(&actor, OrganizationId(u(1))).is_ok()
    };
    assert!(may_read(&mut conn).await);
    sqlx::raw_sql("UPDATE organization_members SET roles = '{}' WHERE user_id = u(12)")
        .execute(&mut conn)
        .await
        .expect("the update");
    assert!(!may_read(&mut conn).await);
}

#[tokio::test]
async fn a_custom_role_lets_read_jobs_by_its_permissions_and_a_negation_wins() {
    const READ: &str = r#"{"negate": false, "resource_type": "provisioner_jobs", "action": "read"}"#;
    let database = support::database().await;
    let mut conn = database.connect().await;
    fixture(&mut conn).await;
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
    for (built_in, permissions, may) in [
        ("", format!("[{READ}]"), true),
        ("", r#"[{"negate": false, "resource_type": "*", "action": "read"}]"#.to_owned(), true),
        ("", r#"[{"negate": false, "resource_type": "provisioner_jobs", "action": "*"}]"#.to_owned(), true),
        ("", r#"[{"negate": false, "resource_type": "*", "action": "*"}]"#.to_owned(), true),
        ("", r#"[{"resource_type": "provisioner_jobs", "action": "read"}]"#.to_owned(), true),
        ("", r#"[{"negate": false, "resource_type": "provisioner_jobs", "action": "update"}]"#.to_owned(), false),
        ("", r#"[{"negate": false, "resource_type": "provisioner_daemon", "action": "read"}]"#.to_owned(), false),
        ("", format!(r#"[{READ}, {{"negate": true, "resource_type": "provisioner_jobs", "action": "read"}}]"#), false),
        ("", format!(r#"[{{"negate": true, "resource_type": "*", "action": "read"}}, {READ}]"#), false),
        ("", format!(r#"[{READ}, {{"negate": true, "resource_type": "template", "action": "*"}}]"#), true),
        // What has another form gives nothing, and the rest stays.
        ("", "{}".to_owned(), false),
        ("", "null".to_owned(), false),
        ("", READ.to_owned(), false),
        ("", format!("[[{READ}]]"), false),
        (
            "",
            r#"["*", 1, {"negate": false, "action": "read"}, {"resource_type": 1, "action": "read"}]"#.to_owned(),
            false,
        ),
        ("", format!(r#"["*", {READ}]"#), true),
        // A negation takes from the built-in roles of the organization, too.
        ("organization-admin", "[]".to_owned(), true),
        ("organization-auditor", "[]".to_owned(), false),
        (
            "organization-admin",
            r#"[{"negate": true, "resource_type": "provisioner_jobs", "action": "read"}]"#.to_owned(),
            false,
        ),
    ] {
        sqlx::query("UPDATE custom_roles SET org_permissions = $1::text::jsonb WHERE name = 'job-reader'")
            .bind(&permissions)
            .execute(&mut conn)
            .await
            .expect("the role");
        sqlx::query("UPDATE organization_members SET roles = ARRAY['job-reader', $1] WHERE user_id = u(26)")
            .bind(built_in)
            .execute(&mut conn)
            .await
            .expect("the roles");
        let actor = store::actors::load(&mut conn, &permit, UserId(u(26))).await.expect("the actor");
        let organization = OrganizationId(u(1));
        assert_eq!(ReadJobs::check(&actor, organization).is_ok(), may, "{built_in} {permissions}");
        assert_eq!(ReadDaemons::check(&actor, organization).is_ok(), may, "{built_in} {permissions}");
        let logs = ReadJobLogs::check(&actor, organization).expect("a member");
        assert_eq!(logs.owner().is_none(), may, "{built_in} {permissions}");
        assert!(ReadJobs::check(&actor, OrganizationId(u(2))).is_err());
    }
}

#[tokio::test]
async fn the_logs_of_an_import_are_for_those_who_read_jobs_or_manage_templates() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let actors = fixture(&mut conn).await;
    let becomes = |kind: &str| {
        AssertSqlSafe(format!(
            "DELETE FROM workspace_builds WHERE job_id = u(101); UPDATE provisioner_jobs SET type = '{kind}'"
        ))
    };
    for (kind, readers) in [
        // User 1 owns the workspace.
        ("workspace_build", vec![1, 12, 13, 22, 26, 27, 30, 35, 38, 39]),
        // User 1 asked for it.
        ("template_version_dry_run", vec![1, 12, 13, 22, 26, 27, 30, 35, 38, 39]),
        ("template_version_import", vec![12, 13, 22, 26, 27, 30, 31, 34, 35, 38, 39]),
    ] {
        if kind != "workspace_build" {
            sqlx::raw_sql(becomes(kind)).execute(&mut conn).await.expect("another kind of job");
        }
        let mut found = Vec::new();
        for who in &actors {
            let Some(user) = who.user else { continue };
            let at = At { organization: 1, home: 1, user: 1 };
            let logs = run("job_logs::after", &mut conn, &who.actor, at).await.is_ok();
            let timings = run("job_timings::list", &mut conn, &who.actor, at).await.is_ok();
            assert_eq!(logs, timings, "{kind} as user {user}");
            found.extend(logs.then_some(user));
        }
        found.sort_unstable();
        assert_eq!(found, readers, "{kind}");
    }
}

#[tokio::test]
async fn the_lists_of_a_template_open_each_operation_that_names_it() {
    const READ: [&str; 7] = [
        "templates::by_name",
        "templates::find",
        "templates::get",
        "templates::resolve",
        "templates::version",
        "jobs::insert",
        "builds::start",
    ];
    const USE: [&str; 2] = ["workspaces::create", "builds::move"];
    let database = support::database().await;
    let mut conn = database.connect().await;
    let actors = fixture(&mut conn).await;
    sqlx::raw_sql(
        "INSERT INTO groups (id, name, organization_id)
         VALUES (u(1), 'Everyone', u(1)), (u(60), 'in', u(1)), (u(61), 'out', u(1)), (u(62), 'elsewhere', u(2));
         INSERT INTO group_members (user_id, group_id) VALUES (u(1), u(60)), (u(11), u(61)), (u(11), u(62));
         INSERT INTO template_versions (id, template_id, organization_id, created_at, updated_at, name, readme, job_id,
             created_by)
         VALUES (u(199), u(102), u(1), moment(), moment(), 'another', '', u(101), u(1))",
    )
    .execute(&mut conn)
    .await
    .expect("groups");
    let both = |n: u32| format!(r#"{{"{}": ["read", "use"]}}"#, u(n));
    let mut wrong = Vec::new();
    for (group_acl, user_acl, read, uses) in [
        (both(1), "{}".to_owned(), true, true),
        (both(60), "{}".to_owned(), true, true),
        (both(61), "{}".to_owned(), false, false),
        (both(2), "{}".to_owned(), false, false),
        ("{}".to_owned(), both(1), true, true),
        ("{}".to_owned(), both(11), false, false),
        ("{}".to_owned(), "{}".to_owned(), false, false),
        (format!(r#"{{"{}": ["*"]}}"#, u(60)), "{}".to_owned(), true, true),
        (format!(r#"{{"{}": ["read"]}}"#, u(1)), "{}".to_owned(), true, false),
        (format!(r#"{{"{}": ["use"]}}"#, u(1)), "{}".to_owned(), false, true),
    ] {
        sqlx::query("UPDATE templates SET group_acl = $1::text::jsonb, user_acl = $2::text::jsonb WHERE id = u(102)")
            .bind(&group_acl)
            .bind(&user_acl)
            .execute(&mut conn)
            .await
            .expect("the lists");
        let lines = READ.iter().map(|operation| (operation, read)).chain(USE.iter().map(|operation| (operation, uses)));
        // What neither starts nor moves a workspace is nobody's business but its owner's.
        for (operation, may) in lines.chain([(&"builds::create", true)]) {
            // User 1, and user 16, an admin of organization 2 only.
            for (n, may) in [(1, may), (16, false)] {
                let who = actors.iter().find(|who| who.user == Some(n)).expect("a user");
                let at = At { organization: 1, home: 1, user: n };
                let mut tx = conn.begin().await.expect("a transaction");
                let result = match *operation {
                    "builds::start" => build(&mut tx, &who.actor, 107).await,
                    "builds::move" => build(&mut tx, &who.actor, 199).await,
                    operation => run(operation, &mut tx, &who.actor, at).await,
                };
                tx.rollback().await.expect("nothing stays");
                let as_expected = match &result {
                    Ok(rows) => may && *rows == 1,
                    Err(Error::NotFound { .. }) => !may,
                    Err(_) => false,
                };
                if !as_expected {
                    wrong.push(format!("{operation} as user {n} by {group_acl} and {user_acl}: {result:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
