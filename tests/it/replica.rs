//! Reading from standbys: never stale for whoever carries a token, and never in the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coderdb::{
    model::{ByWorker, JobId},
    pool::{self, Pool},
    replica::{Cluster, Error, Metrics, Settings, Token, boxed},
    sqlx::{self, AssertSqlSafe, PgConnection},
    store,
};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    self,
    operations::{self, Operation},
    rows::{NOW, daemon, id},
    source::files,
    states::number_from_env,
    streaming::{Node, Streaming},
};

const DAEMON: u128 = 7;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

fn pool(node: &Node) -> Pool {
    Pool::new(node.options(), pool::Settings::default())
}

/// Jobs 1 to `n`, which the daemon has taken, on a primary with so many standbys.
async fn streaming(standbys: usize, jobs: u128) -> Streaming {
    let taken = format!(
        "{}; SELECT add_job(n) FROM generate_series(2, {jobs}) AS n;
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)",
        include_str!("golden/rows.sql")
    );
    Streaming::start(standbys, &taken).await
}

/// All of the standbys are up, and are known to be.
async fn cluster(streaming: &Streaming, settings: Settings) -> Cluster {
    let cluster = Cluster::start(pool(&streaming.primary), streaming.standbys.iter().map(pool), settings);
    let token = Token::current(&mut streaming.primary.connect().await).await.expect("the primary");
    for standby in &streaming.standbys {
        let alone = Cluster::start(pool(&streaming.primary), [pool(standby)], Settings::default());
        until_read_by_standby(&alone, Some(token)).await;
    }
    until_read_by_standby(&cluster, Some(token)).await;
    cluster
}

