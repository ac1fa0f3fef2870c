//! How long a migration that waits for a table delays the application.
//!
//!     cargo bench --bench stall
//!
//! 400 transactions per second update a table; a reader holds it for 8 seconds, while a migration adds a column to it.
//! The worst latency of a transaction, from when it was due: without a migration, with a plain `ALTER TABLE`, with one that
//! tries again a second after `lock_timeout = 2s`, and 20 times with `migrate::up` within a budget of 250 ms.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coderdb::{
    connect, migrate,
    postgres::Server,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

const CLIENTS: u32 = 8;
const RATE: u32 = 400;
const ROUNDS: u32 = 20;
const READS_FOR: Duration = Duration::from_secs(8);
const BUDGET: Duration = Duration::from_millis(250);

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.expect("SQL");
}

/// The application, until it is over: the worst latency of each client.
async fn application(url: &str, over: Arc<AtomicBool>) -> (Duration, u64) {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (mut conn, over) = (PgConnection::connect(url).await.expect("a connection"), over.clone());
        clients.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) * CLIENTS / RATE);
            // What comes late is due when it was due.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut worst, mut count) = (Duration::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                let due = ticks.tick().await;
                sqlx::query("UPDATE t SET n = n + 1 WHERE id = $1")
                    .bind(i64::from(client * 100) + i64::try_from(count % 100).expect("small"))
                    .execute(&mut conn)
                    .await
                    .expect("an update");
                worst = worst.max(due.elapsed());
                count += 1;
            }
            (worst, count)
        });
    }
    let done = clients.join_all().await;
    (done.iter().map(|(worst, _)| *worst).max().expect("clients"), done.iter().map(|(_, count)| count).sum())
}

/// The worst latency beside a reader and the work, how many transactions, how long the work took, and what it says.
async fn beside<T>(url: &str, work: impl Future<Output = T>) -> (Duration, u64, Duration, T) {
    let over = Arc::new(AtomicBool::new(false));
    let application = tokio::spawn({
        let (url, over) = (url.to_owned(), over.clone());
        async move { application(&url, over).await }
    });
    sleep(Duration::from_secs(1)).await;
    let mut reader = PgConnection::connect(url).await.expect("a connection");
    run(&mut reader, "BEGIN; SELECT count(*) FROM t").await;
    let read = async {
        sleep(READS_FOR).await;
        run(&mut reader, "COMMIT").await;
    };
    let start = Instant::now();
    let work = async {
        let said = work.await;
        (said, start.elapsed())
    };
    let ((), (said, took)) = tokio::join!(read, work);
    sleep(Duration::from_millis(500)).await;
    over.store(true, Ordering::Relaxed);
    let (worst, count) = application.await.expect("no panic");
    (worst, count, took, said)
}

fn millis(length: Duration) -> String {
    format!("{:.0} ms", length.as_secs_f64() * 1e3)
}

#[tokio::main]
async fn main() {
    let server = Server::throw_away(|notice| eprintln!("{notice}")).expect("a server");
    let url = server.url("postgres");
    let mut conn = PgConnection::connect(&url).await.expect("a connection");
    run(&mut conn, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL); INSERT INTO t SELECT n, 0 FROM generate_series(0, 999) AS n").await;

    let (worst, count, ..) = beside(&url, async {}).await;
    println!("no migration:       worst latency {} of {count} transactions", millis(worst));
    let (worst, _, took, ()) = beside(&url, run(&mut conn, "ALTER TABLE t ADD a integer")).await;
    println!("plain ALTER TABLE:  worst latency {}, took {}", millis(worst), millis(took));
    let retry = async {
        run(&mut conn, "SET lock_timeout = '2s'").await;
        while sqlx::raw_sql("ALTER TABLE t ADD b integer").execute(&mut conn).await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let (worst, _, took, ()) = beside(&url, retry).await;
    println!("lock_timeout of 2s: worst latency {}, took {}", millis(worst), millis(took));

    let options: connect::ConnectOptions = url.parse().expect("a URL");
    let mut conn = options.connect().await.expect("a connection");
    let directory = tempfile::tempdir().expect("a directory");
    let mut kept = 0;
    for round in 1..=ROUNDS {
        let file = directory.path().join(format!("V{round:04}__column.sql"));
        fs::write(file, format!("ALTER TABLE t ADD c{round} integer;")).expect("a file");
        let migrating = migrate::MigrateOptions {
            migrations: migrate::Migrations::read(directory.path()).expect("migrations"),
            max_stall: Some(BUDGET),
            observer: Some(options.clone()),
            ..migrate::MigrateOptions::default()
        };
        let (worst, _, took, applied) = beside(&url, migrate::up(&mut conn, &migrating, |_| {})).await;
        let applied = applied.expect("the column");
        let is_kept = worst <= BUDGET + Duration::from_millis(50);
        kept += u32::from(is_kept);
        println!(
            "migrate up {round:2}:      worst latency {}, took {}, says that it delayed others by {} ms",
            millis(worst),
            millis(took),
            applied[0].delay_milliseconds.expect("a second connection")
        );
    }
    println!("within the budget of {} and 50 ms: {kept} of {ROUNDS}", millis(BUDGET));
}
