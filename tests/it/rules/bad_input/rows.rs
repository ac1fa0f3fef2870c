//! Rows that hold what they should not, and times beyond the calendar.

use std::time::Duration;

use coderdb::{
    authz::{
        ActAsDaemon, Actor, CancelJobs, MaintainDaemons, ReadJobLogs, ReadJobs, ReadWorkspaces, ReapJobs, RunJobs,
        System,
    },
    model::{
        ByWorker, Capabilities, DaemonId, End, HeartbeatOutcome, JobDetails, JobFilter, JobId, LogLevel, LogSource,
        NewJobLog, OrganizationId, PageRequest, ProvisionerType, ReapOutcome, Stuck, Tags, WorkspaceId,
    },
    sqlx::{self, AssertSqlSafe, Connection},
    store,
};
use serde_json::json;

use super::{NOW, read_all, u, world};
use crate::support;

#[tokio::test]
async fn a_row_that_holds_what_it_should_not_fails_no_list() {
    let (_database, mut conn, owner) = world().await;
    let deep = format!("'{}{}'", "[".repeat(1_000), "]".repeat(1_000));
    let nested = format!("'{{\"a\": {}{}}}'", "[".repeat(1_000), "]".repeat(1_000));
    let documents = [
        "'null'",
        "'[]'",
        "'[\"scope\"]'",
        "'\"text\"'",
        "'5'",
        "'1e400'",
        "'{\"a\": 1}'",
        "'{\"a\": null}'",
        &deep,
        &nested,
    ];
    let moments =
        ["'infinity'", "'-infinity'", "'4713-01-01 00:00+00 BC'", "'294276-12-31 23:59+00'", "'10000-01-01 00:00+00'"];
    let names = ["repeat('x', 5000)", "''", "E'\\u0001\\n'"];
    let columns: &[(&str, &str, &[&str])] = &[
        ("provisioner_jobs", "input", &documents),
        ("provisioner_jobs", "tags", &documents),
        ("provisioner_jobs", "trace_metadata", &documents),
        ("provisioner_jobs", "error", &names),
        ("provisioner_jobs", "created_at", &moments),
        ("provisioner_jobs", "updated_at", &moments),
        ("provisioner_jobs", "started_at", &moments),
        ("provisioner_jobs", "canceled_at", &moments),
        ("provisioner_jobs", "completed_at", &moments),
        ("provisioner_jobs", "worker_id", &["u(1)", "NULL"]),
        ("provisioner_daemons", "tags", &documents),
        ("provisioner_daemons", "created_at", &moments),
        ("provisioner_daemons", "last_seen_at", &moments),
        ("provisioner_daemons", "provisioners", &["'{}'", "'{echo,echo}'"]),
        ("provisioner_daemons", "version", &names),
        ("provisioner_job_logs", "created_at", &moments),
        ("provisioner_job_timings", "started_at", &moments),
        ("provisioner_job_timings", "ended_at", &moments),
        ("provisioner_job_timings", "resource", &names),
        ("workspace_builds", "created_at", &moments),
        ("workspace_builds", "deadline", &moments),
        ("workspace_builds", "daily_cost", &["-1", "2147483647", "-2147483648"]),
        ("workspace_builds", "provisioner_state", &["''", "NULL"]),
        ("workspace_agents", "created_at", &moments),
        ("workspace_agents", "first_connected_at", &moments),
        ("workspace_agents", "last_connected_at", &moments),
        ("workspace_agent_logs", "created_at", &moments),
        ("workspaces", "created_at", &moments),
        ("workspaces", "ttl", &["-1", "9223372036854775807"]),
        ("templates", "display_name", &["''", "repeat('x', 64)"]),
        ("licenses", "exp", &moments),
        ("organizations", "name", &names),
        ("users", "username", &names[..1]),
    ];
    sqlx::raw_sql(
        "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         SELECT id, created_at, 'provisioner', 'info', '', '' FROM provisioner_jobs;
         INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
         SELECT id, created_at, created_at, 'plan', '', '', '' FROM provisioner_jobs;
         INSERT INTO workspace_agent_logs (agent_id, created_at, output, level)
         SELECT id, created_at, '', 'info' FROM workspace_agents",
    )
    .execute(&mut conn)
    .await
    .expect("rows to spoil");
    let mut wrong = Vec::new();
    for (table, column, values) in columns {
        for value in *values {
            let mut tx = conn.begin().await.expect("a transaction");
            let key =
                if *table == "provisioner_job_logs" || *table == "provisioner_job_timings" { "job_id" } else { "id" };
            let key = if *table == "workspace_agent_logs" { "agent_id" } else { key };
            let row = format!("(SELECT {key} FROM {table} ORDER BY {key}::text LIMIT 1)");
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE {key} = {row}");
            let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *tx).await;
            assert!(done.unwrap_or_else(|error| panic!("{sql:.200}: {error}")).rows_affected() > 0, "{sql:.200}");
            if let Err(error) = read_all(&mut tx, &owner).await {
                wrong.push(format!("{table}.{column} = {value:.40}: {error:?}"));
            }
            let permit = ReadWorkspaces::check(&owner, OrganizationId(u(1))).expect("an owner");
            for agent in store::agents::in_latest_build(&mut tx, &permit, WorkspaceId(u(103))).await.expect("agents") {
                let _ = agent.status(NOW, Duration::MAX);
            }
            tx.rollback().await.expect("nothing stays");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_job_with_a_broken_input_says_so_and_does_not_keep_others_from_their_daemon() {
    let (_database, mut conn, owner) = world().await;
    let organization = OrganizationId(u(1));
    let jobs = ReadJobs::check(&owner, organization).expect("an owner");
    let runs =
        RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(u(104))).expect("a daemon");
    let tags = Tags::from_iter([("scope", "organization"), ("owner", "a")]);
    let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    let broken = [
        json!({"workspace_build_id": "not a UUID"}).to_string(),
        json!({"workspace_build_id": 5}).to_string(),
        json!({"template_version_id": {}}).to_string(),
        json!({"workspace_build_id": "x".repeat(5_000)}).to_string(),
        json!([]).to_string(),
        json!("text").to_string(),
    ];
    for input in broken {
        let mut tx = conn.begin().await.expect("a transaction");
        let sql = "UPDATE provisioner_jobs SET input = $1::jsonb WHERE id = u(120)";
        sqlx::query(sql).bind(&input).execute(&mut *tx).await.expect("a broken input");
        let page =
            store::jobs::list(&mut tx, &jobs, &JobFilter::default(), PageRequest::default()).await.expect("jobs");
        let says =
            |job: &coderdb::model::Job| job.input.error.as_deref().is_some_and(|e| e.starts_with("decode input"));
        for row in page.rows {
            assert_eq!(says(&row.job), row.job.id == JobId(u(120)), "{input:.60}: {:?}", row.job);
        }
        let taken = store::jobs::acquire(&mut tx, &runs, offer, NOW).await.expect("an answer").expect("the job");
        assert!(says(&taken), "its daemon sees it and fails it");
        tx.rollback().await.expect("nothing stays");
    }
    // A job with tags that no daemon can have waits, is passed over, and is reaped when it is due.
    sqlx::raw_sql(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id,
            tags
         ) SELECT u(121), created_at - interval '1 hour', updated_at, organization_id, initiator_id, provisioner,
            storage_method, type, input, file_id, tags FROM provisioner_jobs WHERE id = u(120)",
    )
    .execute(&mut conn)
    .await
    .expect("an older job");
    for tags in ["null", "[]", "\"scope\"", "5", r#"{"scope": 1}"#, r#"{"scope": null}"#] {
        let mut tx = conn.begin().await.expect("a transaction");
        let sql = "UPDATE provisioner_jobs SET tags = $1::jsonb WHERE id = u(121)";
        sqlx::query(sql).bind(tags).execute(&mut *tx).await.expect("broken tags");
        let taken = store::jobs::acquire(&mut tx, &runs, offer, NOW).await.expect("an answer").expect("another job");
        assert_eq!(taken.id, JobId(u(120)), "{tags}");
        assert_eq!(store::jobs::acquire(&mut tx, &runs, offer, NOW).await.expect("an answer"), None, "{tags}");
        let reaper = ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper");
        let later = NOW + store::jobs::PENDING_AFTER + Duration::from_secs(1);
        let outcome = store::jobs::reap(&mut tx, &reaper, JobId(u(121)), later).await.expect("an answer");
        assert!(matches!(outcome, ReapOutcome::Reaped { stuck: Stuck::Pending, .. }), "{tags}: {outcome:?}");
        tx.rollback().await.expect("nothing stays");
    }
}

