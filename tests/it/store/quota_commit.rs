//! The quota commit (domain: quota commit): its rule, its scope, and its races.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use coderdb::{
    authz::{Actor, RunJobs, System},
    model::{DaemonId, JobId, OrganizationId, Quota},
    store::{
        self, Error,
        quota::{CommitOutcome, commit},
    },
};
use fastrand::Rng;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{self, Database};

const DAEMON: u128 = 0x99;

fn u(n: impl std::fmt::Display) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

fn permit_of(organization: u32, daemon: u128) -> RunJobs {
    let actor = Actor::system(System::ProvisionerDaemon);
    RunJobs::check(&actor, OrganizationId(u(organization)), DaemonId(u(format!("{daemon:x}")))).unwrap()
}

fn permit() -> RunJobs {
    permit_of(1, DAEMON)
}

async fn sql(conn: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(conn).await.unwrap();
}

/// User 1 may consume `budget` credits; nothing is built but workspace 1.
async fn world(budget: i32) -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("../golden/rows.sql")).await;
    sql(
        &mut conn,
        format!(
            "SELECT add_member(1, 1);
             INSERT INTO groups (id, name, organization_id, quota_allowance) VALUES (u(1), 'Everyone', u(1), {budget});
             UPDATE provisioner_jobs SET worker_id = u({DAEMON:x}), started_at = created_at"
        ),
    )
    .await;
    (database, conn)
}

/// A build that the daemon works on. Its job has the same number.
async fn build(conn: &mut PgConnection, n: u32, workspace: u32, number: u32) {
    let assign =
        format!("UPDATE provisioner_jobs SET worker_id = u({DAEMON:x}), started_at = created_at WHERE id = u({n})");
    sql(conn, format!("SELECT add_build({n}, {workspace}, {number}); {assign}")).await;
}

async fn costs(conn: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar("SELECT daily_cost FROM workspace_builds ORDER BY id").fetch_all(conn).await.unwrap()
}

/// Whether it was accepted, what is consumed, and the budget.
async fn try_commit(conn: &mut PgConnection, job: u32, cost: i64) -> (bool, i64, i64) {
    match commit(conn, &permit(), JobId(u(job)), cost).await.unwrap() {
        CommitOutcome::Accepted(Quota { credits_consumed, budget }) => (true, credits_consumed, budget),
        CommitOutcome::Rejected(rejected) => {
            assert_eq!(rejected.job(), JobId(u(job)));
            (false, rejected.consumed(), rejected.budget())
        }
        CommitOutcome::JobEnded => panic!("the job has not ended"),
    }
}

#[tokio::test]
async fn a_commit_may_fill_the_budget_but_not_exceed_it() {
    let (_database, mut conn) = world(10).await;
    assert_eq!(try_commit(&mut conn, 1, 11).await, (false, 0, 10));
    assert_eq!(costs(&mut conn).await, [0]);
    assert_eq!(try_commit(&mut conn, 1, 10).await, (true, 10, 10));
    assert_eq!(costs(&mut conn).await, [10]);
}

#[tokio::test]
async fn a_commit_that_is_repeated_has_the_same_answer() {
    let (_database, mut conn) = world(10).await;
    for _ in 0..2 {
        assert_eq!(try_commit(&mut conn, 1, 7).await, (true, 7, 10));
    }
    assert_eq!(costs(&mut conn).await, [7]);
}

#[tokio::test]
async fn commit_over_budget_goes_on_only_when_it_raises_nothing() {
    let (_database, mut conn) = world(10).await;
    assert_eq!(try_commit(&mut conn, 1, 10).await, (true, 10, 10));
    sql(&mut conn, "UPDATE groups SET quota_allowance = 3").await;
    build(&mut conn, 2, 1, 2).await;
    assert_eq!(try_commit(&mut conn, 2, 11).await, (false, 0, 3), "more than before");
    assert_eq!(try_commit(&mut conn, 2, 10).await, (true, 10, 3), "an equal cost raises nothing");
    assert_eq!(try_commit(&mut conn, 2, 9).await, (true, 9, 3), "a decrease is always allowed");
    build(&mut conn, 3, 1, 3).await;
    assert_eq!(try_commit(&mut conn, 3, 3).await, (true, 3, 3));
}

