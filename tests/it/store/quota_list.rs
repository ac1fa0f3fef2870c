//! Who consumes and may consume quota: everybody who does, in pages that hang together.

use coderdb::{
    authz::ListQuota,
    model::{OrganizationId, PageRequest, QuotaCursor, UserId, UserQuota},
    sqlx::{self, Connection, PgConnection},
    store,
};
use fastrand::Rng;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    self, fails,
    rows::{Rows, id},
    run,
    states::{Seed, seeds},
};

async fn pages(conn: &mut PgConnection, limit: u32) -> Vec<UserQuota> {
    let permit = ListQuota::check(&support::operator(), OrganizationId(id(1))).expect("an operator may");
    let (mut all, mut page) = (Vec::new(), PageRequest::<QuotaCursor>::first(limit));
    loop {
        let found = store::quota::list(conn, &permit, page).await.expect("a page");
        assert!(found.rows.len() <= limit as usize);
        all.extend(found.rows);
        match found.next {
            Some(next) => page = PageRequest::after(next, limit),
            None => return all,
        }
    }
}

/// A workspace of the user whose builds cost so much, the newest last.
fn workspace(n: u32, owner: &str, costs: &[i32]) -> String {
    use std::fmt::Write as _;
    let mut sql = format!("SELECT add_workspace({n}, {owner});");
    for (number, cost) in (1..).zip(costs) {
        let build = n * 10 + number;
        write!(sql, "SELECT add_build({build}, {n}, {number}); ").expect("a text");
        write!(sql, "UPDATE workspace_builds SET daily_cost = {cost} WHERE id = u({build});").expect("a text");
    }
    sql
}

/// User 1 is a member without anything; the others say what they are.
async fn people() -> Rows {
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM workspaces; SELECT add_organization(2), add_member(1, 1);
         SELECT add_user(n) FROM generate_series(2, 15) AS n;
         SELECT add_group(1, 1, 'Everyone'), add_group(22, 1, 'some'), add_group(23, 1, 'none'), add_group(24, 2, 'others');
         UPDATE groups SET quota_allowance = 5; UPDATE groups SET quota_allowance = 0 WHERE name = 'none';",
    )
    .await;
    for (n, owner, costs) in [
        (102, "u(2)", &[7][..]),
        (103, "u(3)", &[7]),
        (104, "u(4)", &[7]),
        (105, "u(5)", &[7, 0]),
        (106, "u(6)", &[7, 0]),
        (109, "prebuilds()", &[0, 7]),
        (110, "u(10)", &[7]),
        (111, "u(11)", &[7]),
        (113, "u(13)", &[]),
    ] {
        rows.run(&workspace(n, owner, costs)).await;
    }
    rows.run(
        "UPDATE users SET username = 'gone', deleted = true WHERE id IN (u(3), u(4), u(6));
         UPDATE users SET username = 'Gone' WHERE id = u(2);
         INSERT INTO group_members (group_id, user_id) VALUES (u(22), u(7)), (u(23), u(8)), (u(24), u(14));
         UPDATE workspaces SET deleted = true WHERE owner_id = u(10);
         UPDATE workspaces SET organization_id = u(2) WHERE owner_id = u(11);
         SELECT add_member(1, 12), add_member(2, 14); UPDATE users SET status = 'suspended' WHERE id = u(12)",
    )
    .await;
    rows
}

#[tokio::test]
async fn list_has_everybody_who_consumes_or_may_consume_and_nobody_else() {
    let mut rows = people().await;
    let expected = [
        // Three share a name in lower case; the order between them is that of their ids.
        ("Gone", 2, false, false, 7, 0),
        ("gone", 3, true, false, 7, 0),
        ("gone", 4, true, false, 7, 0),
        ("user1", 1, false, true, 0, 5),
        ("user12", 12, false, true, 0, 5),
        ("user7", 7, false, false, 0, 5),
    ];
    for limit in [1, 2, 3, 5, 100] {
        let all = pages(&mut rows.conn, limit).await;
        let (prebuilds, people): (Vec<_>, Vec<_>) = all.iter().partition(|user| user.id == UserId::PREBUILDS);
        assert_eq!(prebuilds.iter().map(|user| user.credits_consumed).collect::<Vec<_>>(), [7], "in pages of {limit}");
        let found: Vec<_> = people.into_iter().collect();
        assert_eq!(found.len(), expected.len(), "in pages of {limit}: {found:#?}");
        for (found, (username, n, deleted, is_member, credits_consumed, budget)) in found.into_iter().zip(expected) {
            let username = username.to_owned();
            let user = UserQuota { id: UserId(id(n)), username, deleted, is_member, credits_consumed, budget };
            assert_eq!(*found, user, "in pages of {limit}");
        }
    }
}