#[tokio::test]
async fn pages_over_times_beyond_the_calendar_show_every_job_once() {
    let (_database, mut conn, owner) = world().await;
    sqlx::raw_sql(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id
         ) SELECT u(700 + n::integer), at, moment(), u(1), u(1), 'echo', 'file', 'workspace_build', '{}', u(0)
         FROM unnest('{infinity,infinity,294276-12-31,294276-12-31,10000-01-01,9999-12-31,2026-01-01,0001-01-01,
            0001-01-01 BC,0044-03-15 BC,4713-01-01 BC,4713-01-01 BC,-infinity,-infinity}'::timestamptz[])
            WITH ORDINALITY AS job (at, n)",
    )
    .execute(&mut conn)
    .await
    .expect("jobs of all times");
    let permit = ReadJobs::check(&owner, OrganizationId(u(1))).expect("an owner");
    let filter = JobFilter::default();
    let all = store::jobs::list(&mut conn, &permit, &filter, PageRequest::default()).await.expect("jobs").rows;
    for size in 1..=4 {
        let (mut walked, mut request) = (Vec::new(), PageRequest::first(size));
        loop {
            let page = store::jobs::list(&mut conn, &permit, &filter, request).await.expect("a page");
            walked.extend(page.rows);
            let Some(next) = page.next.filter(|_| walked.len() <= all.len()) else { break };
            request = PageRequest::after(next, size);
        }
        let ids = |rows: &[JobDetails]| rows.iter().map(|row| row.job.id).collect::<Vec<_>>();
        assert_eq!(ids(&walked), ids(&all), "pages of {size}");
    }
}

