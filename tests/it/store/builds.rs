//! Builds: with their jobs, numbered without a gap.

use coderdb::{
    authz::{Actor, BuildWorkspaces, ProvisionerStates, ReadWorkspaces, RunJobs, System},
    model::{
        BuildReason, DaemonId, DeadlineOutcome, Failure, JobId, NewBuild, OrganizationId, PresetId, TemplateVersionId,
        Transition, WorkspaceBuildId, WorkspaceId,
    },
    store::{self, Error},
};
use serde_json::{Map, Value, json};
use sqlx::{Connection, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use tokio::task::JoinSet;
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
    (database, conn)
}

fn may_build(who: &Actor, organization: u32) -> BuildWorkspaces {
    BuildWorkspaces::check(who, OrganizationId(u(organization))).unwrap()
}

fn may_read(organization: u32) -> ReadWorkspaces {
    ReadWorkspaces::check(&support::operator(), OrganizationId(u(organization))).unwrap()
}

fn new(n: u32) -> NewBuild {
    NewBuild {
        id: WorkspaceBuildId(u(n)),
        job_id: JobId(u(n)),
        workspace_id: WorkspaceId(u(1)),
        template_version_id: TemplateVersionId(u(1)),
        preset_id: None,
        transition: Transition::Stop,
        reason: BuildReason::Cli,
        provisioner_state: None,
        deadline: None,
        max_deadline: None,
        tags: [("scope", "organization"), ("owner", "")].into_iter().collect(),
        options: Map::from_iter([("log_level".to_owned(), "debug".into())]),
        trace_metadata: Some(json!({"traceparent": "00-1"})),
    }
}

async fn counts(conn: &mut PgConnection) -> (i64, i64) {
    let sql = "SELECT (SELECT count(*) FROM workspace_builds), (SELECT count(*) FROM provisioner_jobs)";
    sqlx::query_as(sql).fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn a_build_comes_with_a_pending_job_that_names_it() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    assert_eq!(store::builds::create(&mut conn, &may_build(&who, 1), &new(2), NOW).await.unwrap(), 2);
    let id = WorkspaceBuildId(u(2));
    let build = store::builds::get(&mut conn, &may_read(1), id).await.unwrap();
    assert_eq!((build.build_number, build.transition.as_str(), build.reason.as_str()), (2, "stop", "cli"));
    assert_eq!((build.deadline, build.max_deadline, build.daily_cost, build.created_at), (None, None, 0, NOW));
    let job = store::jobs::get(&mut conn, &support::read_jobs(u(1)), JobId(u(2))).await.unwrap().job;
    assert_eq!(job.input.workspace_build_id, Some(id));
    assert_eq!(job.status, coderdb::model::JobStatus::Pending);
    assert_eq!((job.tags, job.trace_metadata), (new(2).tags, new(2).trace_metadata));
    assert_eq!((Some(job.initiator_id), Some(build.initiator_id)), (who.user_id(), who.user_id()));
    assert_eq!(build.job_status, job.status);
    let sql = "SELECT input ->> 'log_level' FROM provisioner_jobs WHERE id = $1";
    let level: String = sqlx::query_scalar(sql).bind(u(2)).fetch_one(&mut conn).await.unwrap();
    assert_eq!(level, "debug");
    for found in [
        store::builds::by_job(&mut conn, &may_read(1), JobId(u(2))).await.unwrap(),
        store::builds::by_number(&mut conn, &may_read(1), WorkspaceId(u(1)), 2).await.unwrap(),
        store::builds::latest(&mut conn, &may_read(1), WorkspaceId(u(1))).await.unwrap().unwrap(),
    ] {
        assert_eq!(found, build);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_created_at_once_have_the_numbers_from_one_without_a_gap() {
    let (database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    sqlx::raw_sql("SELECT add_workspace(2)").execute(&mut conn).await.unwrap();
    let mut tasks = JoinSet::new();
    for n in 100..132 {
        let mut conn = database.connect().await;
        let permit = may_build(&who, 1);
        tasks.spawn(async move {
            let new = NewBuild { workspace_id: WorkspaceId(u(2)), ..new(n) };
            store::builds::create(&mut conn, &permit, &new, NOW).await.unwrap()
        });
    }
    let mut numbers = tasks.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=32).collect::<Vec<_>>());
    assert_eq!(counts(&mut conn).await, (33, 33));
}

#[tokio::test]
async fn a_build_out_of_scope_or_of_another_template_is_not_created() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    sqlx::raw_sql("SELECT add_organization(2), add_template(2), add_job(9), add_version(9, 2), add_preset(9, 9)")
        .execute(&mut conn)
        .await
        .unwrap();
    let before = counts(&mut conn).await;
    let prebuilds_only =
        BuildWorkspaces::check(&Actor::system(System::PrebuildReconciler), OrganizationId(u(1))).unwrap();
    let cases = [
        (may_build(&who, 2), new(2)),
        (prebuilds_only, new(2)),
        (may_build(&who, 1), NewBuild { workspace_id: WorkspaceId(u(7)), ..new(2) }),
        (may_build(&who, 1), NewBuild { template_version_id: TemplateVersionId(u(9)), ..new(2) }),
        (may_build(&who, 1), NewBuild { preset_id: Some(PresetId(u(9))), ..new(2) }),
    ];
    for (permit, new) in cases {
        let error = store::builds::create(&mut conn, &permit, &new, NOW).await.unwrap_err();
        assert_eq!(error.code(), "not_found");
    }
    sqlx::query("UPDATE workspaces SET deleted = true").execute(&mut conn).await.unwrap();
    assert_eq!(
        store::builds::create(&mut conn, &may_build(&who, 1), &new(2), NOW).await.unwrap_err().code(),
        "not_found"
    );
    assert_eq!(counts(&mut conn).await, before);
}

