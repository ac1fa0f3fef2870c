//! What waiting for jobs costs: how soon a waiter wakes, what idle waiters ask of the server, what writers lose.
//!
//!     cargo bench --bench waiting
//!
//! 1,000 waiters on 1,000 jobs, in one process with its own pool and listening connection; the writers have another
//! one. Wake-ups: from the answer to the commit until the waiter runs, of 5 times 1,000 jobs. Writers: 4 connections that
//! send signs of life for jobs that somebody waits for, a second with announcements and a second without, 10 times in
//! turn.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, ReadJobs, RunJobs, System, WatchJobs},
    migrate,
    model::{DaemonId, JobId, OrganizationId},
    pool::{self, Pool},
    postgres::Server,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions},
    store,
    watch::{Change, Settings, Watcher},
};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

const WAITERS: u128 = 1_000;
const ROUNDS: u128 = 5;
const PAIRS: usize = 10;
const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const DAEMON: DaemonId = DaemonId(Uuid::from_u128(2));

/// Jobs that the daemon carries out, with the ids from `first` on.
async fn jobs(conn: &mut PgConnection, first: u128, count: u128) {
    let sql = format!(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, organization_id, initiator_id, provisioner,
             storage_method, type, input, file_id, worker_id)
         SELECT lpad(to_hex(n), 32, '0')::uuid, now(), now(), now(), '{ORGANIZATION}', '{ORGANIZATION}', 'echo', 'file',
             'template_version_import', '{{}}', '{ORGANIZATION}', '{DAEMON}'
         FROM generate_series({first}, {first} + {count} - 1) AS n; ANALYZE provisioner_jobs"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.expect("jobs");
}

fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

fn change(n: u128) -> Change {
    Change { job: job(n), organization: ORGANIZATION }
}

/// Whoever waits for these jobs; each task gives the moment of its wake-up.
fn waiters(watcher: &Watcher, first: u128) -> JoinSet<(u128, Instant)> {
    let permit = ReadJobs::check(&Actor::system(System::Operator), ORGANIZATION).expect("an operator");
    let mut waiters = JoinSet::new();
    for n in first..first + WAITERS {
        let watcher = watcher.clone();
        waiters.spawn(async move {
            watcher.wait(&permit, job(n), Duration::from_hours(1)).await.expect("the job");
            (n, Instant::now())
        });
    }
    waiters
}

fn quantiles(what: &str, times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let quantile = |part: usize| times[(times.len() - 1) * part / 1_000].as_secs_f64() * 1e3;
    format!(
        "{what}, {WAITERS} waiters: median {:.1} ms, p99 {:.1} ms, greatest {:.1} ms",
        quantile(500),
        quantile(990),
        quantile(1_000)
    )
}