/// A workspace runs at 20, of which its volume costs 4 also when it is stopped. Then the allowances are taken away.
#[tokio::test]
async fn commit_of_a_stop_passes_after_a_restart_that_was_rejected() {
    let (_database, mut conn) = world(20).await;
    assert_eq!(try_commit(&mut conn, 1, 20).await, (true, 20, 20));
    end(&mut conn, 1, "").await;
    sql(&mut conn, "UPDATE groups SET quota_allowance = 0").await;
    build(&mut conn, 2, 1, 2).await;
    assert_eq!(try_commit(&mut conn, 2, 21).await, (false, 0, 0), "a restart that costs more");
    end(&mut conn, 2, "insufficient quota").await;
    for n in 3..6 {
        build(&mut conn, n, 1, n).await;
        assert_eq!(try_commit(&mut conn, n, 4).await, (true, 4, 0), "every stop");
        end(&mut conn, n, "the provider was away").await;
    }
}

#[tokio::test]
async fn commit_of_a_start_after_a_stop_at_no_cost_does_not_pass_over_budget() {
    let (_database, mut conn) = world(20).await;
    assert_eq!(try_commit(&mut conn, 1, 20).await, (true, 20, 20));
    end(&mut conn, 1, "").await;
    // A stop that costs nothing commits nothing.
    build(&mut conn, 2, 1, 2).await;
    end(&mut conn, 2, "").await;
    sql(&mut conn, "UPDATE groups SET quota_allowance = 19").await;
    build(&mut conn, 3, 1, 3).await;
    assert_eq!(try_commit(&mut conn, 3, 20).await, (false, 0, 19));
    // Nor does another one pass because that one was rejected.
    end(&mut conn, 3, "insufficient quota").await;
    build(&mut conn, 4, 1, 4).await;
    assert_eq!(try_commit(&mut conn, 4, 20).await, (false, 0, 19));
}

#[tokio::test]
async fn commit_for_a_job_that_has_ended_says_so_and_writes_nothing() {
    for (end, error) in [("reaped", "'hung'"), ("canceled", "NULL"), ("completed", "NULL"), ("failed", "'boom'")] {
        let (_database, mut conn) = world(20).await;
        let canceled = if end == "canceled" { "at_second(1)" } else { "NULL" };
        sql(
            &mut conn,
            format!(
                "UPDATE provisioner_jobs SET completed_at = at_second(1), canceled_at = {canceled}, error = {error}"
            ),
        )
        .await;
        let outcome = commit(&mut conn, &permit(), JobId(u(1)), 5).await.unwrap();
        assert_eq!(outcome, CommitOutcome::JobEnded, "{end}");
        assert_eq!(costs(&mut conn).await, [0], "{end}");
    }
}

#[tokio::test]
async fn the_quota_is_that_of_the_owner_and_not_of_the_initiator() {
    let (_database, mut conn) = world(10).await;
    sql(&mut conn, "SELECT add_user(2); UPDATE workspace_builds SET initiator_id = u(2)").await;
    assert_eq!(try_commit(&mut conn, 1, 5).await, (true, 5, 10));
    sql(&mut conn, "UPDATE workspaces SET owner_id = u(2)").await;
    assert_eq!(try_commit(&mut conn, 1, 5).await, (false, 5, 0), "user 2 is in no group");
}

#[tokio::test]
async fn only_the_daemon_that_has_the_job_commits_for_it() {
    let (_database, mut conn) = world(10).await;
    sql(&mut conn, "SELECT add_organization(2)").await;
    let mut not_found = Vec::new();
    let job = JobId(u(1));
    for permit in [permit_of(1, 0x98), permit_of(2, DAEMON)] {
        not_found.push(commit(&mut conn, &permit, job, 1).await.unwrap_err().to_string());
    }
    sql(&mut conn, "UPDATE provisioner_jobs SET worker_id = NULL").await;
    not_found.push(commit(&mut conn, &permit(), job, 1).await.unwrap_err().to_string());
    sql(&mut conn, "DELETE FROM provisioner_jobs").await;
    not_found.push(commit(&mut conn, &permit(), job, 1).await.unwrap_err().to_string());
    assert_eq!(not_found, vec![format!("provisioner job not found: {job}"); 4]);
}

