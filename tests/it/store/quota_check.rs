//! What a start would do to a budget (domain: quota check): against a plain model of what was built, and against the
//! commit of what is built then.

use std::fmt::Write as _;

use coderdb::{
    authz::{Actor, ListQuota, RunJobs, System},
    model::{DaemonId, Entity, JobId, OrganizationId, QuotaCheck, QuotaVerdict, TemplateId, UserId},
    sqlx::{self, Connection, PgConnection},
    store::{
        self, Error,
        quota::{CommitOutcome, commit},
    },
};
use fastrand::Rng;
use sqlx::AssertSqlSafe;

use crate::support::{
    self,
    rows::{Rows, id},
    run,
    states::{Classes, Seed, all_seeds, seeds},
};

const ENDS: [&str; 5] = [
    "completed_at = at_second(1)",
    "completed_at = at_second(1), error = 'boom'",
    "completed_at = at_second(1), canceled_at = at_second(1)",
    "error = NULL",
    "canceled_at = at_second(1)",
];

const VERDICTS: [(&str, QuotaVerdict); 5] = [
    ("it fits", QuotaVerdict::Fits),
    ("it is likely to fit", QuotaVerdict::Likely),
    ("it is not likely to fit", QuotaVerdict::LikelyNot),
    ("it does not fit", QuotaVerdict::DoesNotFit),
    ("nothing is known", QuotaVerdict::Unknown),
];

/// A build as the test has made it.
#[derive(Debug, Clone, Copy)]
struct Build {
    job: u32,
    second: u32,
    template: u32,
    preset: Option<&'static str>,
    is_start: bool,
    has_succeeded: bool,
    cost: i32,
}

/// The presets of version v are 10 v + 1, `small`, and 10 v + 2, `large`. Versions 1 and 2 are of template 1, of which 1
/// is active; version 3 is of template 2.
fn preset_id(version: u32, name: &str) -> u32 {
    version * 10 + if name == "small" { 1 } else { 2 }
}

async fn world() -> Rows {
    let mut rows = Rows::new().await;
    rows.run(
        "DELETE FROM workspaces; DELETE FROM provisioner_jobs; DELETE FROM template_version_presets;
         SELECT add_template(2), add_version(2, 1), add_version(3, 2);
         UPDATE templates SET active_version_id = u(3) WHERE id = u(2);
         INSERT INTO template_version_presets (id, template_version_id, name)
             SELECT u(v * 10 + n), u(v), name FROM generate_series(1, 3) AS v, (VALUES (1, 'small'), (2, 'large')) AS p (n, name);
         SELECT add_member(1, 1), add_user(2), add_member(1, 2), add_group(1, 1, 'Everyone')",
    )
    .await;
    rows
}

async fn ask(conn: &mut PgConnection, user: u32, template: u32, preset: Option<&str>) -> QuotaCheck {
    let permit = ListQuota::check(&support::operator(), OrganizationId(id(1))).expect("an operator may");
    let (user, template) = (UserId(id(user.into())), TemplateId(id(template.into())));
    store::quota::check(conn, &permit, user, template, preset).await.expect("an answer")
}

/// What the rule says of these costs, worked out by counting.
fn verdict(costs: &[i32], consumed: i64, budget: i64) -> (Option<i32>, Option<i32>, QuotaVerdict) {
    let at_most = |cost: i32| costs.iter().filter(|other| **other <= cost).count();
    // The least cost that so many per cent of the starts do not exceed.
    let percentile = |percent| costs.iter().copied().filter(|cost| at_most(*cost) * 100 >= costs.len() * percent).min();
    let (median, p95) = (percentile(50), percentile(95));
    let fits = |cost: i32| cost == 0 || consumed + i64::from(cost) <= budget;
    let verdict = match (median, p95) {
        (Some(_), Some(p95)) if fits(p95) => QuotaVerdict::Fits,
        (Some(median), _) if fits(median) => QuotaVerdict::Likely,
        (Some(_), _) if costs.iter().any(|cost| fits(*cost)) => QuotaVerdict::LikelyNot,
        (Some(_), _) => QuotaVerdict::DoesNotFit,
        _ => QuotaVerdict::Unknown,
    };
    (median, p95, verdict)
}