async fn until_read_by_standby(cluster: &Cluster, token: Option<Token>) {
    let wait = async {
        loop {
            let before = cluster.metrics();
            read(cluster, 1, token).await.expect("the job");
            if cluster.metrics().standby > before.standby {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.expect("a standby that answers");
}

/// Writes that the job was alive so many milliseconds after it began.
async fn write(cluster: &Cluster, job: u128, alive: u32) -> Result<Token, Error> {
    let (permit, now) = (daemon(1, DAEMON), NOW + Duration::from_millis(alive.into()));
    let (done, token) = cluster.write(|conn| boxed(store::jobs::heartbeat(conn, &permit, JobId(id(job)), now))).await?;
    assert!(matches!(done, ByWorker::Done(_)), "{done:?}");
    Ok(token)
}

/// How long it was alive.
async fn read(cluster: &Cluster, job: u128, token: Option<Token>) -> Result<u32, Error> {
    let permit = support::read_jobs(id(1));
    cluster.read(&permit, token, |conn| boxed(alive(conn, job))).await
}

async fn alive(conn: &mut PgConnection, job: u128) -> store::Result<u32> {
    let found = store::jobs::by_ids(conn, &support::read_jobs(id(1)), &[JobId(id(job))]).await?;
    Ok(u32::try_from((found[0].updated_at - NOW).whole_milliseconds()).expect("after it began"))
}

/// What has been answered where since then.
fn since(cluster: &Cluster, before: Metrics) -> [u64; 4] {
    let now = cluster.metrics();
    [now.standby - before.standby, now.late - before.late, now.absent - before.absent, now.failed - before.failed]
}

const BY_STANDBY: [u64; 4] = [1, 0, 0, 0];
const LATE: [u64; 4] = [0, 1, 0, 0];
const ABSENT: [u64; 4] = [0, 0, 1, 0];
const FAILED: [u64; 4] = [0, 0, 0, 1];

/// Changes the delay of the standby's replay at random, 0 to 500 ms, and whether commits wait for the disk, until told
/// to end.
async fn disturb(primary: Node, standby: Node, end: Arc<AtomicBool>) -> (Node, Node) {
    let mut random = fastrand::Rng::with_seed(number_from_env("CODERDB_TEST_SEED").unwrap_or(1));
    while !end.load(Ordering::Relaxed) {
        standby.set(&format!("recovery_min_apply_delay = '{}ms'", random.u32(0..=500))).await;
        primary.set(&format!("synchronous_commit = {}", ["off", "local"][random.usize(0..2)])).await;
        tokio::time::sleep(Duration::from_millis(random.u64(20..200))).await;
    }
    (primary, standby)
}

/// Sessions write, and read with their tokens what they wrote and with those of others what these wrote.
/// `CODERDB_TEST_CASES=50` makes 100,000 such reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_causal_read_is_stale_while_replay_is_delayed_at_random() {
    const SESSIONS: u128 = 100;
    const READS: u64 = 2_000;
    let reads = READS * number_from_env("CODERDB_TEST_CASES").unwrap_or(1);
    let mut streaming = streaming(1, SESSIONS).await;
    let cluster = cluster(&streaming, Settings::default()).await;
    let end = Arc::new(AtomicBool::new(false));
    let disturber = tokio::spawn(disturb(streaming.primary, streaming.standbys.remove(0), end.clone()));
    // What each session has written last.
    let written: Arc<Vec<Mutex<(Token, u32)>>> =
        Arc::new((0..SESSIONS).map(|_| Mutex::new(("0:0/0".parse().expect("a token"), 0))).collect());
    let (done, stale, stale_without) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let (before, began) = (cluster.metrics(), Instant::now());
    let mut sessions = JoinSet::new();
    for job in 1..=SESSIONS {
        let (cluster, written) = (cluster.clone(), written.clone());
        let (done, stale, stale_without) = (done.clone(), stale.clone(), stale_without.clone());
        let mut random = fastrand::Rng::with_seed(u64::try_from(job).expect("few"));
        sessions.spawn(async move {
            let mut waited = Vec::new();
            let permit = support::read_jobs(id(1));
            for n in 1.. {
                if done.load(Ordering::Relaxed) >= reads {
                    break;
                }
                let token = write(&cluster, job, n).await.expect("the write");
                *written[usize::try_from(job - 1).expect("few")].lock().expect("the last") = (token, n);
                if n % 2 == 0 && read(&cluster, job, None).await.expect("the job") < n {
                    stale_without.fetch_add(1, Ordering::Relaxed);
                }
                let other = random.u128(1..=SESSIONS);
                let (of_other, m) = *written[usize::try_from(other - 1).expect("few")].lock().expect("the last");
                for (job, expected, token) in [(job, n, token), (other, m, token.max(of_other))] {
                    let began = Instant::now();
                    let mut until = None;
                    let read = cluster.read(&permit, Some(token), |conn| {
                        until = Some(began.elapsed());
                        boxed(alive(conn, job))
                    });
                    let found = read.await.expect("the job");
                    stale.fetch_add(u64::from(found < expected), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    waited.extend(until);
                }
            }
            waited
        });
    }
    let mut waited = sessions.join_all().await.concat();
    end.store(true, Ordering::Relaxed);
    disturber.await.expect("the task");
    let [standby, late, absent, failed] = since(&cluster, before);
    let (done, stale) = (done.load(Ordering::Relaxed), stale.load(Ordering::Relaxed));
    let stale_without = stale_without.load(Ordering::Relaxed);
    waited.sort_unstable();
    let quantile = |part: usize| waited[(waited.len() - 1) * part / 100];
    let all = standby + late + absent + failed;
    println!(
        "{done} causal reads in {:.0?}: {stale} stale; of {all} reads, {standby} by the standby, {late} late, {absent} \
         absent, {failed} failed; waited {:.0?} (median), {:.0?} (p99), {:.0?} (greatest); {stale_without} stale ones \
         without a token",
        began.elapsed(),
        quantile(50),
        quantile(99),
        quantile(100),
    );
    assert_eq!(stale, 0);
    assert!(standby * 10 >= all * 8, "{standby} of {all}");
    assert!(stale_without > 0, "the delay shows");
}

/// The operations by the name of the permit that they take, as the source says.
fn permits() -> BTreeMap<String, String> {
    let mut permits = BTreeMap::new();
    for (file, code) in files("src/store") {
        let module = file.split(['/', '.']).next().expect("a module").to_owned();
        for signature in code.split("pub async fn ").skip(1) {
            let name = signature.split(['(', '<']).next().expect("a name");
            if let Some((_, permit)) = signature.split(") ->").next().expect("a signature").split_once("permit: &") {
                let permit = permit.split([',', ')']).next().expect("a type").trim();
                permits.insert(format!("{module}::{name}"), permit.to_owned());
            }
        }
    }
    permits
}

/// What may be read from standbys, by hand.
const REPLICA_SAFE: &str = "
agents::in_latest_build agents::lifecycle agents::logs_after builds::by_job builds::by_number builds::get builds::latest
daemons::eligible daemons::list files::get job_logs::after job_timings::list jobs::by_ids
jobs::by_ids_with_queue_position jobs::count_by_tags jobs::created_after jobs::get jobs::ids jobs::list
organizations::by_name organizations::default
organizations::get organizations::list organizations::resolve queue::history queue::shares templates::by_name templates::get templates::resolve
templates::version workspaces::by_name workspaces::get";

#[tokio::test]
async fn every_replica_safe_operation_only_reads_and_answers_on_a_standby_as_on_the_primary() {
    let code = files("src/authz").into_iter().find(|(file, _)| file == "permit.rs").expect("the permits").1;
    let replica_safe =
        code.rsplit_once("replica_safe!(").and_then(|(_, list)| list.split_once(')')).expect("the list").0;
    let replica_safe: BTreeSet<_> =
        replica_safe.split(',').map(str::trim).filter(|permit| !permit.is_empty()).collect();
    let permits = permits();
    let is_safe =
        |operation: &Operation| permits.get(operation.function()).is_some_and(|p| replica_safe.contains(p.as_str()));
    let operations: Vec<_> = operations::all().await.into_iter().filter(is_safe).collect();
    let names: BTreeSet<_> = operations.iter().map(Operation::function).collect();
    assert_eq!(names, REPLICA_SAFE.split_whitespace().collect());

    let mut streaming = Streaming::start(1, &operations::what_is_there_after("")).await;
    let token = Token::current(&mut streaming.primary.connect().await).await.expect("the primary");
    let settings = Settings { deadline: LONG, ..Settings::default() };
    let cluster = Cluster::start(pool(&streaming.primary), [pool(streaming.standby())], settings);
    // Any replica-safe permit lets the operation have the connection.
    let permit = support::read_organizations();
    let read = async |operation: &Operation| {
        cluster.read(&permit, Some(token), |conn| boxed(operation.call(conn))).await.expect(operation.name)
    };
    while cluster.metrics().standby == 0 {
        read(&operations[0]).await;
    }
    let mut primary = streaming.primary.connect().await;
    for operation in operations {
        assert!(!operation.writes, "{}", operation.name);
        let before = cluster.metrics();
        let rows = read(&operation).await;
        // The logs of agents are not logged: a standby has none.
        let expected = if operation.name == "agents::logs_after" { FAILED } else { BY_STANDBY };
        assert_eq!(since(&cluster, before), expected, "{}", operation.name);
        assert_eq!(rows, operation.call(&mut primary).await.expect(operation.name), "{}", operation.name);
        // Those that need a job that was taken first find none here.
        assert!(rows > 0 || !operation.before.is_empty(), "{}", operation.name);
    }
}

#[tokio::test]
async fn a_read_that_would_wait_too_long_goes_to_the_primary_and_one_without_a_token_does_not_wait() {
    let mut streaming = streaming(1, 1).await;
    let cluster = cluster(&streaming, Settings { deadline: Duration::from_millis(200), ..Settings::default() }).await;
    streaming.standby().run(&["SELECT pg_wal_replay_pause()"]).await;
    streaming.standby().until("SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    let token = write(&cluster, 1, 1).await.expect("the write");
    let (before, began) = (cluster.metrics(), Instant::now());
    assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!((since(&cluster, before), cluster.metrics().waits - before.waits), (LATE, 1));
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 0);
    assert_eq!((since(&cluster, before), cluster.metrics().waits - before.waits), (BY_STANDBY, 0));
    // Nothing is waited for that is sure to be late.
    let (before, began) = (cluster.metrics(), Instant::now());
    assert_eq!(read(&cluster, 1, Some(Token::LATEST)).await.expect("the job"), 1);
    assert!(began.elapsed() < Duration::from_millis(200));
    assert_eq!(since(&cluster, before), LATE);
    streaming.standby().run(&["SELECT pg_wal_replay_resume()"]).await;
    until_read_by_standby(&cluster, Some(token)).await;
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 1);
}

#[tokio::test]
async fn a_waiter_holds_no_connection_and_a_standby_without_one_to_spare_costs_the_deadline_at_most() {
    let mut streaming = streaming(1, 1).await;
    let one = pool::Settings { max_size: 1, ..pool::Settings::default() };
    let standby = Pool::new(streaming.standby().options(), one);
    let settings = Settings { deadline: Duration::from_millis(500), ..Settings::default() };
    let cluster = Cluster::start(pool(&streaming.primary), [standby.clone()], settings);
    until_read_by_standby(&cluster, None).await;
    streaming.standby().run(&["SELECT pg_wal_replay_pause()"]).await;
    streaming.standby().until("SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    let token = write(&cluster, 1, 1).await.expect("the write");
    let waits = read(&cluster, 1, Some(token));
    let others = async {
        for _ in 0..10 {
            let before = cluster.metrics();
            read(&cluster, 1, None).await.expect("the job");
            assert_eq!(since(&cluster, before), BY_STANDBY);
        }
    };
    let (waited, ()) = tokio::join!(waits, others);
    assert_eq!(waited.expect("the job"), 1);

    let before = cluster.metrics();
    let held = standby.get().await.expect("a connection");
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 1);
    assert_eq!(since(&cluster, before), LATE);
    drop(held);
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 0);
    assert_eq!(since(&cluster, before), BY_STANDBY);
}

#[tokio::test]
async fn a_token_that_ends_where_a_page_of_the_log_does_needs_no_further_write() {
    let mut streaming = streaming(1, 1).await;
    let cluster = cluster(&streaming, Settings { deadline: Duration::from_secs(5), ..Settings::default() }).await;
    write(&cluster, 1, 1).await.expect("the write");
    // The next record will stand behind the header of a segment that is not begun yet.
    streaming.primary.run(&["SELECT pg_switch_wal()"]).await;
    let token = Token::current(&mut streaming.primary.connect().await).await.expect("the primary");
    assert!(token.to_string().ends_with("00000"), "{token}");
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
    assert_eq!(since(&cluster, before), BY_STANDBY);
    // And behind that of a page: texts of all lengths up to a page and more.
    let mut conn = streaming.primary.connect().await;
    let mut ends = 0;
    for length in 0..1_200 {
        let message = format!("SELECT pg_logical_emit_message(false, '', repeat('x', {}))", length * 8);
        sqlx::raw_sql(AssertSqlSafe(message)).execute(&mut conn).await.expect("a record");
        let at: i64 = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8 % 8192")
            .fetch_one(&mut conn)
            .await
            .expect("the position");
        let token = Token::current(&mut conn).await.expect("the primary");
        if at == 24 {
            ends += 1;
            assert!(token.to_string().ends_with("000"), "{token}");
        }
    }
    assert!(ends > 0);
    streaming.standby();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_a_standby_is_killed_and_it_answers_again_when_it_is_back() {
    let mut streaming = streaming(1, 8).await;
    let settings = Settings { check: Duration::from_millis(100), ..Settings::default() };
    let cluster = cluster(&streaming, settings).await;
    let end = Arc::new(AtomicBool::new(false));
    let mut sessions = JoinSet::new();
    for job in 1..=8 {
        let (cluster, end) = (cluster.clone(), end.clone());
        sessions.spawn(async move {
            for n in 1.. {
                let token = write(&cluster, job, n).await.expect("the write");
                assert_eq!(read(&cluster, job, Some(token)).await.expect("the job"), n);
                assert!(read(&cluster, job, None).await.expect("the job") <= n);
                if end.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
    }
    for _ in 0..3 {
        let before = cluster.metrics();
        streaming.standby().end("KILL");
        while since(&cluster, before)[2] == 0 {
            tokio::task::yield_now().await;
        }
        let before = cluster.metrics();
        streaming.standby().restart().await;
        while since(&cluster, before)[0] == 0 {
            tokio::task::yield_now().await;
        }
    }
    end.store(true, Ordering::Relaxed);
    sessions.join_all().await;
    assert!(cluster.metrics().failed > 0);
}

#[tokio::test]
async fn a_standby_that_falls_silent_in_the_middle_of_a_read_is_left() {
    let mut streaming = streaming(1, 1).await;
    let settings = Settings { check: Duration::from_millis(200), ..Settings::default() };
    let cluster = cluster(&streaming, settings).await;
    let before = cluster.metrics();
    streaming.standby().all_processes("STOP");
    let answer = timeout(LONG, read(&cluster, 1, None)).await;
    streaming.standby().all_processes("CONT");
    assert_eq!(answer.expect("the primary answers").expect("the job"), 0);
    assert_eq!(since(&cluster, before), FAILED);
    until_read_by_standby(&cluster, None).await;
}

#[tokio::test]
async fn what_one_connection_has_seen_is_not_believed_of_another_one() {
    let streaming = streaming(2, 1).await;
    // A name that leads to one standby and then to another one, which does not replay; to that one only new connections.
    let name = tempfile::tempdir().expect("a directory");
    let lead_to = |standby: &Node| {
        let socket = name.path().join(".s.PGSQL.5432");
        let _ = std::fs::remove_file(&socket);
        std::os::unix::fs::symlink(standby.socket(), socket).expect("a link");
    };
    lead_to(&streaming.standbys[0]);
    let anew = pool::Settings { max_lifetime: Duration::ZERO, ..pool::Settings::default() };
    let settings = Settings { deadline: Duration::from_millis(300), ..Settings::default() };
    let standby = Pool::new(streaming.standbys[0].options().socket(name.path()), anew);
    let cluster = Cluster::start(pool(&streaming.primary), [standby], settings);
    until_read_by_standby(&cluster, None).await;
    streaming.standbys[1].run(&["SELECT pg_wal_replay_pause()"]).await;
    streaming.standbys[1].until("SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    lead_to(&streaming.standbys[1]);
    let (before, token) = (cluster.metrics(), write(&cluster, 1, 1).await.expect("the write"));
    assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
    assert_eq!(since(&cluster, before), LATE);
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 0, "it is read where the name leads to");
    assert_eq!(since(&cluster, before), BY_STANDBY);
}

#[tokio::test]
async fn a_conflict_with_recovery_sends_the_read_to_the_primary() {
    let mut streaming = streaming(1, 1).await;
    streaming.standby().set("max_standby_streaming_delay = 0").await;
    let cluster = cluster(&streaming, Settings::default()).await;
    let (before, permit) = (cluster.metrics(), support::read_jobs(id(1)));
    let mut attempts = 0;
    let read = cluster.read(&permit, None, |conn| {
        attempts += 1;
        let (primary, first) = (&streaming.primary, attempts == 1);
        boxed(async move {
            if first {
                let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM provisioner_jobs";
                sqlx::raw_sql(open).execute(&mut *conn).await.expect("a standby");
                primary.run(&["BEGIN; LOCK TABLE provisioner_jobs; SELECT pg_current_xact_id(); COMMIT"]).await;
                loop {
                    alive(conn, 1).await?;
                }
            }
            alive(conn, 1).await
        })
    });
    assert_eq!(timeout(LONG, read).await.expect("the primary answers").expect("the job"), 0);
    assert_eq!((since(&cluster, before), attempts), (FAILED, 2));
}

#[tokio::test]
async fn a_table_that_a_standby_does_not_have_yet_is_read_from_the_primary() {
    let mut streaming = streaming(1, 1).await;
    let cluster = cluster(&streaming, Settings::default()).await;
    streaming.standby().run(&["SELECT pg_wal_replay_pause()"]).await;
    streaming.standby().until("SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    // As a migration of a binary that is already there.
    streaming.primary.run(&["CREATE SCHEMA next", "ALTER TABLE provisioner_jobs SET SCHEMA next"]).await;
    streaming.standby().run(&["SELECT pg_wal_replay_resume()"]).await;
    streaming.standby().until("SELECT to_regclass('provisioner_jobs') IS NULL").await;
    streaming.standby().run(&["SELECT pg_wal_replay_pause()"]).await;
    streaming.standby().until("SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    streaming.primary.run(&["ALTER TABLE next.provisioner_jobs SET SCHEMA public"]).await;
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 0);
    assert_eq!(since(&cluster, before), FAILED);
}

#[tokio::test]
async fn without_the_primary_reads_go_on_that_a_standby_can_answer() {
    let mut streaming = streaming(1, 1).await;
    let absent = pool::Settings { deadline: Duration::from_millis(200), ..pool::Settings::default() };
    let cluster = Cluster::start(
        Pool::new(streaming.primary.options(), absent),
        [pool(&streaming.standbys[0])],
        Settings { deadline: Duration::from_millis(200), ..Settings::default() },
    );
    let token = write(&cluster, 1, 1).await.expect("the write");
    until_read_by_standby(&cluster, Some(token)).await;
    streaming.primary.end("KILL");
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 1);
    assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
    write(&cluster, 1, 2).await.expect_err("no primary");
    let error = read(&cluster, 1, Some(Token::LATEST)).await.expect_err("no primary");
    assert!(matches!(error, Error::Pool(_) | Error::Store(store::Error::Unavailable(_))), "{error:?}");
}

#[tokio::test]
async fn a_standby_that_is_promoted_answers_no_reads_any_more() {
    let streaming = streaming(2, 1).await;
    let settings = Settings { check: Duration::from_millis(100), ..Settings::default() };
    let cluster = cluster(&streaming, settings).await;
    for promoted in [1, 0] {
        streaming.standbys[promoted].run(&["SELECT pg_promote()"]).await;
        // Nobody has told the cluster; the token of a write is what this one does not have.
        let token = write(&cluster, 1, 1).await.expect("the write");
        assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
        let before = cluster.metrics();
        assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
        assert_eq!(since(&cluster, before), if promoted == 1 { BY_STANDBY } else { ABSENT });
    }
}

#[tokio::test]
async fn a_former_primary_that_is_ahead_of_its_successor_does_not_pass_for_fresh() {
    let mut streaming = streaming(2, 1).await;
    let [mut successor, mut other]: [Node; 2] = streaming.standbys.try_into().ok().expect("two");
    other.end("INT");
    // The old primary goes on, and nobody hears of it.
    successor.run(&["SELECT pg_promote()"]).await;
    let before = Cluster::start(pool(&streaming.primary), [], Settings::default());
    streaming.primary.run(&["SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))"]).await;
    let lost = write(&before, 1, 1).await.expect("a write that is lost");
    // It comes back as a standby of its successor, which nobody has rewound it for: it cannot follow, but answers.
    streaming.primary.end("INT");
    streaming.primary.follow(&successor);
    streaming.primary.restart().await;
    let settings = Settings { deadline: Duration::from_millis(300), ..Settings::default() };
    let cluster = Cluster::start(pool(&successor), [pool(&streaming.primary)], settings);
    let token = write(&cluster, 1, 2).await.expect("the write");
    until_read_by_standby(&cluster, None).await;
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 1, "it is ahead, with what was lost");
    let on_the_new_timeline: Token = lost.to_string().replacen('1', "2", 1).parse().expect("a token");
    assert!(lost < token && token < on_the_new_timeline, "{lost} and {token}");
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 2);
    assert_eq!(since(&cluster, before), LATE);

    // One that can follow does, and answers once it knows that it has.
    other.follow(&successor);
    other.restart().await;
    let cluster = Cluster::start(pool(&successor), [pool(&other)], Settings::default());
    // They come by themselves otherwise.
    successor.run(&["CHECKPOINT"]).await;
    let follows = async {
        while cluster.metrics().standby == 0 {
            other.run(&["CHECKPOINT"]).await;
            assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 2);
        }
    };
    timeout(LONG, follows).await.expect("a standby that has followed");
    // What survived of the old timeline is on the new one, too.
    let (before, old) = (cluster.metrics(), "1:0/1".parse().expect("a token"));
    assert_eq!(read(&cluster, 1, Some(old)).await.expect("the job"), 2);
    assert_eq!(since(&cluster, before), BY_STANDBY);
    successor.end("INT");
}

#[tokio::test]
async fn a_standby_that_was_promoted_by_mistake_and_turned_back_does_not_pass_for_fresh() {
    let mut streaming = streaming(1, 1).await;
    let standby = streaming.standby();
    standby.run(&["SELECT pg_promote()", "SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))"]).await;
    standby.end("INT");
    streaming.standbys[0].follow(&streaming.primary);
    streaming.standby().restart().await;
    let cluster = Cluster::start(pool(&streaming.primary), [pool(streaming.standby())], Settings::default());
    let token = write(&cluster, 1, 1).await.expect("the write");
    until_read_by_standby(&cluster, None).await;
    assert_eq!(read(&cluster, 1, None).await.expect("the job"), 0, "it is on a timeline of its own");
    let before = cluster.metrics();
    assert_eq!(read(&cluster, 1, Some(token)).await.expect("the job"), 1);
    assert_eq!(since(&cluster, before), LATE);
}

#[test]
fn a_token_is_what_it_says() {
    let token: Token = "1:16/B374D848".parse().expect("a token");
    assert_eq!(token.to_string(), "1:16/B374D848");
    assert_eq!(serde_json::to_string(&token).expect("JSON"), "\"1:16/B374D848\"");
    assert_eq!(serde_json::from_str::<Token>("\"1:16/B374D848\"").expect("a token"), token);
    assert_eq!(Token::LATEST.to_string().parse(), Ok(Token::LATEST));
    let ascending = ["1:0/0", "1:0/FFFFFFFF", "1:1/0", "1:A/0", "1:10/0", "2:0/1", "10:0/0"];
    let tokens: Vec<Token> = ascending.iter().map(|text| text.parse().expect("a token")).collect();
    assert!(tokens.is_sorted() && tokens.iter().all(|token| *token < Token::LATEST));
    for text in [
        "",
        "1",
        "1:",
        "1:/",
        "16/B374D848",
        "1:16",
        "1:16/",
        "-1:0/0",
        "+1:0/0",
        "1:0/-1",
        "1:+0/0",
        "1:0/0 ",
        "1:0/0/0",
        "1:0/100000000",
        "4294967296:0/0",
        "1:0/g",
        "a:0/0",
        "1:0/00000000001",
    ] {
        assert!(text.parse::<Token>().is_err(), "{text}");
        assert!(serde_json::from_value::<Token>(text.into()).is_err(), "{text}");
    }
}