/// Signs of life per second, over a second.
async fn writes(url: &str, announcer: Option<&Watcher>) -> f64 {
    let (written, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (announcer, written) = (announcer.cloned(), written.clone());
        let mut conn = PgConnection::connect(url).await.expect("a connection");
        writers.spawn(async move {
            let worker = Actor::system(System::ProvisionerDaemon);
            let permit = RunJobs::check(&worker, ORGANIZATION, DAEMON).expect("a daemon");
            let mut n = 1_000_000 + writer * (WAITERS / 4);
            while began.elapsed() < Duration::from_secs(1) {
                n = if n % (WAITERS / 4) == WAITERS / 4 - 1 { n + 1 - WAITERS / 4 } else { n + 1 };
                let _ =
                    store::jobs::heartbeat(&mut conn, &permit, job(n), OffsetDateTime::now_utc()).await.expect("a job");
                if let Some(announcer) = &announcer {
                    announcer.announce(change(n));
                }
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    writers.join_all().await;
    f64::from(u32::try_from(written.load(Ordering::Relaxed)).expect("fewer")) / began.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let server = Server::throw_away(|notice| eprintln!("{notice}")).expect("a server");
    let url = server.url("postgres");
    let mut conn = PgConnection::connect(&url).await.expect("a connection");
    migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
    let organization = format!(
        "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
         VALUES ('{ORGANIZATION}', 'bench', '', now(), now(), '')"
    );
    sqlx::raw_sql(AssertSqlSafe(organization)).execute(&mut conn).await.expect("an organization");
    let pool = || Pool::new(PgConnectOptions::from_str(&url).expect("a URL"), pool::Settings::default());
    let (readers, writers) = (pool(), pool());
    let (watcher, announcer) =
        (Watcher::start(&readers, Settings::default()), Watcher::start(&writers, Settings::default()));

    // How soon where nobody announces: the poll alone finds what ended.
    let worker = Actor::system(System::ProvisionerDaemon);
    let permit = RunJobs::check(&worker, ORGANIZATION, DAEMON).expect("a daemon");
    for (round, poll) in (100..).zip([100, 200, 250, 1_100].map(Duration::from_millis)) {
        let first = round * WAITERS;
        jobs(&mut conn, first, WAITERS).await;
        let readers = pool();
        let watcher = Watcher::start(&readers, Settings { poll, ..Settings::default() });
        let woken = waiters(&watcher, first);
        sleep(Duration::from_secs(2)).await;
        let (before, began) = (readers.metrics().taken, Instant::now());
        let mut committed = Vec::new();
        for n in first..first + WAITERS {
            let _ = store::jobs::complete(&mut conn, &permit, job(n), OffsetDateTime::now_utc(), None)
                .await
                .expect("the job");
            committed.push(Instant::now());
            // Spread over many polls.
            sleep(Duration::from_millis(4)).await;
        }
        let asked = f64::from(u32::try_from(readers.metrics().taken - before).expect("few"));
        let per_second = asked / began.elapsed().as_secs_f64();
        let woken = woken.join_all().await;
        let delay = |(n, at): (u128, Instant)| {
            at.saturating_duration_since(committed[usize::try_from(n - first).expect("few")])
        };
        println!(
            "{} (poll {poll:?}, {per_second:.1} statements per second)",
            quantiles("unannounced wake-ups", woken.into_iter().map(delay))
        );
    }
    let watch = WatchJobs::check(&Actor::system(System::Watcher)).expect("a watcher");
    jobs(&mut conn, 200 * WAITERS, WAITERS).await;
    let ids: Vec<_> = (200 * WAITERS..201 * WAITERS).map(job).collect();
    let mut polls = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        assert_eq!(store::changes::of_jobs(&mut conn, &watch, &ids).await.expect("jobs").len(), ids.len());
        polls.push(began.elapsed());
    }
    println!("{}", quantiles("one poll", polls.into_iter()));

    // How soon where writers announce.
    let mut delays = Vec::new();
    for round in 1..=ROUNDS {
        let first = round * WAITERS;
        jobs(&mut conn, first, WAITERS).await;
        let woken = waiters(&watcher, first);
        sleep(Duration::from_secs(2)).await;
        let mut committed = Vec::new();
        for n in first..first + WAITERS {
            let now = OffsetDateTime::now_utc();
            let _ = store::jobs::complete(&mut conn, &permit, job(n), now, None).await.expect("the job");
            committed.push(Instant::now());
            announcer.announce(change(n));
        }
        for (n, at) in woken.join_all().await {
            delays.push(at.saturating_duration_since(committed[usize::try_from(n - first).expect("few")]));
        }
    }
    println!("{}", quantiles("announced wake-ups", delays.into_iter()));

    // How many statements.
    jobs(&mut conn, 1_000_000, WAITERS).await;
    let mut idle = waiters(&watcher, 1_000_000);
    sleep(Duration::from_secs(3)).await;
    let (before, began) = (readers.metrics().taken, Instant::now());
    sleep(Duration::from_secs(30)).await;
    let asked = readers.metrics().taken - before;
    let per_second = f64::from(u32::try_from(asked).expect("few")) / began.elapsed().as_secs_f64();
    println!("idle, {WAITERS} waiters: {per_second:.2} statements per second in all");

    // What writers lose.
    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let silent = writes(&url, None).await;
        let loud = writes(&url, Some(&announcer)).await;
        ratios.push((loud / silent, loud, silent));
    }
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (least, median, greatest) = (ratios[0].0, ratios[PAIRS / 2], ratios[PAIRS - 1].0);
    println!(
        "writers: {:.3} of the writes without announcements (least {least:.3}, greatest {greatest:.3}; {:.0} of {:.0}/s)",
        median.0, median.1, median.2
    );
    idle.abort_all();
}
