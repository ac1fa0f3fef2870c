//! Waiting: woken by announcements, by the poll, and after every cut.

use std::time::{Duration, Instant};

use coderdb::{
    authz::{ReadJobLogs, ReadJobs, ReadWorkspaces},
    model::{JobId, JobLog, JobState, JobStatus, LogLevel, LogSource, NewJobLog, OrganizationId},
    pool::{self, Pool},
    sqlx::{self, PgConnection},
    store,
    watch::{Change, Changed, Error, Settings, Watcher},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{
    self,
    proxy::Proxy,
    rows::{NOW, Rows, daemon, id},
};

const FOREVER: Duration = Duration::from_hours(1);

/// Longer than anything here takes, and shorter than the poll of a watcher that must not need it.
const LONG: Duration = Duration::from_secs(30);

const DAEMON: u128 = 7;

fn pool(rows: &Rows) -> Pool {
    rows.database.pool(pool::Settings::default())
}

/// A pool that one can listen with, which takes a session.
fn listening_pool(rows: &Rows) -> Pool {
    rows.database.pool_with_sessions(pool::Settings::default())
}

/// A watcher that learns of changes by announcements only.
fn listens(rows: &Rows) -> Watcher {
    Watcher::start(
        &listening_pool(rows),
        Settings { poll: FOREVER, poll_organizations: FOREVER, ..Settings::default() },
    )
}

/// A watcher that learns of changes by the poll only.
fn polls(rows: &Rows) -> Watcher {
    Watcher::start(
        &pool(rows),
        Settings {
            poll: Duration::from_millis(20),
            poll_organizations: Duration::from_millis(20),
            listen: false,
            ..Settings::default()
        },
    )
}

fn may_read() -> ReadJobs {
    support::read_jobs(id(1))
}

fn job(n: u128) -> JobId {
    JobId(id(n))
}

fn change(n: u128) -> Change {
    Change { job: job(n), organization: OrganizationId(id(1)) }
}

/// Jobs 1 to `n`, taken by the daemon.
async fn taken(n: u128) -> Rows {
    let mut rows = Rows::new().await;
    rows.run(&format!("SELECT add_job(n) FROM generate_series(2, {n}) AS n")).await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)").await;
    rows
}

async fn complete(conn: &mut PgConnection, n: u128) {
    let _ = store::jobs::complete(conn, &daemon(1, DAEMON), job(n), NOW, None).await.expect("the job");
}

/// Waits for the listening connections, so many of them.
async fn listeners(conn: &mut PgConnection, wanted: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *conn).await.expect("a count") != wanted {
        tokio::task::yield_now().await;
    }
}

async fn wait(watcher: &Watcher, n: u128) -> Result<JobState, Error> {
    watcher.wait(&may_read(), job(n), LONG).await
}