fn random_builds(rng: &mut Rng, sql: &mut String) -> Vec<Build> {
    let workspaces = rng.u32(1..30);
    for n in 1..=workspaces {
        let template = rng.u32(1..3);
        let deleted = rng.u32(..4) == 0;
        write!(
            sql,
            "SELECT add_workspace({n}, u(2));
             UPDATE workspaces SET template_id = u({template}), deleted = {deleted} WHERE id = u({n});"
        )
        .expect("a text");
    }
    let dear = rng.i32(1..40);
    let count = if rng.u32(..3) == 0 { rng.u32(100..250) } else { rng.u32(..40) };
    (0..count)
        .map(|n| {
            let version = rng.u32(1..4);
            let job = 1000 + n;
            let preset = [None, Some("small"), Some("large")][rng.usize(..3)];
            let (is_start, end) = (rng.u32(..4) > 0, if rng.bool() { 0 } else { rng.usize(..ENDS.len()) });
            let cost = if preset == Some("large") { dear } else { rng.i32(0..dear) };
            // Some at the same time: their ids decide.
            let second = rng.u32(..100);
            let workspace = rng.u32(1..=workspaces);
            let preset_text = preset.map_or_else(|| "NULL".into(), |name| format!("u({})", preset_id(version, name)));
            let transition = if is_start { "start" } else { "stop" };
            write!(
                sql,
                "SELECT add_build({job}, {workspace}, {job}, preset => {preset_text});
                 UPDATE workspace_builds SET template_version_id = u({version}), transition = '{transition}',
                     daily_cost = {cost} WHERE id = u({job});
                 UPDATE provisioner_jobs SET created_at = at_second({second}), {} WHERE id = u({job});",
                ENDS[end]
            )
            .expect("a text");
            let template = if version == 3 { 2 } else { 1 };
            Build { job, second, template, preset, is_start, has_succeeded: end == 0, cost }
        })
        .collect()
}

/// The costs of the last 50 successful starts.
fn samples(builds: &[Build], template: u32, preset: Option<&str>) -> Vec<i32> {
    let mut starts: Vec<_> = builds
        .iter()
        .filter(|build| build.template == template && build.is_start && build.has_succeeded)
        .filter(|build| preset.is_none() || build.preset == preset)
        .collect();
    starts.sort_by_key(|build| std::cmp::Reverse((build.second, build.job)));
    starts.iter().take(50).map(|build| build.cost).collect()
}

/// Builds what was asked about: a new workspace of user 1, or the claimed one, whose newest build is the job then.
async fn build_and_commit(conn: &mut PgConnection, claimed: Option<u32>, cost: i32) -> bool {
    let (workspace, number) = claimed.map_or((900, 1), |workspace| (workspace, 2));
    let made = if claimed.is_some() {
        format!("UPDATE workspaces SET owner_id = u(1) WHERE id = u({workspace})")
    } else {
        format!("SELECT add_workspace({workspace})")
    };
    let sql = format!(
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; {made};
         SELECT add_build(5000, {workspace}, {number});
         UPDATE provisioner_jobs SET worker_id = u(99), started_at = created_at WHERE id = u(5000)"
    );
    let mut transaction = conn.begin().await.expect("a transaction");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.expect("a build");
    let daemon = Actor::system(System::ProvisionerDaemon);
    let permit = RunJobs::check(&daemon, OrganizationId(id(1)), DaemonId(id(99))).expect("a permit");
    let outcome = commit(&mut transaction, &permit, JobId(id(5000)), cost.into()).await.expect("an outcome");
    transaction.rollback().await.expect("a clean end");
    match outcome {
        CommitOutcome::Accepted(_) => true,
        CommitOutcome::Rejected(_) => false,
        CommitOutcome::JobEnded => panic!("the job has not ended"),
    }
}

/// Removes all that a state was made of.
const CLEAR: &str = "DELETE FROM workspaces; DELETE FROM provisioner_jobs";

