//! The sums of quota (docs/adr/0016) are those of the builds, whoever writes, in whatever order, and they fail nobody.

use coderdb::store;
use fastrand::Rng;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::support::{self, Database};

fn u(n: u32) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

async fn sql(conn: &mut PgConnection, sql: impl Into<String>) {
    let sql = sql.into();
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(conn).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

async fn number(conn: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(false).fetch_one(conn).await.unwrap()
}

/// Two organizations, three users, and workspaces 1 to 8 without further builds, which are counted.
async fn world() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("golden/rows.sql")).await;
    sql(
        &mut conn,
        "SELECT add_organization(2); SELECT add_user(n) FROM generate_series(2, 3) AS n;
         SELECT add_workspace(n) FROM generate_series(2, 8) AS n;
         CREATE FUNCTION cost(workspace integer, build_number integer, cost integer) RETURNS void LANGUAGE sql AS $$
             WITH job AS (
                INSERT INTO provisioner_jobs (
                    id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input,
                    file_id
                )
                VALUES (gen_random_uuid(), now(), now(), u(1), u(1), 'echo', 'file', 'workspace_build', '{}', u(1))
                RETURNING id
             )
             INSERT INTO workspace_builds (
                id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id,
                job_id, daily_cost
             )
             SELECT id, now(), now(), u(workspace), u(1), build_number, 'start', u(1), id, cost FROM job
         $$;
         SELECT quota_recount()",
    )
    .await;
    (database, conn)
}

/// What is kept and what the builds say, in one snapshot.
const WRONG: &str = "
    SELECT count(*)
    FROM generate_series(1, 3) AS owner, generate_series(1, 2) AS organization
    WHERE quota_consumed(u(owner), u(organization)) <> (
        SELECT coalesce(sum(b.daily_cost), 0)
        FROM workspaces AS w INNER JOIN workspace_builds AS b ON b.workspace_id = w.id
        WHERE w.owner_id = u(owner) AND w.organization_id = u(organization) AND NOT w.deleted
            AND NOT EXISTS (
                SELECT FROM workspace_builds AS newer
                WHERE newer.workspace_id = w.id AND newer.build_number > b.build_number
            )
    )";

async fn assert_exact(conn: &mut PgConnection, when: &str) {
    let wrong = number(conn, WRONG).await + number(conn, "SELECT count(*) FROM quota_differences()").await;
    assert_eq!(wrong, 0, "{when}");
}

async fn consumed(conn: &mut PgConnection) -> i64 {
    store::quota::usage(conn, &support::read_quota(u(1), u(1))).await.unwrap().credits_consumed
}

const UNCOUNTED: &str =
    "SELECT count(*) FROM quota_changes WHERE xid >= (SELECT cut FROM quota_folds ORDER BY fold DESC LIMIT 1)";

/// How many changes are not counted yet.
async fn uncounted(conn: &mut PgConnection) -> i64 {
    number(conn, UNCOUNTED).await
}

/// What a foreign server might write, in an order of its own.
fn write(rng: &mut Rng) -> String {
    let workspace = rng.u32(1..=8);
    let (build, cost) = (rng.i32(-1..=6), if rng.u8(..20) == 0 { i32::MAX } else { rng.i32(0..50) });
    let cost = if rng.u8(..20) == 0 { -cost - 1 } else { cost };
    match rng.u8(..24) {
        0..=7 => format!("SELECT cost({workspace}, {build}, {cost})"),
        8..=11 => format!(
            "UPDATE workspace_builds SET daily_cost = {cost} WHERE workspace_id = u({workspace}) AND build_number >= {build}"
        ),
        12..=14 => {
            format!("DELETE FROM workspace_builds WHERE workspace_id = u({workspace}) AND build_number >= {build}")
        }
        15 => format!("UPDATE workspaces SET deleted = NOT deleted WHERE id = u({workspace})"),
        16 | 17 => format!("UPDATE workspaces SET owner_id = u({}) WHERE id = u({workspace})", rng.u32(1..=3)),
        18 => format!("UPDATE workspaces SET organization_id = u({}) WHERE id = u({workspace})", rng.u32(1..=2)),
        19 => format!(
            "DELETE FROM workspaces WHERE id = u({workspace}); SELECT add_workspace({workspace}, u({}))",
            rng.u32(1..=3)
        ),
        20 => format!("UPDATE workspace_builds SET workspace_id = u({workspace}) WHERE build_number = {build}"),
        21 => {
            format!("UPDATE workspace_builds SET build_number = 7 - build_number WHERE workspace_id = u({workspace})")
        }
        _ => "SELECT quota_fold()".to_owned(),
    }
}

