//! What a daemon hears whose job was taken away from it, and what becomes of texts that cannot be stored as they are.

use coderdb::{
    authz::{ActAsAgent, Actor, ReapJobs, System},
    model::{
        AgentLogLine, Append, ByWorker, End, Failure, JobId, JobTiming, LogLevel, LogSource, NewJobLog, TimingStage,
        WorkspaceAgentId,
    },
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{self, quota::CommitOutcome},
};
use time::Duration;

use crate::support::{
    self,
    rows::{NOW, Rows, daemon, id},
};

const OWN: u128 = 7;
const JOB: JobId = JobId(uuid::Uuid::from_u128(1));

/// Job 1 runs with daemon 7, for build 1 of workspace 1.
async fn running() -> Rows {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0), updated_at = at_second(0)")
        .await;
    rows
}

fn line(output: &str) -> NewJobLog {
    NewJobLog {
        created_at: NOW,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: "Starting workspace".to_owned(),
        output: output.to_owned(),
    }
}

fn timing(resource: &str) -> JobTiming {
    JobTiming {
        started_at: NOW,
        ended_at: NOW,
        stage: TimingStage::Apply,
        source: "terraform".to_owned(),
        action: "create".to_owned(),
        resource: resource.to_owned(),
    }
}

/// Ends job 1 in one of the ways in which a job of a daemon can end.
async fn end(rows: &mut Rows, way: &str) {
    let permit = daemon(1, OWN);
    match way {
        "reaped" => {
            let reaper = ReapJobs::check(&Actor::system(System::Reaper)).expect("the reaper");
            let outcome = store::jobs::reap(&mut rows.conn, &reaper, JOB, NOW + Duration::hours(1)).await;
            assert!(matches!(outcome, Ok(coderdb::model::ReapOutcome::Reaped { .. })), "{outcome:?}");
        }
        "completed" => {
            let end = store::jobs::complete(&mut rows.conn, &permit, JOB, NOW, None).await;
            assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
        }
        "failed" => {
            let failure = Failure { error: "boom", ..Failure::default() };
            let end = store::jobs::fail(&mut rows.conn, &permit, JOB, NOW, failure).await;
            assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
        }
        "canceled" => {
            rows.run("UPDATE provisioner_jobs SET canceled_at = at_second(1)").await;
            let end = store::jobs::complete(&mut rows.conn, &permit, JOB, NOW, None).await;
            assert!(matches!(end, Ok(ByWorker::Done(End::Ended(_)))), "{end:?}");
        }
        // By another server, which says it without a daemon.
        "foreign" => rows.run("UPDATE provisioner_jobs SET completed_at = at_second(1), error = 'foreign'").await,
        _ => panic!("no way {way}"),
    }
}

const WAYS: [&str; 5] = ["reaped", "completed", "failed", "canceled", "foreign"];

#[tokio::test]
async fn messages_about_a_job_that_has_ended_are_answered_with_that_fact() {
    for way in WAYS {
        let mut rows = running().await;
        end(&mut rows, way).await;
        let permit = daemon(1, OWN);
        let job =
            "SELECT to_jsonb(j) FROM provisioner_jobs AS j UNION ALL SELECT to_jsonb(l) FROM provisioner_job_logs AS l";
        let before = rows.all(job).await;
        let beat = store::jobs::heartbeat(&mut rows.conn, &permit, JOB, NOW + Duration::hours(2)).await;
        assert_eq!(beat.expect("an answer"), ByWorker::Ended, "{way}");
        let appended = store::job_logs::append(&mut rows.conn, &permit, JOB, &[line("late")]).await;
        assert_eq!(appended.expect("an answer"), ByWorker::Ended, "{way}");
        let committed = store::quota::commit(&mut rows.conn, &permit, JOB, 1).await;
        assert_eq!(committed.expect("an answer"), CommitOutcome::JobEnded, "{way}");
        let failure = Failure { error: "late", ..Failure::default() };
        let failed = store::jobs::fail(&mut rows.conn, &permit, JOB, NOW, failure).await;
        let nothing_kept = ByWorker::Done(End::AlreadyCompleted { state_kept: false });
        assert_eq!(failed.expect("an answer"), nothing_kept, "{way}");
        assert_eq!(rows.all(job).await, before, "{way}");
        // How long the steps took is true also when it comes late.
        let inserted = store::job_timings::insert(&mut rows.conn, &permit, JOB, &[timing("late")]).await;
        assert_eq!(inserted.expect("an answer"), ByWorker::Done(1), "{way}");
        // Who never had the job still hears that.
        let beat = store::jobs::heartbeat(&mut rows.conn, &daemon(1, 8), JOB, NOW).await;
        assert_eq!(beat.expect("an answer"), ByWorker::OtherOwner, "{way}");
    }
}