#[tokio::test]
async fn check_of_random_histories_is_what_counting_says_and_what_commits_do() {
    let mut rows = world().await;
    let classes = Classes::default();
    for seed in seeds(120) {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let (consumed, budget) = (rng.i32(0..30), rng.i32(0..60));
        let mut sql = format!(
            "{CLEAR}; UPDATE groups SET quota_allowance = {budget};
             SELECT add_workspace(800); SELECT add_build(800, 800, 1);
             UPDATE workspace_builds SET daily_cost = {consumed} WHERE id = u(800);"
        );
        let builds = random_builds(&mut rng, &mut sql);
        rows.run(&sql).await;
        for template in [1, 2] {
            for preset in [None, Some("small"), Some("large")] {
                let found = ask(&mut rows.conn, 1, template, preset).await;
                let mut costs = samples(&builds, template, preset);
                let (consumed, budget) = (i64::from(consumed), i64::from(budget));
                let (median, p95, verdict) = verdict(&costs, consumed, budget);
                assert_eq!((found.quota.credits_consumed, found.quota.budget), (consumed, budget));
                assert_eq!(
                    (found.samples, found.median, found.p95, found.claim, found.verdict),
                    (costs.len(), median, p95, None, verdict),
                    "template {template}, preset {preset:?}: {costs:?}"
                );
                for (sentence, of) in VERDICTS {
                    classes.note(sentence, of == verdict);
                }
                classes.note("more starts than are looked at", costs.len() == 50);
                // What costs nothing is not committed.
                costs.retain(|cost| *cost != 0);
                let accepted = match verdict {
                    QuotaVerdict::Fits => p95.filter(|cost| *cost != 0).map(|cost| (cost, true)),
                    QuotaVerdict::Likely => median.filter(|cost| *cost != 0).map(|cost| (cost, true)),
                    QuotaVerdict::LikelyNot => median.map(|cost| (cost, false)),
                    QuotaVerdict::DoesNotFit => costs.iter().min().map(|cost| (*cost, false)),
                    QuotaVerdict::Unknown => None,
                };
                if let Some((cost, accepted)) = accepted {
                    assert_eq!(build_and_commit(&mut rows.conn, None, cost).await, accepted, "{verdict:?} at {cost}");
                }
            }
        }
    }
    classes.all_met();
}

/// Prebuilt workspaces in random states. What the check says of them is what claims of them do, whatever the budget is.
#[tokio::test]
async fn check_of_a_preset_says_what_claims_of_its_prebuilt_workspaces_commit() {
    let mut rows = world().await;
    let mut claims = 0;
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let (consumed, budget) = (rng.i32(0..30), rng.i32(0..40));
        let mut sql = format!(
            "{CLEAR}; UPDATE groups SET quota_allowance = {budget};
             SELECT add_workspace(800); SELECT add_build(800, 800, 1);
             UPDATE workspace_builds SET daily_cost = {consumed} WHERE id = u(800);"
        );
        let mut eligible = Vec::new();
        for n in 1..=rng.u32(..8) {
            let odd = |rng: &mut Rng| rng.u32(..8) == 0;
            let (version, preset) = (if odd(&mut rng) { 2 } else { 1 }, ["small", "large"][rng.usize(..2)]);
            let (end, transition) =
                (if odd(&mut rng) { rng.usize(1..5) } else { 0 }, if odd(&mut rng) { "stop" } else { "start" });
            let (deleted, owner) = (odd(&mut rng), if odd(&mut rng) { "u(2)" } else { "prebuilds()" });
            let (state, cost) = (if odd(&mut rng) { "starting" } else { "ready" }, rng.i32(0..20));
            write!(
                sql,
                "SELECT add_workspace({n}, {owner}); UPDATE workspaces SET deleted = {deleted} WHERE id = u({n});
                 SELECT add_build({n}, {n}, 1, prebuilds(), u({}));
                 UPDATE workspace_builds SET template_version_id = u({version}), transition = '{transition}',
                     daily_cost = {cost} WHERE id = u({n});
                 UPDATE provisioner_jobs SET {} WHERE id = u({n});
                 SELECT add_resource({n}, {n}), add_agent({n}, {n}, 'main', '{state}');",
                preset_id(version, preset),
                ENDS[end]
            )
            .expect("a text");
            let runs = (version, end, transition, deleted, owner, state);
            if preset == "small" && runs == (1, 0, "start", false, "prebuilds()", "ready") {
                eligible.push((n, cost));
            }
        }
        rows.run(&sql).await;
        let found = ask(&mut rows.conn, 1, 1, Some("small")).await;
        let costs: Vec<_> = eligible.iter().map(|(_, cost)| *cost).collect();
        let claim = found.claim.map(|claim| (claim.workspaces, Some(claim.least), Some(claim.most)));
        let expected =
            (!costs.is_empty()).then_some((costs.len(), costs.iter().min().copied(), costs.iter().max().copied()));
        assert_eq!(claim, expected);
        for (workspace, cost) in eligible {
            assert_eq!(found.verdict, QuotaVerdict::Fits);
            assert!(build_and_commit(&mut rows.conn, Some(workspace), cost).await, "a claim at {cost}: {found:?}");
            claims += 1;
        }
        assert_eq!(ask(&mut rows.conn, 1, 1, None).await.claim, None, "a claim needs a preset");
    }
    assert!(claims > 10 || !all_seeds(), "{claims}");
}