#[tokio::test]
async fn a_job_that_has_ended_needs_no_waiting_and_one_out_of_reach_is_not_there() {
    let mut rows = taken(2).await;
    complete(&mut rows.conn, 1).await;
    let watcher = listens(&rows);
    assert_eq!(wait(&watcher, 1).await.expect("the job").status, JobStatus::Succeeded);
    let missing = wait(&watcher, 404).await.expect_err("no job").to_string();
    assert_eq!(missing, format!("provisioner job not found: {}", job(404)));
    for n in [1, 2] {
        let other = watcher.wait(&support::read_jobs(id(2)), job(n), LONG).await.expect_err("another organization");
        assert_eq!(other.to_string(), format!("provisioner job not found: {}", job(n)));
    }
    // One that was missing may come.
    rows.run("SELECT add_job(404)").await;
    rows.run("UPDATE provisioner_jobs SET completed_at = at_second(1) WHERE id = u(404)").await;
    assert_eq!(wait(&watcher, 404).await.expect("the job").status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_job_that_does_not_end_in_time_is_an_error_that_says_where_it_stands() {
    let rows = taken(1).await;
    let error = listens(&rows).wait(&may_read(), job(1), Duration::from_millis(200)).await.expect_err("it runs");
    assert!(matches!(error, Error::Deadline { status: Some(JobStatus::Running), .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("the provisioner job {} is still running after 200ms", job(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_wakes_waiters_in_this_process_and_in_others() {
    let mut rows = taken(2).await;
    let (here, there) = (listens(&rows), listens(&rows));
    listeners(&mut rows.conn, 2).await;
    let waiters: JoinSet<_> = [(&here, 1), (&there, 1), (&here, 2), (&there, 2)]
        .into_iter()
        .map(|(watcher, n)| {
            let watcher = watcher.clone();
            async move { wait(&watcher, n).await.expect("the job").status }
        })
        .collect();
    for n in [1, 2] {
        complete(&mut rows.conn, n).await;
        here.announce(change(n));
    }
    assert_eq!(waiters.join_all().await, [JobStatus::Succeeded; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_announces_is_found_by_the_poll() {
    let mut rows = taken(1).await;
    let watcher = polls(&rows);
    let waiter = tokio::spawn(async move { wait(&watcher, 1).await });
    rows.run("UPDATE provisioner_jobs SET completed_at = now(), error = 'boom', error_code = 'INSUFFICIENT_QUOTA'")
        .await;
    let state = waiter.await.expect("the task").expect("the job");
    assert_eq!((state.status, state.error.as_deref()), (JobStatus::Failed, Some("boom")));
    assert!(state.error_code.expect("a code").is_insufficient_quota());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_the_look_and_the_wait() {
    const JOBS: u128 = 300;
    let mut rows = taken(JOBS).await;
    let watcher = listens(&rows);
    listeners(&mut rows.conn, 1).await;
    for n in 1..=JOBS {
        let mut waiters = JoinSet::new();
        for _ in 0..2 {
            let watcher = watcher.clone();
            waiters.spawn(async move { wait(&watcher, n).await.expect("the job").status });
        }
        complete(&mut rows.conn, n).await;
        watcher.announce(change(n));
        assert_eq!(waiters.join_all().await, [JobStatus::Succeeded; 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_cost_one_statement_per_poll() {
    const WAITERS: u128 = 1_000;
    let mut rows = taken(WAITERS).await;
    let pool = pool(&rows);
    let settings = Settings {
        poll: Duration::from_millis(100),
        poll_organizations: Duration::from_millis(100),
        listen: false,
        ..Settings::default()
    };
    let watcher = Watcher::start(&pool, settings);
    let began = Instant::now();
    let mut waiters = JoinSet::new();
    for n in 1..=WAITERS {
        let watcher = watcher.clone();
        waiters.spawn(async move { wait(&watcher, n).await.expect("the job").status });
    }
    // Idle until so many statements were sent.
    while pool.metrics().taken < 12 {
        tokio::task::yield_now().await;
    }
    // The first few look at those who come, while they come.
    assert!(began.elapsed() > 2 * settings.poll, "12 statements in {:?}", began.elapsed());
    let before = (pool.metrics().taken, Instant::now());
    while pool.metrics().taken < before.0 + 5 {
        tokio::task::yield_now().await;
    }
    assert!(before.1.elapsed() > 3 * settings.poll, "5 statements in {:?}", before.1.elapsed());
    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    assert_eq!(waiters.join_all().await, vec![JobStatus::Succeeded; WAITERS as usize]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_while_the_listening_connection_was_cut_is_seen_when_it_is_back() {
    let mut rows = taken(20).await;
    let pool = listening_pool(&rows);
    let watcher = Watcher::start(&pool, Settings { poll: FOREVER, poll_organizations: FOREVER, ..Settings::default() });
    for n in 1..=20 {
        listeners(&mut rows.conn, 1).await;
        // The look when it is back may still be under way.
        loop {
            let running = watcher.wait(&may_read(), job(n), Duration::from_millis(50)).await.expect_err("it runs");
            if matches!(running, Error::Deadline { status: Some(JobStatus::Running), .. }) {
                break;
            }
        }
        let looks = pool.metrics().taken;
        let waiter = tokio::spawn({
            let watcher = watcher.clone();
            async move { wait(&watcher, n).await }
        });
        while pool.metrics().taken == looks || pool.metrics().in_use > 0 {
            tokio::task::yield_now().await;
        }
        // Nobody announces it, and there is no poll.
        complete(&mut rows.conn, n).await;
        let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        sqlx::raw_sql(cut).execute(&mut rows.conn).await.expect("the cut");
        assert_eq!(waiter.await.expect("the task").expect("the job").status, JobStatus::Succeeded);
    }
}

fn line(text: &str) -> NewJobLog {
    NewJobLog {
        created_at: NOW,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: String::new(),
        output: text.to_owned(),
    }
}

fn logs(organization: u128) -> ReadJobLogs {
    ReadJobLogs::check(&support::operator(), OrganizationId(id(organization))).expect("an operator")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_every_line_once_and_in_order_and_then_the_end() {
    const LINES: usize = 500;
    for announces in [true, false] {
        let mut rows = taken(1).await;
        let watcher = if announces { listens(&rows) } else { polls(&rows) };
        let early = vec![line("early")];
        let _ = store::job_logs::append(&mut rows.conn, &daemon(1, DAEMON), job(1), &early).await.expect("the job");
        let mut followers = JoinSet::new();
        for _ in 0..5 {
            let mut follower = watcher.follow(logs(1), job(1), 0);
            followers.spawn(async move {
                let mut lines: Vec<JobLog> = Vec::new();
                while let Some(more) = timeout(LONG, follower.next()).await.expect("in time").expect("the logs") {
                    assert!(!more.is_empty());
                    lines.extend(more);
                }
                assert!(follower.next().await.expect("the end stays").is_none());
                lines.into_iter().map(|line| line.output).collect::<Vec<_>>()
            });
        }
        for n in 1..LINES {
            let lines = [line(&n.to_string())];
            let _ = store::job_logs::append(&mut rows.conn, &daemon(1, DAEMON), job(1), &lines).await.expect("the job");
            if announces {
                watcher.announce(change(1));
            }
        }
        complete(&mut rows.conn, 1).await;
        if announces {
            watcher.announce(change(1));
        }
        let expected: Vec<_> = std::iter::once("early".to_owned()).chain((1..LINES).map(|n| n.to_string())).collect();
        for lines in followers.join_all().await {
            assert_eq!(lines, expected);
        }
        // Who comes late, and after some lines.
        let mut follower = watcher.follow(logs(1), job(1), 0);
        let all = follower.next().await.expect("the logs").expect("lines");
        assert_eq!(all.len(), LINES);
        let mut follower = watcher.follow(logs(1), job(1), all[LINES - 2].id);
        assert_eq!(follower.next().await.expect("the logs"), Some(all[LINES - 1..].to_vec()));
        assert_eq!(follower.next().await.expect("the logs"), None);
    }
}

const LINE: &str = "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
                    VALUES (u(1), now(), 'provisioner', 'info', '', ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_a_line_that_is_committed_after_one_with_a_higher_id() {
    for before_the_end in [true, false] {
        let mut rows = taken(1).await;
        let watcher = polls(&rows);
        let mut follower = watcher.follow(logs(1), job(1), 0);
        let mut next = async || {
            let lines = timeout(LONG, follower.next()).await.expect("in time").expect("the logs");
            lines.map(|lines| lines.into_iter().map(|line| line.output).collect::<Vec<_>>())
        };
        let mut slow = rows.database.connect_with_session().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {LINE} 'slow')"))).execute(&mut slow).await.expect("a line");
        rows.run(&format!("{LINE} 'fast')")).await;
        assert_eq!(next().await, Some(vec!["fast".to_owned()]));
        sqlx::raw_sql("COMMIT").execute(&mut slow).await.expect("the commit");
        if before_the_end {
            rows.run(&format!("{LINE} 'later')")).await;
            assert_eq!(next().await, Some(vec!["slow".to_owned(), "later".to_owned()]));
        }
        rows.run(&format!("{LINE} 'last')")).await;
        complete(&mut rows.conn, 1).await;
        let mut rest = Vec::new();
        while let Some(lines) = next().await {
            rest.extend(lines);
        }
        let expected: &[&str] = if before_the_end { &["last"] } else { &["slow", "last"] };
        assert_eq!(rest, expected);
    }
}

#[tokio::test]
async fn a_follower_of_what_it_may_not_read_gets_an_error() {
    let rows = taken(1).await;
    let watcher = listens(&rows);
    for (organization, n) in [(2, 1), (1, 404)] {
        let error = watcher.follow(logs(organization), job(n), 0).next().await.expect_err("out of reach");
        assert_eq!(error.to_string(), format!("provisioner job not found: {}", job(n)));
    }
}

#[tokio::test]
async fn a_follower_asks_once_while_the_first_look_is_under_way() {
    let rows = taken(1).await;
    let proxy = Proxy::to(&rows.database);
    proxy.hold_before("How the jobs");
    let pool = Pool::new(proxy.connect_options(), pool::Settings::default());
    let watcher = Watcher::start(&pool, Settings { listen: false, ..Settings::default() });
    let mut follower = watcher.follow(logs(1), job(1), 0);
    let asks = async { tokio::join!(proxy.held(), timeout(Duration::from_millis(500), follower.next())).1 };
    assert!(timeout(LONG, asks).await.expect("a look").is_err(), "no line");
    // Connecting twice and preparing take some.
    let asked = proxy.take();
    assert!(asked < 20, "{asked} round trips");
}

/// A line in the log of job 1.
async fn log(conn: &mut PgConnection) {
    let line = NewJobLog {
        created_at: NOW,
        source: LogSource::Provisioner,
        level: LogLevel::Info,
        stage: "Planning".into(),
        output: "a line".into(),
    };
    let _ = store::job_logs::append(conn, &daemon(1, DAEMON), job(1), &[line]).await.expect("the job");
}

#[tokio::test]
async fn a_build_is_followed_by_who_may_see_it_until_it_has_ended() {
    let mut rows = taken(1).await;
    let watcher = listens(&rows);
    let may_read = ReadWorkspaces::check(&support::operator(), id(1).into()).expect("an operator");
    let mut follower = watcher.follow_build(&may_read, id(1).into()).await.expect("the build");
    assert_eq!(follower.build().job_id, job(1));
    let mut next = async || timeout(LONG, follower.next()).await.expect("in time");
    let first = next().await.expect("where it stands");
    assert_eq!((first.id, first.status, first.last_log_id), (job(1), JobStatus::Running, None));
    // Another one learns at once what the first one knows.
    let mut second = watcher.follow_build(&may_read, id(1).into()).await.expect("the build");
    assert_eq!(timeout(LONG, second.next()).await.expect("in time"), Some(first));

    log(&mut rows.conn).await;
    watcher.announce(change(1));
    let logged = next().await.expect("where it stands");
    assert!(logged.status == JobStatus::Running && logged.last_log_id.is_some(), "{logged:?}");
    complete(&mut rows.conn, 1).await;
    watcher.announce(change(1));
    assert_eq!(next().await.map(|state| state.status), Some(JobStatus::Succeeded));
    assert_eq!((next().await, next().await), (None, None));
    // Who was too slow learns only the end.
    assert_eq!(second.next().await.map(|state| state.status), Some(JobStatus::Succeeded));
    assert_eq!(second.next().await, None);
}

#[tokio::test]
async fn a_build_out_of_reach_is_not_followed() {
    let mut rows = taken(1).await;
    let watcher = listens(&rows);
    let member = rows.user(2, "{}", "{}").await;
    let permits = [
        ReadWorkspaces::check(&member, id(1).into()).expect("a member"),
        ReadWorkspaces::check(&support::operator(), id(2).into()).expect("an operator"),
    ];
    for permit in permits {
        let error = watcher.follow_build(&permit, id(1).into()).await.err().expect("an error");
        assert!(matches!(error, Error::Store(store::Error::NotFound { .. })), "{error:?}");
    }
}

/// The next changes until one is this.
async fn until(changes: &mut coderdb::watch::Changes, n: u128, status: JobStatus) {
    loop {
        match timeout(LONG, changes.next()).await.expect("in time").expect("the watcher is there") {
            Changed::Job(state) if (state.id, state.status) == (job(n), status) => return,
            Changed::Job(state) => assert_eq!(state.organization_id, OrganizationId(id(1))),
            Changed::Missed(missed) => panic!("{missed} missed"),
        }
    }
}

#[tokio::test]
async fn an_organization_that_was_forgotten_is_looked_at_when_it_is_watched_again() {
    let mut rows = taken(1).await;
    let settings = Settings {
        poll: FOREVER,
        poll_organizations: FOREVER,
        gather: Duration::from_millis(500),
        ..Settings::default()
    };
    let watcher = Watcher::start(&listening_pool(&rows), settings);
    listeners(&mut rows.conn, 1).await;
    drop(timeout(LONG, watcher.changes(&may_read())).await.expect("a look"));
    let pid = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let cut = format!("SELECT pg_terminate_backend(pid, 10000) FROM ({pid}) AS l");
    sqlx::raw_sql(sqlx::AssertSqlSafe(cut)).execute(&mut rows.conn).await.expect("the cut");
    // When it is back, those that nobody watches are forgotten; the look comes later, to gather more.
    listeners(&mut rows.conn, 1).await;
    sleep(Duration::from_millis(100)).await;
    timeout(LONG, watcher.changes(&may_read())).await.expect("a look");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_in_an_organization_is_told_whoever_makes_it() {
    for announces in [true, false] {
        let mut rows = taken(3).await;
        let watcher = if announces { listens(&rows) } else { polls(&rows) };
        let mut changes = watcher.changes(&may_read()).await;
        let said = |n| {
            if announces {
                watcher.announce(change(n));
            }
        };
        rows.run("SELECT add_organization(2), add_job(50)").await;
        rows.run("UPDATE provisioner_jobs SET organization_id = u(2) WHERE id = u(50)").await;
        rows.run("SELECT add_job(9)").await;
        said(9);
        until(&mut changes, 9, JobStatus::Pending).await;
        for (sql, status) in [
            ("started_at = now(), worker_id = u(7)", JobStatus::Running),
            ("canceled_at = now()", JobStatus::Canceling),
            ("completed_at = now()", JobStatus::Canceled),
        ] {
            rows.run(&format!("UPDATE provisioner_jobs SET {sql} WHERE id IN (u(9), u(50))")).await;
            said(9);
            until(&mut changes, 9, status).await;
        }
        complete(&mut rows.conn, 1).await;
        said(1);
        until(&mut changes, 1, JobStatus::Succeeded).await;
        // Nothing else is news.
        if !announces {
            let more = timeout(Duration::from_millis(100), changes.next()).await;
            assert!(more.is_err(), "{more:?}");
        }
    }
}

#[tokio::test]
async fn who_is_too_slow_learns_how_much_is_lost() {
    let mut rows = taken(1).await;
    let watcher = listens(&rows);
    let mut changes = watcher.changes(&may_read()).await;
    rows.run("SELECT add_job(n) FROM generate_series(1000, 6000) AS n").await;
    for n in 1000..=6000 {
        watcher.announce(change(n));
    }
    let mut told = 0;
    // The look takes one statement, or a few; the reader starts when the first is done.
    loop {
        match timeout(LONG, changes.next()).await.expect("in time").expect("the watcher is there") {
            Changed::Missed(missed) => break assert!(missed > 0),
            Changed::Job(_) => told += 1,
        }
        assert!(told < 5_001, "nothing was lost");
    }
}

#[tokio::test]
async fn a_watcher_stops_with_its_last_clone() {
    let mut rows = taken(1).await;
    let watcher = listens(&rows);
    listeners(&mut rows.conn, 1).await;
    drop(watcher);
    listeners(&mut rows.conn, 0).await;
}