#[tokio::test]
async fn complete_keeps_a_late_state_while_no_newer_build_exists() {
    let state = "SELECT encode(provisioner_state, 'escape') FROM workspace_builds WHERE id = u(1)";
    for way in WAYS {
        let mut rows = running().await;
        end(&mut rows, way).await;
        let permit = daemon(1, OWN);
        let late = store::jobs::complete(&mut rows.conn, &permit, JOB, NOW, Some(b"late")).await.expect("an answer");
        assert_eq!(late, ByWorker::Done(End::AlreadyCompleted { state_kept: true }), "{way}");
        assert_eq!(rows.one(state).await, "late", "{way}");
        // Somebody else's is not.
        let other = store::jobs::complete(&mut rows.conn, &daemon(1, 8), JOB, NOW, Some(b"other")).await;
        assert_eq!(other.expect("an answer"), ByWorker::OtherOwner, "{way}");
        // A newer build went on from what was there.
        rows.run("SELECT add_build(2, 1, 2)").await;
        let failure = Failure { error: "late", provisioner_state: Some(b"later"), ..Failure::default() };
        let later = store::jobs::fail(&mut rows.conn, &permit, JOB, NOW, failure).await.expect("an answer");
        assert_eq!(later, ByWorker::Done(End::AlreadyCompleted { state_kept: false }), "{way}");
        assert_eq!(rows.one(state).await, "late", "{way}");
    }
}

#[tokio::test]
async fn texts_with_nul_are_stored_with_a_visible_substitute() {
    let mut rows = running().await;
    let permit = daemon(1, OWN);
    let mut lines = [line("one"), line("t\0wo"), line("three")];
    lines[1].stage = "Starting\0workspace".to_owned();
    let appended = store::job_logs::append(&mut rows.conn, &permit, JOB, &lines).await.expect("an answer");
    assert!(matches!(appended, ByWorker::Done(Append::Stored { .. })), "{appended:?}");
    let stored = rows.all("SELECT stage || ': ' || output FROM provisioner_job_logs ORDER BY id").await;
    let expected = ["Starting workspace: one", "Starting\\0workspace: t\\0wo", "Starting workspace: three"];
    assert_eq!(stored, expected);
    // What is stored counts: 3 and 5 and 5.
    assert_eq!(rows.one("SELECT logs_length FROM provisioner_jobs").await, "13");
    let inserted = store::job_timings::insert(&mut rows.conn, &permit, JOB, &[timing("a\0b")]).await;
    assert_eq!(inserted.expect("an answer"), ByWorker::Done(1));
    assert_eq!(rows.one("SELECT resource FROM provisioner_job_timings").await, "a\\0b");
    let failure = Failure { error: "boom\0", ..Failure::default() };
    let failed = store::jobs::fail(&mut rows.conn, &permit, JOB, NOW, failure).await.expect("an answer");
    assert!(matches!(failed, ByWorker::Done(End::Ended(_))), "{failed:?}");
    assert_eq!(rows.one("SELECT error FROM provisioner_jobs").await, "boom\\0");
    let agent = ActAsAgent::check(&Actor::system(System::WorkspaceAgent), WorkspaceAgentId(id(1))).expect("an agent");
    let line = AgentLogLine { output: "a\0b".to_owned(), level: LogLevel::Info };
    let appended = store::agents::append_logs(&mut rows.conn, &agent, &[line], None, NOW).await.expect("an answer");
    assert!(matches!(appended, Append::Stored { .. }), "{appended:?}");
    assert_eq!(rows.one("SELECT output FROM workspace_agent_logs").await, "a\\0b");
    assert_eq!(rows.one("SELECT logs_length FROM workspace_agents").await, "4");
}