#[tokio::test]
async fn check_names_the_template_or_the_preset_that_is_missing() {
    let mut rows = world().await;
    let permit = ListQuota::check(&support::operator(), OrganizationId(id(1))).expect("an operator may");
    let user = UserId(id(1));
    for (template, preset, missing) in [(9, None, Entity::Template), (1, Some("medium"), Entity::Preset)] {
        let outcome = store::quota::check(&mut rows.conn, &permit, user, TemplateId(id(template)), preset).await;
        assert!(matches!(&outcome, Err(Error::NotFound { entity, .. }) if *entity == missing), "{outcome:?}");
    }
}

#[tokio::test]
async fn check_on_the_command_line_says_what_to_do_and_exits_with_the_verdict() {
    let mut rows = world().await;
    rows.run(
        "UPDATE groups SET quota_allowance = 10; SELECT add_workspace(1, u(2)); SELECT add_build(1, 1, 1);
         UPDATE workspace_builds SET daily_cost = 7; UPDATE provisioner_jobs SET completed_at = at_second(1)",
    )
    .await;
    let quota = |args: &[&str]| {
        let mut command = rows.database.coderdb();
        run(command.env("CODER_ORGANIZATION", "org1").arg("quota").args(args))
    };
    let fits = quota(&["check", "--user", "user1", "--template", "template1"]);
    assert_eq!(fits.code, 0, "{}", fits.stderr);
    assert!(fits.stdout.contains("fits: 95 of 100 starts would fit"), "{}", fits.stdout);
    let not = quota(&["check", "--user", "user2", "--template", "template1", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&not.stdout).expect("JSON");
    let expected = serde_json::json!({
        "credits_consumed": 7, "budget": 10, "samples": 1, "median": 7, "p95": 7, "claim": null,
        "verdict": "does_not_fit"
    });
    assert_eq!((not.code, json), (1, expected));
    let unknown = quota(&["check", "--user", "user1", "--template", "template2"]);
    assert!(unknown.code == 1 && unknown.stdout.contains("unknown: "), "{}", unknown.stdout);

    let by = |by: &str| -> serde_json::Value {
        serde_json::from_str(&quota(&["list", "--by", by, "-o", "json"]).stdout).expect("JSON")
    };
    let (templates, groups) = (by("template"), by("group"));
    assert_eq!((&templates[0]["name"], &templates[0]["workspaces"]), (&"template1".into(), &1.into()));
    assert_eq!((&templates[0]["credits_consumed"], templates.as_array().map(Vec::len)), (&7.into(), Some(1)));
    assert_eq!((&groups[0]["name"], &groups[0]["members"]), (&"Everyone".into(), &2.into()));
    assert_eq!((&groups[0]["allowance"], &groups[0]["credits_consumed"]), (&10.into(), &7.into()));
    assert!(quota(&["list", "--by", "template"]).stdout.contains("100%"));
}

#[tokio::test]
async fn show_explain_has_what_changed_in_the_last_day() {
    let mut rows = world().await;
    rows.run(
        "SELECT add_workspace(n) FROM generate_series(1, 4) AS n;
         SELECT add_build(n * 10, n, 1) FROM generate_series(1, 4) AS n;
         SELECT add_build(n * 10 + 1, n, 2) FROM generate_series(1, 3) AS n;
         UPDATE workspace_builds SET daily_cost = 5 WHERE build_number = 1;
         UPDATE workspace_builds SET daily_cost = 9, created_at = now() - interval '1 hour' WHERE id IN (u(11), u(40));
         UPDATE workspace_builds SET daily_cost = 5, created_at = now() WHERE id = u(21);
         UPDATE workspace_builds SET daily_cost = 9, created_at = now() - interval '25 hours' WHERE id = u(31)",
    )
    .await;
    let mut command = rows.database.coderdb();
    let shown =
        run(command.env("CODER_ORGANIZATION", "org1").args(["quota", "show", "user1", "--explain", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let changes: Vec<_> = json["changed_last_day"].as_array().expect("changes").iter().collect();
    let part = |name: &str, from: serde_json::Value| serde_json::json!([name, from, 9, "start"]);
    let found: Vec<_> = changes
        .iter()
        .map(|change| serde_json::json!([change["name"], change["from"], change["to"], change["transition"]]))
        .collect();
    assert_eq!(found, [part("workspace1", 5.into()), part("workspace4", serde_json::Value::Null)]);
}