#[tokio::test]
async fn the_scope_of_a_commit_that_finds_nothing_writes_nothing() {
    let (_database, mut conn) = world(10).await;
    commit(&mut conn, &permit_of(1, 0x98), JobId(u(1)), 1).await.unwrap_err();
    assert_eq!(costs(&mut conn).await, [0]);
}

#[test]
fn nobody_but_a_provisioner_daemon_may_commit() {
    for system in System::ALL {
        let allowed = RunJobs::check(&Actor::system(*system), OrganizationId(u(1)), DaemonId(u(2))).is_ok();
        assert_eq!(allowed, *system == System::ProvisionerDaemon, "{system:?}");
    }
}

#[tokio::test]
async fn a_cost_that_is_negative_or_too_big_is_invalid() {
    let (_database, mut conn) = world(10).await;
    for cost in [-1, i64::MIN, i64::from(i32::MAX) + 1, i64::MAX] {
        let error = commit(&mut conn, &permit(), JobId(u(1)), cost).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { field: "cost", .. }), "{error:?}");
    }
    assert_eq!(costs(&mut conn).await, [0]);
}

#[tokio::test]
async fn the_biggest_budgets_and_costs_do_not_overflow() {
    let (_database, mut conn) = world(i32::MAX).await;
    sql(
        &mut conn,
        "INSERT INTO groups (id, name, organization_id, quota_allowance) VALUES (u(2), 'more', u(1), 2147483647);
         INSERT INTO group_members VALUES (u(1), u(2)); SELECT add_workspace(2)",
    )
    .await;
    build(&mut conn, 2, 2, 1).await;
    let most = i64::from(i32::MAX);
    assert_eq!(try_commit(&mut conn, 1, most).await, (true, most, 2 * most));
    assert_eq!(try_commit(&mut conn, 2, most).await, (true, 2 * most, 2 * most));
}

#[tokio::test]
async fn a_commit_joins_only_a_serializable_transaction() {
    let (_database, mut conn) = world(10).await;
    let mut transaction = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    assert_eq!(try_commit(&mut transaction, 1, 5).await, (true, 5, 10));
    transaction.rollback().await.unwrap();
    assert_eq!(costs(&mut conn).await, [0], "it went with the caller's transaction");

    let mut transaction = conn.begin().await.unwrap();
    let error = commit(&mut transaction, &permit(), JobId(u(1)), 5).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "transaction", .. }), "{error:?}");
    transaction.commit().await.unwrap();
    assert_eq!(costs(&mut conn).await, [0]);
}

/// Ends the job of a build, with an error unless that is empty.
async fn end(conn: &mut PgConnection, n: u32, error: &str) {
    sql(
        conn,
        format!(
            "UPDATE provisioner_jobs SET completed_at = at_second(1), error = nullif('{error}', '') WHERE id = u({n})"
        ),
    )
    .await;
}

/// The rule of the commit (domain: quota commit) over what has happened to one owner.
#[derive(Default)]
struct Model {
    budget: i64,
    workspaces: BTreeMap<u32, Workspace>,
}

#[derive(Default)]
struct Workspace {
    deleted: bool,
    costs: Vec<i64>,
    /// Which builds have succeeded, by their place in `costs`.
    succeeded: BTreeSet<usize>,
}

impl Model {
    fn consumed(&self) -> i64 {
        self.workspaces.values().filter(|w| !w.deleted).filter_map(|w| w.costs.last()).sum()
    }

    fn commit(&mut self, workspace: u32, number: usize, cost: i64) -> (bool, i64, i64) {
        let consumed = self.consumed();
        let Workspace { costs, succeeded, .. } = &self.workspaces[&workspace];
        // Not costing more passes, an equal cost included (domain: commit comparison).
        let before = (0..number - 1).rev().find(|place| costs[*place] > 0 || succeeded.contains(place));
        let net_increase = before.is_none_or(|place| cost > costs[place]);
        let new_consumed = consumed + cost;
        if new_consumed > self.budget && net_increase {
            return (false, consumed, self.budget);
        }
        self.workspaces.get_mut(&workspace).unwrap().costs[number - 1] = cost;
        (true, new_consumed, self.budget)
    }
}