#[tokio::test]
async fn what_the_schema_forbids_is_a_named_conflict_and_writes_nothing() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    let cases = [
        ("workspace_builds_deadline_below_max_deadline", NewBuild { max_deadline: Some(NOW), ..new(2) }),
        ("provisioner_jobs_pkey", NewBuild { job_id: JobId(u(1)), ..new(2) }),
        ("workspace_builds_pkey", NewBuild { id: WorkspaceBuildId(u(1)), ..new(2) }),
    ];
    for (expected, new) in cases {
        let error = store::builds::create(&mut conn, &may_build(&who, 1), &new, NOW).await.unwrap_err();
        let Error::Conflict { constraint } = error else { panic!("{error:?}") };
        assert!(constraint == expected || constraint == "workspace_builds_job_id_key", "{constraint}");
    }
    let names = |key: &str| Map::from_iter([(key.to_owned(), json!(1))]);
    for invalid in [
        NewBuild { tags: [("a", "\0")].into_iter().collect(), ..new(2) },
        NewBuild { options: names("workspace_build_id"), ..new(2) },
        NewBuild { options: names("template_version_id"), ..new(2) },
        NewBuild { options: names("a\0"), ..new(2) },
        NewBuild { trace_metadata: Some(json!(["\0"])), ..new(2) },
    ] {
        let error = store::builds::create(&mut conn, &may_build(&who, 1), &invalid, NOW).await.unwrap_err();
        assert_eq!(error.code(), "invalid");
    }
    assert_eq!(counts(&mut conn).await, (1, 1));
}

#[tokio::test]
async fn a_build_inherits_the_state_of_the_one_before_unless_it_has_its_own() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    let permit = ProvisionerStates::check(&who, OrganizationId(u(1))).unwrap();
    let first = WorkspaceBuildId(u(1));
    assert_eq!(store::builds::state(&mut conn, &permit, first).await.unwrap(), None);
    store::builds::update_state(&mut conn, &permit, first, b"{}\0", NOW).await.unwrap();
    store::builds::create(&mut conn, &may_build(&who, 1), &new(2), NOW).await.unwrap();
    let fresh = NewBuild { provisioner_state: Some(Vec::new()), ..new(3) };
    store::builds::create(&mut conn, &may_build(&who, 1), &fresh, NOW).await.unwrap();
    for (n, expected) in [(1, &b"{}\0"[..]), (2, b"{}\0"), (3, b"")] {
        let state = store::builds::state(&mut conn, &permit, WorkspaceBuildId(u(n))).await.unwrap();
        assert_eq!(state.as_deref(), Some(expected));
    }
    let other = ProvisionerStates::check(&who, OrganizationId(u(2))).unwrap();
    assert_eq!(store::builds::state(&mut conn, &other, first).await.unwrap_err().code(), "not_found");
    let error = store::builds::update_state(&mut conn, &other, first, b"", NOW).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
    assert_eq!(store::builds::state(&mut conn, &permit, first).await.unwrap().as_deref(), Some(&b"{}\0"[..]));
}

#[tokio::test]
async fn a_daemon_has_the_states_of_its_own_jobs_while_it_carries_them_out() {
    let (_database, mut conn) = world().await;
    sqlx::raw_sql(
        "UPDATE workspace_builds SET provisioner_state = 'state'; SELECT add_job(2);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    let daemon = |organization, daemon| {
        let worker = Actor::system(System::ProvisionerDaemon);
        RunJobs::check(&worker, OrganizationId(u(organization)), DaemonId(u(daemon))).unwrap()
    };
    let state = store::builds::state_of_job(&mut conn, &daemon(1, 7), JobId(u(1))).await.unwrap();
    assert_eq!(state.as_deref(), Some(&b"state"[..]));
    for (organization, id, job) in [(1, 8, 1), (2, 7, 1), (1, 7, 2), (1, 7, 404)] {
        let error = store::builds::state_of_job(&mut conn, &daemon(organization, id), JobId(u(job))).await.unwrap_err();
        assert_eq!(error.to_string(), format!("provisioner job not found: {}", u(job)));
    }
    sqlx::query("UPDATE provisioner_jobs SET completed_at = at_second(1)").execute(&mut conn).await.unwrap();
    let error = store::builds::state_of_job(&mut conn, &daemon(1, 7), JobId(u(1))).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
}

