//! The logs of jobs: the cap to the byte, against a literal model and against a second appender.

use coderdb::{
    authz::ReadJobLogs,
    model::{Append, ByWorker, JobId, JobLog, LogLevel, LogSource, NewJobLog, OrganizationId},
    store::{
        self, Error,
        job_logs::{LIMIT, OVERFLOW_MESSAGE},
    },
};
use fastrand::Rng;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::support::{
    self,
    rows::{NOW, Rows, daemon, id},
};

const JOB: JobId = JobId(uuid::Uuid::from_u128(1));
const M: usize = OVERFLOW_MESSAGE.len();
const CAP: usize = LIMIT as usize;

fn line(output: impl Into<String>) -> NewJobLog {
    NewJobLog {
        created_at: NOW,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: "Planning Infrastructure".into(),
        output: output.into(),
    }
}

fn reads_all() -> ReadJobLogs {
    ReadJobLogs::check(&support::operator(), OrganizationId(id(1))).expect("an operator")
}

async fn append(conn: &mut PgConnection, lines: &[NewJobLog]) -> Append {
    match store::job_logs::append(conn, &daemon(1, 7), JOB, lines).await.expect("the job") {
        ByWorker::Done(append) => append,
        other => panic!("{other:?}"),
    }
}

async fn stored(conn: &mut PgConnection) -> Vec<JobLog> {
    store::job_logs::after(conn, &reads_all(), JOB, 0).await.expect("the job")
}

async fn counter(rows: &mut Rows) -> (usize, bool) {
    let text = rows.one("SELECT logs_length || ' ' || logs_overflowed FROM provisioner_jobs WHERE id = u(1)").await;
    let (length, overflowed) = text.split_once(' ').expect("two values");
    (length.parse().expect("a number"), overflowed == "true")
}

/// Job 1 runs on daemon 7 and has logged this many bytes.
async fn running(logged: usize) -> Rows {
    let mut rows = Rows::new().await;
    set(&mut rows, logged).await;
    rows
}

async fn set(rows: &mut Rows, logged: usize) {
    rows.run(&format!(
        "DELETE FROM provisioner_job_logs; UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0),
         logs_length = {logged}, logs_overflowed = false"
    ))
    .await;
}