async fn random_writes(seed: u64, steps: usize) -> [u32; 5] {
    let (database, mut reader) = world().await;
    let rng = &mut Rng::with_seed(seed);
    let mut writers = Vec::new();
    for _ in 0..4 {
        writers.push((database.connect().await, false));
    }
    let [mut committed, mut rolled_back, mut lost, mut savepoints, mut pending] = [0; 5];
    for step in 0..steps {
        let (writer, open) = &mut writers[rng.usize(..4)];
        let text = if *open {
            match rng.u8(..12) {
                0..=2 => "COMMIT".to_owned(),
                3 => "ROLLBACK".to_owned(),
                4 => format!("SAVEPOINT s; {}", write(rng)),
                5 => format!("SAVEPOINT t; {}; ROLLBACK TO t", write(rng)),
                _ => write(rng),
            }
        } else {
            let level = ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][rng.usize(..4)];
            // A row that another transaction holds is not waited for: that one is a step of this loop, too.
            format!("BEGIN ISOLATION LEVEL {level}; SET LOCAL lock_timeout = 1; {}", write(rng))
        };
        let done = sqlx::raw_sql(AssertSqlSafe(text.clone())).execute(&mut *writer).await;
        *open = !matches!(&*text, "COMMIT" | "ROLLBACK");
        savepoints += u32::from(text.starts_with("SAVEPOINT"));
        match done {
            Ok(_) if text == "COMMIT" => committed += 1,
            Ok(_) => rolled_back += u32::from(text == "ROLLBACK"),
            Err(error) => {
                let error = error.into_database_error().expect("an answer of the server");
                let code = error.code().expect("a SQLSTATE").into_owned();
                // Locks, conflicts, keys: what the same writes would meet without the sums.
                let known = ["55P03", "40001", "40P01", "23503", "23505"].contains(&&*code);
                assert!(known && !error.message().contains("quota"), "seed {seed}, step {step}: {text}\n{error}");
                assert!(!error.table().unwrap_or_default().starts_with("quota"), "seed {seed}, step {step}: {error}");
                sql(&mut *writer, "ROLLBACK").await;
                *open = false;
                lost += 1;
            }
        }
        pending += u32::from(uncounted(&mut reader).await > 0);
        assert_exact(&mut reader, &format!("seed {seed}, step {step}: {text}")).await;
    }
    let folds = number(&mut reader, "SELECT max(fold) FROM quota_folds").await;
    assert!(folds > 10, "only {folds} times were changes counted");
    [committed, rolled_back, lost, savepoints, pending]
}

#[tokio::test]
async fn in_10_000_random_states_under_open_transactions_the_sums_are_those_of_the_builds() {
    let seed = fastrand::u64(..);
    let worlds = tokio::join!(random_writes(seed, 5_000), random_writes(seed ^ 1, 5_000));
    for seen in [worlds.0, worlds.1] {
        assert!(seen.iter().all(|count| *count > 50), "seed {seed}: {seen:?}");
    }
}

#[tokio::test]
async fn builds_that_two_transactions_insert_at_once_count_once() {
    let (database, mut conn) = world().await;
    let mut other = database.connect().await;
    sql(&mut conn, "SELECT cost(1, 4, 40), quota_recount()").await;
    sql(&mut other, "BEGIN; SELECT cost(1, 5, 5)").await;
    sql(&mut conn, "BEGIN; SELECT cost(1, 6, 6); COMMIT").await;
    assert_eq!(consumed(&mut conn).await, 6);
    sql(&mut conn, "SELECT quota_fold()").await;
    sql(&mut other, "COMMIT").await;
    assert_eq!(consumed(&mut conn).await, 6);
    assert_exact(&mut conn, "both are committed").await;
    sql(&mut conn, "DELETE FROM workspace_builds WHERE build_number = 6").await;
    assert_eq!(consumed(&mut conn).await, 5);
}