#[tokio::test]
async fn random_histories_of_commits_go_as_the_model_says() {
    let (_database, mut conn) = world(0).await;
    let (mut rejected, mut decreased, mut ended) = (0, 0, 0);
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let mut transaction = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
        let mut model = Model::default();
        model.workspaces.insert(1, Workspace { costs: vec![0], ..Workspace::default() });
        let mut next = 2;
        // Which build each job carries out, while its commit is still to come.
        let mut open = vec![(1, 1, 1)];
        for step in 0..30 {
            match rng.u32(0..12) {
                0 => {
                    model.budget = rng.i64(0..60);
                    sql(&mut transaction, format!("UPDATE groups SET quota_allowance = {}", model.budget)).await;
                }
                1 => {
                    model.workspaces.insert(next, Workspace::default());
                    sql(&mut transaction, format!("SELECT add_workspace({next})")).await;
                    next += 1;
                }
                2 if rng.bool() => {
                    let chosen = *rng.choice(model.workspaces.keys().collect::<Vec<_>>()).unwrap();
                    model.workspaces.get_mut(&chosen).unwrap().deleted = true;
                    sql(&mut transaction, format!("UPDATE workspaces SET deleted = true WHERE id = u({chosen})")).await;
                }
                3..=7 => {
                    let chosen = *rng.choice(model.workspaces.keys().collect::<Vec<_>>()).unwrap();
                    let costs = &mut model.workspaces.get_mut(&chosen).unwrap().costs;
                    costs.push(0);
                    build(&mut transaction, next, chosen, u32::try_from(costs.len()).unwrap()).await;
                    open.push((next, chosen, costs.len()));
                    next += 1;
                }
                _ if !open.is_empty() => {
                    let (job, workspace, number) = open.swap_remove(rng.usize(..open.len()));
                    let cost = rng.i64(0..30);
                    let expected = model.commit(workspace, number, cost);
                    assert_eq!(try_commit(&mut transaction, job, cost).await, expected, "seed {seed}, step {step}");
                    rejected += i32::from(!expected.0);
                    decreased += i32::from(expected.0 && expected.1 > expected.2);
                    // It succeeds, fails, is canceled, is reaped, or goes on.
                    let (error, canceled) = match rng.u32(0..6) {
                        0 | 1 => ("", false),
                        2 => ("boom", false),
                        3 => ("", true),
                        4 => ("has been terminated by the reaper", false),
                        _ => continue,
                    };
                    if error.is_empty() && !canceled {
                        model.workspaces.get_mut(&workspace).unwrap().succeeded.insert(number - 1);
                    }
                    end(&mut transaction, job, error).await;
                    let cancel = format!(
                        "UPDATE provisioner_jobs SET canceled_at = at_second(1) WHERE {canceled} AND id = u({job})"
                    );
                    sql(&mut transaction, cancel).await;
                    ended += 1;
                }
                _ => {}
            }
            let usage = store::quota::usage(&mut transaction, &support::read_quota(u(1), u(1))).await.unwrap();
            assert_eq!((usage.credits_consumed, usage.budget), (model.consumed(), model.budget), "seed {seed}");
        }
        transaction.rollback().await.unwrap();
    }
    assert!(ended > 100);
    assert!(rejected > 20 && decreased > 5, "{rejected} rejected, {decreased} accepted over budget");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_commits_at_once_exactly_those_that_fit_are_accepted() {
    let (database, mut conn) = world(20).await;
    for n in 2..=64 {
        sql(&mut conn, format!("SELECT add_workspace({n})")).await;
        build(&mut conn, n, n, 1).await;
    }
    let mut tasks = JoinSet::new();
    for n in 1..=64 {
        let mut conn = database.connect().await;
        tasks.spawn(async move { try_commit(&mut conn, n, 1).await.0 });
    }
    let accepted = tasks.join_all().await.into_iter().filter(|accepted| *accepted).count();
    assert_eq!(accepted, 20);
    assert_eq!(costs(&mut conn).await.iter().sum::<i32>(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_owners_at_once_fill_each_budget() {
    let (database, mut conn) = world(3).await;
    let mut jobs = vec![1];
    for owner in 2..=8 {
        sql(&mut conn, format!("SELECT add_user({owner}), add_member(1, {owner})")).await;
        for k in 0..8 {
            let n = owner * 10 + k;
            sql(&mut conn, format!("SELECT add_workspace({n}, u({owner}))")).await;
            build(&mut conn, n, n, 1).await;
            jobs.push(n);
        }
    }
    let mut tasks = JoinSet::new();
    for n in jobs {
        let mut conn = database.connect().await;
        tasks.spawn(async move { try_commit(&mut conn, n, 1).await });
    }
    tasks.join_all().await;
    let per_owner: Vec<i64> = sqlx::query_scalar(
        "SELECT sum(b.daily_cost) FROM workspace_builds b JOIN workspaces w ON w.id = b.workspace_id
         GROUP BY w.owner_id ORDER BY w.owner_id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(per_owner, [1, 3, 3, 3, 3, 3, 3, 3]);
}

/// Commits as another server does: reads, decides, writes, in a serializable transaction without a retry.
async fn foreign_commit(conn: &mut PgConnection, n: u32, between: impl Future<Output = ()>) -> sqlx::Result<bool> {
    let mut transaction = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    let usage = "SELECT coalesce(sum(l.daily_cost), 0)::bigint FROM workspaces w, LATERAL (SELECT b.daily_cost FROM \
                 workspace_builds b WHERE b.workspace_id = w.id ORDER BY b.build_number DESC LIMIT 1) l \
                 WHERE w.owner_id = $1 AND w.organization_id = $1 AND NOT w.deleted";
    let consumed: i64 = sqlx::query_scalar(usage).bind(u(1)).fetch_one(&mut *transaction).await?;
    let budget: i32 = sqlx::query_scalar("SELECT quota_allowance FROM groups").fetch_one(&mut *transaction).await?;
    between.await;
    if consumed + 1 > i64::from(budget) {
        return Ok(false);
    }
    let write = "UPDATE workspace_builds SET daily_cost = 1 WHERE id = $1";
    sqlx::query(write).bind(u(n)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

#[tokio::test]
async fn a_commit_inside_of_a_foreign_one_makes_that_one_fail_instead_of_spending_twice() {
    let (database, mut conn) = world(1).await;
    sql(&mut conn, "SELECT add_workspace(2)").await;
    build(&mut conn, 2, 2, 1).await;
    let mut other = database.connect().await;
    let mine = async { assert_eq!(try_commit(&mut conn, 1, 1).await, (true, 1, 1)) };
    let error = foreign_commit(&mut other, 2, mine).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001");
    assert_eq!(costs(&mut other).await, [1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn together_with_foreign_commits_the_budget_is_never_exceeded_and_callers_see_no_conflict() {
    let (database, mut conn) = world(10).await;
    for n in 2..=40 {
        sql(&mut conn, format!("SELECT add_workspace({n})")).await;
        build(&mut conn, n, n, 1).await;
    }
    let mut tasks = JoinSet::new();
    for n in 1..=40 {
        let mut conn = database.connect().await;
        tasks.spawn(async move {
            if n % 2 == 0 {
                try_commit(&mut conn, n, 1).await;
            } else {
                drop(foreign_commit(&mut conn, n, async {}).await);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(costs(&mut conn).await.iter().sum::<i32>(), 10);
}

#[tokio::test]
async fn a_commit_waits_for_the_one_before_it_and_sees_what_that_one_wrote() {
    let (database, mut conn) = world(10).await;
    sql(&mut conn, "SELECT add_workspace(2)").await;
    build(&mut conn, 2, 2, 1).await;
    let mut before = database.connect().await;
    sql(
        &mut before,
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('quota ' || u(1) || u(1), 0));
         UPDATE workspace_builds SET daily_cost = 4 WHERE id = u(2)",
    )
    .await;
    let mut other = database.connect().await;
    let task = tokio::spawn(async move { try_commit(&mut other, 1, 7).await });
    support::settled(&task, &mut conn, 1).await;
    sql(&mut before, "COMMIT").await;
    assert_eq!(task.await.unwrap(), (false, 4, 10));
}

#[tokio::test]
async fn a_commit_that_waits_in_vain_goes_without_its_turn() {
    let (database, mut conn) = world(10).await;
    let mut holder = database.connect_with_session().await;
    sql(&mut holder, "SELECT pg_advisory_lock(hashtextextended('quota ' || u(1) || u(1), 0))").await;
    assert_eq!(try_commit(&mut conn, 1, 7).await, (true, 7, 10));
    assert!(!conn.is_in_transaction());
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut holder).await.unwrap();
    assert_eq!(left, 1, "that of the holder");
}