#[tokio::test]
async fn lines_are_stored_in_their_order_and_read_after_an_id() {
    let mut rows = running(0).await;
    let lines: Vec<_> = (0..300).map(|n| line(format!("line {n}"))).collect();
    let Append::Stored { logs_after: Some(after) } = append(&mut rows.conn, &lines).await else { panic!("no id") };
    let all = stored(&mut rows.conn).await;
    assert!(all.iter().map(|log| &log.output).eq(lines.iter().map(|line| &line.output)));
    assert!(all.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(all[0].id, after + 1);
    let first = JobLog {
        id: after + 1,
        created_at: NOW,
        source: LogSource::Provisioner.into(),
        level: LogLevel::Info.into(),
        stage: "Planning Infrastructure".into(),
        output: "line 0".into(),
    };
    assert_eq!(all[0], first);
    let rest = store::job_logs::after(&mut rows.conn, &reads_all(), JOB, all[297].id).await.expect("the job");
    assert_eq!(rest, all[298..]);
    let none = store::job_logs::after(&mut rows.conn, &reads_all(), JOB, all[299].id).await.expect("the job");
    assert!(none.is_empty());
    let bytes = lines.iter().map(|line| line.output.len()).sum();
    assert_eq!(counter(&mut rows).await, (bytes, false));
    assert_eq!(append(&mut rows.conn, &[]).await, Append::Stored { logs_after: None });
}

#[tokio::test]
async fn what_is_too_long_for_its_column_is_cut_off_by_characters_and_counted_by_bytes() {
    let mut rows = running(0).await;
    let long = NewJobLog { stage: "\u{20ac}".repeat(200), ..line("\u{1f600}".repeat(2000)) };
    assert!(matches!(append(&mut rows.conn, &[long]).await, Append::Stored { .. }));
    let all = stored(&mut rows.conn).await;
    assert_eq!(all[0].stage, "\u{20ac}".repeat(128));
    assert_eq!(all[0].output, "\u{1f600}".repeat(1024));
    assert_eq!(counter(&mut rows).await, (8000, false));
}

#[tokio::test]
async fn a_first_line_may_leave_just_room_for_the_warning_and_one_byte_more_becomes_it() {
    for (output, fits) in [
        ("x".repeat(CAP - M), true),
        ("x".repeat(CAP - M + 1), false),
        ("\u{e9}".repeat((CAP - M) / 2), true),
        ("\u{e9}".repeat((CAP - M) / 2 + 1), false),
    ] {
        let mut rows = running(0).await;
        let bytes = output.len();
        let appended = append(&mut rows.conn, &[line(output)]).await;
        let all = stored(&mut rows.conn).await;
        assert_eq!(all.len(), 1);
        if fits {
            assert_eq!(appended, Append::Stored { logs_after: Some(all[0].id - 1) });
            assert_eq!(counter(&mut rows).await, (bytes, false));
        } else {
            assert_eq!(appended, Append::Overflowed { logs_after: all[0].id - 1, lines: 1 });
            assert_eq!(counter(&mut rows).await, (M, true));
            assert_eq!((all[0].output.as_str(), all[0].level.as_str()), (OVERFLOW_MESSAGE, "warn"));
        }
    }
}

#[tokio::test]
async fn the_line_that_overflows_becomes_the_warning_and_the_rest_is_dropped_for_good() {
    let mut rows = running(CAP - M - 10).await;
    let overflowing = NewJobLog {
        stage: "Starting workspace".into(),
        source: LogSource::ProvisionerDaemon,
        level: LogLevel::Error,
        ..line("seven b")
    };
    // The last line would fit into what is left.
    let appended = append(&mut rows.conn, &[line("four"), line(""), overflowing, line("")]).await;
    let all = stored(&mut rows.conn).await;
    assert_eq!(appended, Append::Overflowed { logs_after: all[0].id - 1, lines: 3 });
    assert_eq!(all.iter().map(|log| log.output.as_str()).collect::<Vec<_>>(), ["four", "", OVERFLOW_MESSAGE]);
    let last = &all[2];
    assert_eq!((last.stage.as_str(), last.source.as_str()), ("Starting workspace", "provisioner_daemon"));
    assert_eq!((last.level.as_str(), last.created_at), ("warn", NOW));
    assert_eq!(counter(&mut rows).await, (CAP - 6, true));
    assert_eq!(append(&mut rows.conn, &[line("x")]).await, Append::Dropped);
    assert_eq!(stored(&mut rows.conn).await, all);
    assert_eq!(counter(&mut rows).await, (CAP - 6, true));
}

#[tokio::test]
async fn where_not_even_the_warning_fits_the_job_is_marked_and_nothing_is_stored() {
    for logged in [CAP, CAP - M + 1] {
        let mut rows = running(logged).await;
        assert_eq!(append(&mut rows.conn, &[line("x"), line("y")]).await, Append::Full);
        assert!(stored(&mut rows.conn).await.is_empty());
        assert_eq!(counter(&mut rows).await, (logged, true));
    }
    let mut rows = running(CAP - M).await;
    assert!(matches!(append(&mut rows.conn, &[line("x")]).await, Append::Overflowed { lines: 1, .. }));
    assert_eq!(counter(&mut rows).await, (CAP, true));
}

/// The cap, line by line (domain: log cap). The bytes to store, the counter, and whether it overflowed.
fn model(logged: usize, lines: &[NewJobLog]) -> (Vec<String>, usize, bool) {
    let (mut new, mut kept) = (0, Vec::new());
    for line in lines {
        if logged + new + M + line.output.len() > CAP {
            kept.push(OVERFLOW_MESSAGE.to_owned());
            new += M;
            return if logged + new > CAP { (Vec::new(), logged, true) } else { (kept, logged + new, true) };
        }
        new += line.output.len();
        kept.push(line.output.clone());
    }
    (kept, logged + new, false)
}

#[tokio::test]
async fn random_batches_near_the_cap_are_stored_as_the_rule_says() {
    let mut rows = running(0).await;
    let mut overflows = 0;
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let logged = CAP - M - rng.usize(0..60) + rng.usize(0..20);
        let logged = if rng.u8(0..10) == 0 { CAP - rng.usize(0..M) } else { logged };
        let lines: Vec<_> = (0..rng.usize(0..8))
            .map(|_| line(["x", "\u{e9}", "\u{20ac}", "\u{1f600}"][rng.usize(0..4)].repeat(rng.usize(0..6))))
            .collect();
        set(&mut rows, logged).await;
        let _ = append(&mut rows.conn, &lines).await;
        let (kept, length, overflowed) = model(logged, &lines);
        let outputs: Vec<_> = stored(&mut rows.conn).await.into_iter().map(|log| log.output).collect();
        assert_eq!(outputs, kept, "seed {seed}");
        assert_eq!(counter(&mut rows).await, (length, overflowed), "seed {seed}");
        overflows += usize::from(overflowed);
    }
    assert!((100..390).contains(&overflows), "{overflows} of 400 overflow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_that_meet_at_the_cap_stay_below_it_and_the_last_line_is_the_warning() {
    for round in 0..10 {
        let mut rows = running(CAP - 3000 - round).await;
        let mut appenders = JoinSet::new();
        for n in 0..8 {
            let mut conn = rows.database.connect().await;
            appenders.spawn(async move {
                let mut rng = Rng::with_seed((round * 8 + n) as u64);
                let (mut overflowed, mut dropped) = (0, 0);
                while dropped < 2 {
                    let lines: Vec<_> =
                        (0..rng.usize(1..5)).map(|_| line("\u{20ac}".repeat(rng.usize(1..40)))).collect();
                    match append(&mut conn, &lines).await {
                        Append::Overflowed { .. } => overflowed += 1,
                        Append::Dropped => dropped += 1,
                        Append::Stored { .. } => {}
                        Append::Full => panic!("every appender keeps room for the warning"),
                    }
                }
                overflowed
            });
        }
        let overflowed: usize = appenders.join_all().await.into_iter().sum();
        assert_eq!(overflowed, 1);
        let all = stored(&mut rows.conn).await;
        let (length, flag) = counter(&mut rows).await;
        let bytes: usize = all.iter().map(|log| log.output.len()).sum();
        assert_eq!((CAP - 3000 - round + bytes, true), (length, flag));
        assert!(length <= CAP);
        let warnings: Vec<_> = all.iter().filter(|log| log.output == OVERFLOW_MESSAGE).map(|log| log.id).collect();
        assert_eq!(warnings, [all.last().expect("a line").id]);
    }
}

#[tokio::test]
async fn only_the_daemon_that_runs_a_job_appends_to_it() {
    let mut rows = running(0).await;
    rows.run("SELECT add_organization(2), add_job(2)").await;
    let before = rows.everything().await;
    let lines = [line("x")];
    let other = store::job_logs::append(&mut rows.conn, &daemon(1, 8), JOB, &lines).await.expect("the job");
    assert_eq!(other, ByWorker::OtherOwner);
    let idle = store::job_logs::append(&mut rows.conn, &daemon(1, 7), JobId(id(2)), &lines).await.expect("the job");
    assert_eq!(idle, ByWorker::NotRunningYet);
    for (organization, job) in [(2, 1), (1, 404)] {
        let job = JobId(id(job));
        let error = store::job_logs::append(&mut rows.conn, &daemon(organization, 7), job, &lines).await;
        assert_eq!(error.expect_err("out of scope").to_string(), format!("provisioner job not found: {job}"));
    }
    let bad = [("created_at", NewJobLog { created_at: NOW.replace_year(-4000).expect("a year"), ..line("") })];
    for (field, bad) in bad {
        let error = store::job_logs::append(&mut rows.conn, &daemon(1, 7), JOB, &[line("x"), bad]).await;
        assert!(matches!(error, Err(Error::Invalid { field: named, .. }) if named == field), "{error:?}");
    }
    assert_eq!(rows.everything().await, before);
}

#[tokio::test]
async fn a_member_reads_the_logs_of_own_builds_and_dry_runs_and_nobody_elses() {
    let mut rows = running(0).await;
    let _ = append(&mut rows.conn, &[line("x")]).await;
    rows.run(
        "SELECT add_organization(2), add_job(2), add_job(3);
         UPDATE provisioner_jobs SET type = 'template_version_dry_run' WHERE id = u(2);
         UPDATE provisioner_jobs SET type = 'template_version_import' WHERE id = u(3)",
    )
    .await;
    let actors = [
        (rows.user(1, "{}", "{}").await, [true, true, false]),
        (rows.user(2, "{}", "{}").await, [false; 3]),
        (rows.user(3, "{auditor}", "{organization-auditor}").await, [false; 3]),
        (rows.user(4, "{}", "{organization-template-admin}").await, [true; 3]),
        (rows.user(5, "{template-admin}", "{}").await, [false, false, true]),
    ];
    for (actor, reaches) in &actors {
        let permit = ReadJobLogs::check(actor, OrganizationId(id(1))).expect("a member");
        for (job, reached) in (1..=3).zip(reaches) {
            let logs = store::job_logs::after(&mut rows.conn, &permit, JobId(id(job)), 0).await;
            let timings = store::job_timings::list(&mut rows.conn, &permit, JobId(id(job))).await;
            assert_eq!((logs.is_ok(), timings.is_ok()), (*reached, *reached), "{actor:?} {job}");
            if let Err(error) = logs {
                assert_eq!(error.to_string(), format!("provisioner job not found: {}", id(job)));
            }
        }
    }
    assert!(ReadJobLogs::check(&actors[0].0, OrganizationId(id(2))).is_err());
    let elsewhere = ReadJobLogs::check(&support::operator(), OrganizationId(id(2))).expect("an operator");
    assert!(store::job_logs::after(&mut rows.conn, &elsewhere, JOB, 0).await.is_err());
    rows.conn.ping().await.expect("a live connection");
}