#[tokio::test]
async fn deadlines_are_set_but_not_for_prebuilds() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    let (id, later) = (WorkspaceBuildId(u(1)), NOW + time::Duration::HOUR);
    let updated =
        store::builds::update_deadline(&mut conn, &may_build(&who, 1), id, Some(NOW), Some(later), later).await;
    assert_eq!(updated.unwrap(), DeadlineOutcome::Updated);
    let build = store::builds::get(&mut conn, &may_read(1), id).await.unwrap();
    assert_eq!((build.deadline, build.max_deadline, build.updated_at), (Some(NOW), Some(later), later));
    for (deadline, bound) in [(None, NOW), (Some(later), NOW)] {
        let error =
            store::builds::update_deadline(&mut conn, &may_build(&who, 1), id, deadline, Some(bound), later).await;
        assert_eq!(error.unwrap_err().code(), "conflict");
    }
    let error = store::builds::update_deadline(&mut conn, &may_build(&who, 2), id, None, None, NOW).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
    sqlx::raw_sql("UPDATE workspaces SET owner_id = prebuilds()").execute(&mut conn).await.unwrap();
    let prebuild = store::builds::update_deadline(&mut conn, &may_build(&who, 1), id, None, None, NOW).await.unwrap();
    assert_eq!(prebuild, DeadlineOutcome::Prebuild);
    assert_eq!(store::builds::get(&mut conn, &may_read(1), id).await.unwrap(), build);
}

#[tokio::test]
async fn builds_of_other_organizations_are_not_found() {
    let (_database, mut conn) = world().await;
    let id = WorkspaceBuildId(u(1));
    assert_eq!(store::builds::get(&mut conn, &may_read(2), id).await.unwrap_err().code(), "not_found");
    assert_eq!(store::builds::by_job(&mut conn, &may_read(2), JobId(u(1))).await.unwrap_err().code(), "not_found");
    let workspace = WorkspaceId(u(1));
    assert_eq!(store::builds::latest(&mut conn, &may_read(2), workspace).await.unwrap(), None);
    assert_eq!(store::builds::by_number(&mut conn, &may_read(2), workspace, 1).await.unwrap_err().code(), "not_found");
}

/// What there is of a workspace.
async fn workspace(conn: &mut PgConnection) -> Map<String, Value> {
    let row: Value = sqlx::query_scalar("SELECT to_jsonb(w) FROM workspaces AS w").fetch_one(conn).await.unwrap();
    row.as_object().unwrap().clone()
}

/// The columns that are not as before, with what is in them.
fn changed(before: &Map<String, Value>, after: &Map<String, Value>) -> Value {
    after.iter().filter(|(column, value)| before[*column] != **value).map(|(c, v)| (c.clone(), v.clone())).collect()
}

const SCHEDULE: &str = "UPDATE workspaces SET autostart_schedule = 'CRON_TZ=UTC 0 9 * * 1-5', ttl = 3600000000000,
    next_start_at = at_second(86400), favorite = true, automatic_updates = 'always', last_used_at = at_second(-90)";

const DORMANT: &str = "UPDATE workspaces SET dormant_at = at_second(-60), deleting_at = at_second(9999)";