#[tokio::test]
async fn a_build_that_saw_the_owner_of_before_counts_for_the_new_one() {
    let (database, mut conn) = world().await;
    let mut late = database.connect().await;
    sql(&mut late, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM workspaces").await;
    sql(&mut conn, "UPDATE workspaces SET owner_id = u(2) WHERE id = u(1); SELECT quota_fold()").await;
    sql(&mut late, "SELECT cost(1, 2, 7); COMMIT").await;
    let usage = store::quota::usage(&mut conn, &support::read_quota(u(2), u(1))).await.unwrap();
    assert_eq!((consumed(&mut conn).await, usage.credits_consumed), (0, 7));
    sql(&mut conn, "SELECT quota_fold()").await;
    assert_exact(&mut conn, "after it was counted").await;
    assert_eq!(uncounted(&mut conn).await, 0);
}

#[tokio::test]
async fn whoever_counts_blocks_nobody_and_may_roll_back() {
    let (database, mut conn) = world().await;
    let mut other = database.connect().await;
    sql(&mut other, "BEGIN; SELECT cost(1, 2, 5), quota_fold(); SELECT cost(2, 2, 5)").await;
    // Waiting for anything would be the end of this test.
    sql(&mut conn, "BEGIN; SET LOCAL lock_timeout = '10s'; SELECT cost(1, 3, 9), quota_fold(); COMMIT").await;
    assert_eq!(consumed(&mut conn).await, 9);
    sql(&mut other, "ROLLBACK").await;
    assert_eq!(consumed(&mut conn).await, 9);
    sql(&mut conn, "SELECT quota_fold()").await;
    assert_eq!(uncounted(&mut conn).await, 0);
    assert_exact(&mut conn, "after all").await;
}

#[tokio::test]
async fn a_count_that_fails_fails_nobody() {
    let (_database, mut conn) = world().await;
    sql(&mut conn, "ALTER TABLE quota_sums ADD CHECK (credits < 0)").await;
    sql(&mut conn, "SELECT cost(1, 2, 5), quota_fold(); SELECT cost(n, 3, 5) FROM generate_series(1, 8) AS n").await;
    assert_eq!(consumed(&mut conn).await, 40);
    assert_exact(&mut conn, "nothing was counted").await;
}

#[tokio::test]
async fn serializable_writers_of_one_owner_do_not_conflict() {
    let (database, mut conn) = world().await;
    let mut other = database.connect().await;
    for (n, conn) in [(1, &mut conn), (2, &mut other)] {
        sql(conn, format!("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT cost({n}, 2, 6), quota_fold()")).await;
    }
    for conn in [&mut conn, &mut other] {
        sql(conn, "COMMIT").await;
    }
    assert_eq!(consumed(&mut conn).await, 12);
}

#[tokio::test]
async fn a_serializable_reader_of_a_sum_conflicts_with_writers_of_its_workspaces() {
    let (database, mut conn) = world().await;
    let mut other = database.connect().await;
    let mut transaction = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    assert_eq!(consumed(&mut transaction).await, 0);
    sql(&mut other, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(daily_cost) FROM workspace_builds").await;
    sql(&mut other, "SELECT cost(1, 2, 5); COMMIT").await;
    let write = sqlx::raw_sql("SELECT cost(2, 2, 5)").execute(&mut *transaction).await.err();
    let error = match write {
        Some(error) => error,
        None => transaction.commit().await.unwrap_err(),
    };
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001");
}

#[tokio::test]
async fn a_role_without_rights_on_the_sums_writes_and_counts() {
    let (database, mut conn) = world().await;
    let role = format!("writes_{}", database.name());
    sql(
        &mut conn,
        format!(
            "CREATE ROLE {role} LOGIN;
             GRANT SELECT, INSERT, UPDATE, DELETE ON workspaces, workspace_builds, provisioner_jobs TO {role}"
        ),
    )
    .await;
    sql(
        &mut conn,
        format!(
            "SET ROLE {role}; CREATE TEMPORARY TABLE quota_changes (xid xid8, workspace_id uuid); SELECT cost(1, 2, 5);
             UPDATE workspace_builds SET daily_cost = 6 WHERE daily_cost = 5; SELECT quota_fold(); SELECT cost(2, 2, 5);
             UPDATE workspaces SET owner_id = u(2) WHERE id = u(2); DELETE FROM workspaces WHERE id = u(3); RESET ROLE;
             DROP TABLE pg_temp.quota_changes"
        ),
    )
    .await;
    assert_eq!(consumed(&mut conn).await, 6);
    assert_exact(&mut conn, "after somebody else wrote").await;
    sql(&mut conn, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn sums_of_another_server_are_not_believed_until_they_are_taken_anew() {
    let (_database, mut conn) = world().await;
    sql(&mut conn, "SELECT cost(1, 2, 5), quota_recount(); UPDATE quota_sums SET credits = 99").await;
    assert_eq!(consumed(&mut conn).await, 99);
    assert_eq!(number(&mut conn, "SELECT count(*) FROM quota_differences()").await, 1);
    // As a restored dump has it: the transaction ids in it mean nothing here.
    sql(&mut conn, "UPDATE quota_folds SET system_identifier = 1, cut = '1000000000000'").await;
    assert_eq!(consumed(&mut conn).await, 5);
    sql(&mut conn, "SELECT cost(1, 3, 6), quota_fold()").await;
    assert_eq!(consumed(&mut conn).await, 6);
    sql(&mut conn, "SELECT quota_recount()").await;
    assert_exact(&mut conn, "taken anew").await;
    assert_eq!(uncounted(&mut conn).await, 0);
    assert_eq!(number(&mut conn, "SELECT count(*) FROM quota_sums").await, 1);
}

#[tokio::test]
async fn what_is_written_during_a_recount_counts() {
    let (database, mut conn) = world().await;
    let mut other = database.connect().await;
    // A recount waits for whoever counts; one writer in sixteen does, in its own transaction.
    sql(&mut other, "SET coderdb.quota_fold = 'off'").await;
    sql(&mut other, "BEGIN; SELECT cost(1, 2, 5)").await;
    sql(&mut conn, "SELECT quota_recount()").await;
    assert_eq!(consumed(&mut conn).await, 0);
    sql(&mut other, "COMMIT").await;
    assert_eq!(consumed(&mut conn).await, 5);
    sql(&mut conn, "TRUNCATE workspace_builds CASCADE").await;
    assert_eq!(consumed(&mut conn).await, 0);
    assert_exact(&mut conn, "after all builds went").await;
}

#[tokio::test]
async fn a_snapshot_has_its_sum_however_often_others_count() {
    let (database, mut conn) = world().await;
    let mut old = database.connect().await;
    sql(&mut conn, "SELECT cost(1, 2, 5), quota_recount()").await;
    let mut transaction = old.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    assert_eq!(consumed(&mut transaction).await, 5);
    for cost in 6..=20 {
        sql(&mut conn, format!("UPDATE workspace_builds SET daily_cost = {cost} WHERE build_number = 2")).await;
        sql(&mut conn, "SELECT quota_fold()").await;
        assert_eq!((consumed(&mut conn).await, consumed(&mut transaction).await), (cost, 5));
    }
}

#[tokio::test]
async fn many_changes_are_counted_by_those_that_come_after_them() {
    let (_database, mut conn) = world().await;
    sql(
        &mut conn,
        "SELECT add_workspace(n), cost(n, 1, 1) FROM generate_series(1001, 2000) AS n;
         SELECT cost(n, 2, 2) FROM generate_series(1001, 1400) AS n",
    )
    .await;
    assert_eq!(consumed(&mut conn).await, 1_400);
    for _ in 0..5 {
        sql(&mut conn, "SELECT quota_fold()").await;
        assert_exact(&mut conn, "counted in part").await;
    }
    assert_eq!(uncounted(&mut conn).await, 0);
    assert_eq!(consumed(&mut conn).await, 1_400);
}