/// What `docs/operations.md` says of a clock that goes backwards.
#[tokio::test]
async fn a_clock_that_goes_backwards_reaps_nobody_and_makes_no_time_negative() {
    let (_database, mut conn, owner) = world().await;
    let (organization, daemon, job) = (OrganizationId(u(1)), DaemonId(u(104)), JobId(u(101)));
    let actor = Actor::system(System::ProvisionerDaemon);
    let runs = RunJobs::check(&actor, organization, daemon).expect("a daemon");
    let jobs = ReadJobs::check(&owner, organization).expect("an owner");
    let earlier = NOW - Duration::from_hours(24 * 365);

    let acts = ActAsDaemon::check(&actor, daemon, organization).expect("a daemon");
    let outcome = store::daemons::heartbeat(&mut conn, &acts, earlier).await.expect("an answer");
    assert_eq!(outcome, HeartbeatOutcome::Ignored);
    let _ = store::jobs::heartbeat(&mut conn, &runs, job, earlier).await.expect("an answer");
    let found = store::jobs::get(&mut conn, &jobs, job).await.expect("the job").job;
    assert_eq!(found.updated_at, NOW, "the sign of life stays");

    let reaper = ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper");
    assert_eq!(store::jobs::reap_candidates(&mut conn, &reaper, earlier, 100).await.expect("an answer"), []);
    for id in [101, 120] {
        let outcome = store::jobs::reap(&mut conn, &reaper, JobId(u(id)), earlier).await.expect("an answer");
        assert_eq!(outcome, ReapOutcome::Alive);
    }
    let maintains = MaintainDaemons::check(&support::operator()).expect("an operator");
    assert_eq!(store::daemons::delete_old(&mut conn, &maintains, earlier).await.expect("an answer"), 0);

    let line = |created_at, output: &str| NewJobLog {
        created_at,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: String::new(),
        output: output.to_owned(),
    };
    let lines = [line(NOW, "first"), line(earlier, "second")];
    let _ = store::job_logs::append(&mut conn, &runs, job, &lines).await.expect("an answer");
    let reads = ReadJobLogs::check(&owner, organization).expect("an owner");
    let logs = store::job_logs::after(&mut conn, &reads, job, 0).await.expect("the lines");
    assert!(logs.iter().map(|log| log.output.as_str()).eq(["first", "second"]), "lines keep their order");

    let cancels = CancelJobs::check(&support::operator(), organization).expect("an operator");
    let _ = store::jobs::cancel(&mut conn, &cancels, job, None, earlier).await.expect("an answer");
    let ended = store::jobs::complete(&mut conn, &runs, job, earlier, None).await.expect("an answer");
    assert!(matches!(ended, ByWorker::Done(End::Ended(_))), "{ended:?}");
    let tags = Tags::from_iter([("scope", "organization")]);
    let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    let taken = store::jobs::acquire(&mut conn, &runs, offer, earlier).await.expect("an answer").expect("a job");
    assert_eq!((taken.created_at, taken.started_at), (NOW, Some(earlier)));
    let negative: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM provisioner_job_stats
         WHERE least(queued_secs, completion_secs, canceled_secs, init_secs, plan_secs, graph_secs, apply_secs) < 0",
    )
    .fetch_one(&mut conn)
    .await
    .expect("the durations");
    assert_eq!(negative, 0);
    let outlived: (f64, f64) = sqlx::query_as(
        "SELECT completion_secs::float8, canceled_secs::float8 FROM provisioner_job_stats WHERE job_id = u(101)",
    )
    .fetch_one(&mut conn)
    .await
    .expect("the job's durations");
    assert_eq!(outlived, (0.0, 0.0));
}