#[tokio::test]
async fn list_on_the_command_line_says_who_is_gone_and_show_takes_their_ids() {
    let rows = people().await;
    let quota = |args: &[&str]| {
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").arg("quota").args(args);
        command
    };
    let table = run(&mut quota(&["list", "--over", "500"])).stdout;
    for line in ["Gone (no member)", "gone (deleted)", "prebuilds (no member)"] {
        assert!(table.contains(line), "{line} is not in\n{table}");
    }
    let json: Vec<Value> = serde_json::from_str(&run(&mut quota(&["list", "-o", "json"])).stdout).expect("JSON");
    let deleted: Vec<_> = json.iter().filter(|user| user["deleted"] == true).collect();
    assert_eq!(deleted.len(), 2);
    for user in deleted {
        let shown = run(&mut quota(&["show", user["id"].as_str().expect("an id")]));
        assert!(shown.stdout.contains("gone (deleted)") && shown.stdout.contains('7'), "{}", shown.stdout);
    }
    // The name means who is there.
    assert!(!run(&mut quota(&["show", "gone"])).stdout.contains("deleted"));
}

/// Whoever is a member or for whom `usage` has a number is listed with these numbers, and nobody else.
#[tokio::test]
async fn list_agrees_with_usage_of_each_user_whatever_the_people_are() {
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM workspaces; SELECT add_organization(2); SELECT add_user(n) FROM generate_series(2, 9) AS n;
         SELECT add_group(1, 1, 'Everyone'), add_group(22, 1, 'a'), add_group(23, 1, 'b'), add_group(24, 2, 'c')",
    )
    .await;
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let mut transaction = rows.conn.begin().await.expect("a transaction");
        let conn = &mut *transaction;
        let mut sql = Vec::new();
        for group in [1, 22, 23, 24] {
            sql.push(format!(
                "UPDATE groups SET quota_allowance = {} WHERE id = u({group});",
                [0, 3, 10][rng.usize(..3)]
            ));
        }
        for user in 1..10 {
            for organization in (1..3).filter(|_| rng.u8(..3) == 0) {
                sql.push(format!("SELECT add_member({organization}, {user});"));
            }
            for group in [1, 22, 23, 24].into_iter().filter(|_| rng.u8(..4) == 0) {
                sql.push(format!("INSERT INTO group_members (group_id, user_id) VALUES (u({group}), u({user}));"));
            }
            for n in 0..rng.u32(..3) {
                let costs: Vec<i32> = (0..rng.usize(..4)).map(|_| [0, 1, 7][rng.usize(..3)]).collect();
                let number = 100 + user * 10 + n;
                sql.push(workspace(number, &format!("u({user})"), &costs));
                sql.push(format!(
                    "UPDATE workspaces SET deleted = {}, organization_id = u({}) WHERE id = u({number});",
                    rng.u8(..4) == 0,
                    rng.u8(1..3)
                ));
            }
            if rng.u8(..3) == 0 {
                sql.push(format!("UPDATE users SET deleted = true, username = 'x' WHERE id = u({user});"));
            }
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.concat())).execute(&mut *conn).await.expect("the people");
        let users: Vec<(Uuid, bool)> = sqlx::query_as(
            "SELECT u.id, u.deleted = false AND EXISTS (
                 SELECT 1 FROM organization_members AS m WHERE m.user_id = u.id AND m.organization_id = u(1)
             )
             FROM users AS u ORDER BY lower(u.username), u.id",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("the users");
        let mut expected = Vec::new();
        for (user, is_member) in users {
            let permit = support::read_quota(UserId(user), OrganizationId(id(1)));
            let quota = store::quota::usage(&mut *conn, &permit).await.expect("numbers");
            if is_member || quota.credits_consumed != 0 || quota.budget != 0 {
                expected.push((user, is_member, quota.credits_consumed, quota.budget));
            }
        }
        for limit in [rng.u32(1..5), 100] {
            let found = pages(&mut *conn, limit).await;
            let found: Vec<_> =
                found.iter().map(|user| (user.id.0, user.is_member, user.credits_consumed, user.budget)).collect();
            assert_eq!(found, expected, "in pages of {limit}");
        }
        transaction.rollback().await.expect("the end");
    }
}

