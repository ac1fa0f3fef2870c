//! The snapshot that a watcher keeps.

use std::time::Duration;

use coderdb::{
    model::{JobId, OrganizationId},
    pool::Pool,
    sqlx::{self, Connection},
    store::queue::View,
    watch::{Change, Settings, Watcher},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::support::{
    self,
    random_database::STALE,
    rows::{NOW, Rows, id},
    snapshot::snapshot,
};

const FOREVER: Duration = Duration::from_hours(1);

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// A watcher that takes a connection for the queue and for nothing else.
fn watcher(pool: &Pool, listen: bool) -> Watcher {
    Watcher::start(pool, Settings { poll: FOREVER, poll_organizations: FOREVER, listen, ..Settings::default() })
}

fn pool(rows: &Rows) -> Pool {
    rows.database.pool_with_sessions(coderdb::pool::Settings::default())
}

async fn ask(watcher: &Watcher) -> View {
    timeout(LONG, watcher.queue(&support::read_jobs(id(1)))).await.expect("in time").expect("a queue")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_costs_nothing_while_nobody_asks_and_a_statement_a_second_however_many_do() {
    let mut rows = Rows::new().await;
    let pool = pool(&rows);
    let watcher = watcher(&pool, false);
    let began = Instant::now();
    sleep_until(began + Duration::from_millis(1_500)).await;
    assert_eq!(pool.metrics().taken, 0, "nobody has asked");

    let began = Instant::now();
    let mut askers = JoinSet::new();
    for _ in 0..50 {
        let watcher = watcher.clone();
        askers.spawn(async move {
            let mut asked = 0;
            while began.elapsed() < Duration::from_millis(2_500) {
                assert!(ask(&watcher).await.why(JobId(id(1))).is_some());
                asked += 1;
                tokio::task::yield_now().await;
            }
            asked
        });
    }
    let asked: u64 = askers.join_all().await.into_iter().sum();
    let statements = pool.metrics().taken;
    assert!(asked > 1_000, "{asked} questions");
    assert!((2..=began.elapsed().as_secs() + 1).contains(&statements), "{statements} statements for {asked} questions");

    // What changes is seen in a second, without anybody who says so.
    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    let changed = Instant::now();
    while ask(&watcher).await.why(JobId(id(1))).is_some() {
        assert!(changed.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_is_looked_at_again_when_somebody_says_that_something_has_changed() {
    let mut rows = Rows::new().await;
    let pool = pool(&rows);
    let (here, there) = (watcher(&pool, true), watcher(&pool, true));
    let listening = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'";
    while rows.one(listening).await != "2" {
        tokio::task::yield_now().await;
    }
    // What they hear at first is that they may have missed something: the second look has seen it.
    let began = Instant::now();
    ask(&here).await;
    sleep_until(began + Duration::from_millis(1_100)).await;
    ask(&here).await;
    let (looked, statements) = (Instant::now(), pool.metrics().taken);
    while looked.elapsed() < Duration::from_secs(3) {
        ask(&here).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.metrics().taken, statements, "nothing has changed in {:?}", looked.elapsed());

    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    let change = Change { job: JobId(id(1)), organization: OrganizationId(id(1)) };
    there.announce(change);
    let announced = Instant::now();
    while ask(&here).await.why(JobId(id(1))).is_some() {
        assert!(announced.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
    // Its own changes need no detour over the server.
    rows.run("UPDATE provisioner_jobs SET completed_at = NULL").await;
    here.announce(change);
    while ask(&here).await.why(JobId(id(1))).is_none() {
        assert!(announced.elapsed() < LONG, "it is not there");
        tokio::task::yield_now().await;
    }
    // And what nobody says is seen some seconds later.
    rows.run("UPDATE provisioner_jobs SET completed_at = now()").await;
    let unsaid = Instant::now();
    while ask(&here).await.why(JobId(id(1))).is_some() {
        assert!(unsaid.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_is_not_asked_for_more_often_by_those_who_do_not_wait_for_the_answer() {
    let rows = Rows::new().await;
    let pool = pool(&rows);
    let watcher = watcher(&pool, false);
    let mut blocker = rows.database.connect_with_session().await;
    let mut lock = blocker.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE provisioner_jobs IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        let impatient = timeout(Duration::from_millis(50), watcher.queue(&support::read_jobs(id(1)))).await;
        assert!(impatient.is_err(), "an answer behind a lock");
    }
    let statements = pool.metrics().taken;
    assert!(statements <= began.elapsed().as_secs() + 1, "{statements} statements in {:?}", began.elapsed());
    lock.rollback().await.expect("the end");
    assert!(ask(&watcher).await.why(JobId(id(1))).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_that_cannot_be_looked_at_is_an_error_for_all_who_ask_and_there_again_later() {
    let mut rows = Rows::new().await;
    let pool = pool(&rows);
    let watcher = watcher(&pool, false);
    rows.run("ALTER TABLE provisioner_daemons RENAME TO elsewhere").await;
    let began = Instant::now();
    for _ in 0..100 {
        let error = watcher.queue(&support::read_jobs(id(1))).await.err().expect("an error");
        let expected = "the database schema is missing or too old: relation \"provisioner_daemons\" does not exist; run `coderdb migrate up`";
        assert_eq!(error.to_string(), expected);
    }
    assert!(pool.metrics().taken <= began.elapsed().as_secs() + 1, "{} statements", pool.metrics().taken);
    rows.run("ALTER TABLE elsewhere RENAME TO provisioner_daemons").await;
    let mended = Instant::now();
    while watcher.queue(&support::read_jobs(id(1))).await.is_err() {
        assert!(mended.elapsed() < LONG, "it is not there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn snapshot_shows_running_jobs_only_where_their_daemon_does_not_work_on_them() {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         SELECT u(n), at_second(0), n, '{echo}', '{}', at_second(-60 * n), u(1), u(1) FROM generate_series(1, 2) AS n;
         SELECT add_job(n) FROM generate_series(11, 13) AS n;
         UPDATE provisioner_jobs SET started_at = at_second(0), worker_id = u(right(id::text, 1)::integer) WHERE id > u(10)",
    )
    .await;
    let whole = snapshot(&mut rows.conn, NOW, STALE.unsigned_abs()).await;
    let view = whole.of(&support::read_jobs(id(1)));
    let why = |n| view.why(JobId(id(n))).map(|why| why.to_string());
    assert_eq!(why(11), None, "its daemon works on it");
    assert_eq!(why(12).as_deref(), Some("taken by a daemon that is offline, last seen at 2026-05-07T11:58:00Z"));
    assert_eq!(why(13).as_deref(), Some("taken by a daemon that is gone"));
    assert_eq!(view.at(), NOW);
    assert_eq!(whole.of(&support::read_jobs(id(2))).why(JobId(id(13))), None, "another organization's");
}