#[tokio::test]
async fn a_start_ends_dormancy_and_no_build_changes_anything_else_of_its_workspace() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    let permit = may_build(&who, 1);
    let ended = json!({ "dormant_at": null, "deleting_at": null, "last_used_at": "2026-05-07T12:00:00+00:00" });
    sqlx::raw_sql("SET timezone = 'UTC'").execute(&mut conn).await.unwrap();
    sqlx::raw_sql(SCHEDULE).execute(&mut conn).await.unwrap();
    for (setup, of_a_start) in [
        ("SELECT 1", json!({})),
        (DORMANT, ended.clone()),
        (
            "UPDATE workspaces SET deleting_at = at_second(9999)",
            json!({ "deleting_at": null, "last_used_at": "2026-05-07T12:00:00+00:00" }),
        ),
        (
            "UPDATE workspaces SET dormant_at = at_second(-60), last_used_at = at_second(5)",
            json!({ "dormant_at": null }),
        ),
        (
            "UPDATE workspaces SET dormant_at = at_second(-60), deleting_at = at_second(-1), owner_id = prebuilds()",
            ended,
        ),
    ] {
        for transition in [Transition::Start, Transition::Stop, Transition::Delete] {
            for reason in BuildReason::ALL {
                let mut tx = conn.begin().await.unwrap();
                sqlx::raw_sql(setup).execute(&mut *tx).await.unwrap();
                let before = workspace(&mut tx).await;
                let new = NewBuild { transition, reason: *reason, ..new(2) };
                store::builds::create(&mut tx, &permit, &new, NOW).await.unwrap();
                let after = workspace(&mut tx).await;
                tx.rollback().await.unwrap();
                let expected = if transition == Transition::Start { of_a_start.clone() } else { json!({}) };
                assert_eq!(changed(&before, &after), expected, "{transition} {reason} after {setup}");
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_build_changes_nothing_of_its_workspace_unless_it_was_deleted() {
    let (_database, mut conn) = world().await;
    let daemon =
        RunJobs::check(&Actor::system(System::ProvisionerDaemon), OrganizationId(u(1)), DaemonId(u(1))).unwrap();
    sqlx::raw_sql(SCHEDULE).execute(&mut conn).await.unwrap();
    sqlx::raw_sql("UPDATE provisioner_jobs SET worker_id = u(1), started_at = at_second(1)")
        .execute(&mut conn)
        .await
        .unwrap();
    for dormancy in ["SELECT 1", DORMANT] {
        for transition in ["start", "stop", "delete"] {
            for end in ["succeeds", "fails", "is canceled"] {
                let mut tx = conn.begin().await.unwrap();
                sqlx::raw_sql(dormancy).execute(&mut *tx).await.unwrap();
                sqlx::query("UPDATE workspace_builds SET transition = $1::text::workspace_transition")
                    .bind(transition)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                let before = workspace(&mut tx).await;
                let ended = if end == "fails" {
                    let failure = Failure { error: "boom", ..Failure::default() };
                    store::jobs::fail(&mut tx, &daemon, JobId(u(1)), NOW, failure).await.map(drop)
                } else {
                    let cancel = "UPDATE provisioner_jobs SET canceled_at = at_second(2) WHERE $1";
                    sqlx::query(cancel).bind(end == "is canceled").execute(&mut *tx).await.unwrap();
                    store::jobs::complete(&mut tx, &daemon, JobId(u(1)), NOW, None).await.map(drop)
                };
                ended.unwrap();
                let after = workspace(&mut tx).await;
                tx.rollback().await.unwrap();
                let mut changed = changed(&before, &after);
                changed.as_object_mut().unwrap().remove("updated_at");
                let gone =
                    if transition == "delete" && end == "succeeds" { json!({ "deleted": true }) } else { json!({}) };
                assert_eq!(changed, gone, "{transition} {end} after {dormancy}");
            }
        }
    }
}

#[tokio::test]
async fn a_start_that_is_not_created_leaves_a_workspace_dormant() {
    let (_database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    sqlx::raw_sql(DORMANT).execute(&mut conn).await.unwrap();
    let before = workspace(&mut conn).await;
    let start = NewBuild { transition: Transition::Start, ..new(2) };
    for new in [
        NewBuild { template_version_id: TemplateVersionId(u(9)), ..start.clone() },
        NewBuild { preset_id: Some(PresetId(u(9))), ..start.clone() },
        NewBuild { job_id: JobId(u(1)), ..start.clone() },
        NewBuild { max_deadline: Some(NOW), ..start },
    ] {
        store::builds::create(&mut conn, &may_build(&who, 1), &new, NOW).await.unwrap_err();
        assert_eq!(workspace(&mut conn).await, before, "{new:?}");
    }
}

#[tokio::test]
async fn a_start_waits_for_whoever_makes_the_workspace_dormant_and_ends_that() {
    let (database, mut conn) = world().await;
    let who = support::site_owner(&mut conn).await;
    let mut other = database.connect().await;
    let mut tx = other.begin().await.unwrap();
    sqlx::raw_sql(DORMANT).execute(&mut *tx).await.unwrap();
    let (permit, mut mine) = (may_build(&who, 1), database.connect().await);
    let start = tokio::spawn(async move {
        let new = NewBuild { transition: Transition::Start, ..new(2) };
        store::builds::create(&mut mine, &permit, &new, NOW).await.unwrap()
    });
    support::settled(&start, &mut conn, 1).await;
    tx.commit().await.unwrap();
    assert_eq!(start.await.unwrap(), 2);
    let after = workspace(&mut conn).await;
    assert_eq!((&after["dormant_at"], &after["deleting_at"]), (&Value::Null, &Value::Null));
}