// Who was deleted ------------------------------------------------------------------------------------------------------

/// One rule wherever a user is named: a name means who is there, and an id also whoever was deleted.
#[tokio::test]
async fn a_deleted_user_is_named_by_id_wherever_a_user_is_named() {
    let mut rows = Rows::new().await;
    rows.run(
        "SELECT add_member(1, 1), add_user(2), add_user(3), add_user(4), add_workspace(2, u(2)), add_workspace(3, u(3)),
                add_build(2, 2, 1), add_build(3, 3, 1);
         UPDATE workspaces SET name = 'api';
         UPDATE provisioner_jobs SET initiator_id = id, input = jsonb_build_object('workspace_build_id', id) WHERE id IN (u(2), u(3));
         UPDATE users SET username = 'dave', deleted = true WHERE id IN (u(2), u(3));
         UPDATE templates SET deleted = true",
    )
    .await;
    let jobs = |term: &str| {
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "list", "-o", "json", "--search", term]);
        command
    };
    let found = |term: &str| {
        let json: Vec<Value> = serde_json::from_str(&run(&mut jobs(term)).stdout).expect("JSON");
        json.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let (two, three) = (id(2).to_string(), id(3).to_string());
    let quota = |user: &str| {
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").env("CODERDB_USER", "DAVE").args(["quota", "show", user]);
        command
    };
    let hint = "name a user who was deleted by the id";
    for command in [&mut quota("dave"), &mut quota("Dave"), &mut quota("me")] {
        fails(command, 1, &["user not found: ", hint]);
    }
    for term in ["initiator:dave", "-initiator:DAVE"] {
        fails(&mut jobs(term), 1, &["initiator not found: ", hint]);
    }
    for term in ["workspace:dave/api", "-workspace:Dave/API"] {
        let hint = "name a workspace by its id if it or its owner was deleted";
        fails(&mut jobs(term), 1, &["workspace not found: ", hint]);
    }
    // It is the rule of templates, too.
    fails(&mut jobs("template:template1"), 1, &["template not found: ", "name a template that was deleted by its id"]);
    assert_eq!(run(&mut jobs(&format!("template:{}", id(1)))).code, 0);
    // Several owners: those who are there are named, the others' workspaces are named by their ids.
    fails(&mut jobs("workspace:api"), 1, &["several workspaces are called api", "user1/api", &two, &three]);
    for user in [&two, &three] {
        assert!(run(&mut quota(user)).stdout.contains("dave (deleted)"));
        assert_eq!(found(&format!("initiator:{user}")), std::slice::from_ref(user));
        assert_eq!(found(&format!("workspace:{user}")), std::slice::from_ref(user));
    }
    // A name that was taken again means whoever has it now.
    rows.run("UPDATE users SET username = 'dave' WHERE id = u(4); SELECT add_workspace(4, u(4)), add_build(4, 4, 1);
              UPDATE workspaces SET name = 'api' WHERE id = u(4); UPDATE provisioner_jobs SET initiator_id = id, input = jsonb_build_object('workspace_build_id', id) WHERE id = u(4)")
        .await;
    let jobs = |term: &str| {
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "list", "-o", "json", "--search", term]);
        let json: Vec<Value> = serde_json::from_str(&run(&mut command).stdout).expect("JSON");
        json.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(jobs("workspace:dave/api"), [id(4).to_string()]);
    assert_eq!(jobs("initiator:dave"), [id(4).to_string()]);
}