/// In a database whose encoding lacks a character, the line is there without it.
#[tokio::test]
async fn texts_beyond_the_encoding_of_the_database_are_stored_with_a_visible_substitute() {
    let name = format!("latin1_{}", std::process::id());
    let mut admin = PgConnection::connect(&support::server().url("postgres")).await.expect("the server");
    let create = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.expect("a database");
    let mut conn = PgConnection::connect(&support::server().url(&name)).await.expect("the database");
    coderdb::migrate::up(&mut conn, &coderdb::migrate::MigrateOptions::default(), |_| {})
        .await
        .expect("the migrations");
    let rows = include_str!("../golden/rows.sql");
    sqlx::raw_sql(AssertSqlSafe(rows.to_owned())).execute(&mut conn).await.expect("the rows");
    let assign = "UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)";
    sqlx::raw_sql(assign).execute(&mut conn).await.expect("a daemon");
    let permit = daemon(1, OWN);
    let lines = [line("caf\u{e9}"), line("\u{2713} done")];
    let appended = store::job_logs::append(&mut conn, &permit, JOB, &lines[..1]).await.expect("an answer");
    assert!(matches!(appended, ByWorker::Done(Append::Stored { .. })), "{appended:?}");
    let appended = store::job_logs::append(&mut conn, &permit, JOB, &lines).await.expect("an answer");
    assert!(matches!(appended, ByWorker::Done(Append::Stored { .. })), "{appended:?}");
    let inserted = store::job_timings::insert(&mut conn, &permit, JOB, &[timing("\u{2713}")]).await;
    assert_eq!(inserted.expect("an answer"), ByWorker::Done(1));
    let failure = Failure { error: "\u{2717} boom", ..Failure::default() };
    let failed = store::jobs::fail(&mut conn, &permit, JOB, NOW, failure).await.expect("an answer");
    assert!(matches!(failed, ByWorker::Done(End::Ended(_))), "{failed:?}");
    let texts =
        "SELECT concat_ws(' | ', (SELECT string_agg(output, ', ' ORDER BY id) FROM provisioner_job_logs), error,
                     (SELECT resource FROM provisioner_job_timings)) FROM provisioner_jobs";
    let texts: String = sqlx::query_scalar(texts).fetch_one(&mut conn).await.expect("the texts");
    assert_eq!(texts, "caf\u{e9}, caf?, ? done | ? boom | ?");
    conn.close().await.expect("a clean end");
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.expect("an end");
}

#[tokio::test]
async fn acquire_by_a_daemon_whose_clock_is_behind_takes_no_sign_of_life_back() {
    let mut rows = Rows::new().await;
    rows.run("UPDATE provisioner_jobs SET tags = '{}'").await;
    let tags = coderdb::model::Tags::default();
    let offer = coderdb::model::Capabilities { provisioners: coderdb::model::ProvisionerType::ALL, tags: &tags };
    let behind = NOW - Duration::hours(1);
    let job = store::jobs::acquire(&mut rows.conn, &daemon(1, OWN), offer, behind).await.expect("an answer");
    let job = job.expect("the job");
    assert_eq!(job.started_at, Some(behind));
    assert_eq!(rows.one("SELECT (updated_at = created_at)::text FROM provisioner_jobs").await, "true");
}
