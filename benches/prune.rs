//! Deleting old logs beside those who read: `cargo bench --bench prune` (10 million lines; `-- 1000000` takes fewer).
//!
//! Half of the lines belong to jobs that are old enough. While they are deleted, another session reads pages of the listing and
//! the log of a young job, and a third one looks for sessions that wait for a lock. Then the jobs are deleted, too.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, PruneJobs, ReadJobs, System},
    migrate,
    model::{JobFilter, OrganizationId, PageRequest},
    postgres::{Server, Settings},
    prune::Run,
    sqlx::{self, AssertSqlSafe, Connection as _, PgConnection},
    store,
};
use time::OffsetDateTime;

/// Lines of a job.
const LINES: u64 = 100;

/// How often the command asks about autovacuum.
const LOOK: Duration = Duration::from_secs(1);

const ORGANIZATION: &str = "00000000-0000-0000-0000-000000000001";

async fn run(conn: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.expect("SQL");
}

async fn one<T>(conn: &mut PgConnection, sql: &'static str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sql).fetch_one(conn).await.expect("an answer")
}

async fn load(conn: &mut PgConnection, jobs: u64) {
    run(
        conn,
        format!(
            "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name, is_default)
             VALUES ('{ORGANIZATION}', 'coder', '', now(), now(), '', true);
             INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, completed_at, organization_id, initiator_id,
                 provisioner, storage_method, type, input, file_id)
             SELECT gen_random_uuid(), at, at, at, at, '{ORGANIZATION}', gen_random_uuid(), 'terraform', 'file',
                 'template_version_dry_run', '{{}}', gen_random_uuid()
             FROM (SELECT now() - (n % 200 + 1) * interval '1 day' + n * interval '1 millisecond' FROM generate_series(1, {jobs}) AS n) AS t (at);
             INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
             SELECT j.id, j.created_at, 'provisioner', 'info', 'Planning infrastructure', 'module.dev.resource: refreshing state ' || n
             FROM provisioner_jobs AS j, generate_series(1, {LINES}) AS n;
             UPDATE provisioner_jobs SET logs_length = 4000"
        ),
    )
    .await;
    for table in ["provisioner_jobs", "provisioner_job_logs"] {
        run(conn, format!("VACUUM (ANALYZE) {table}")).await;
    }
}

/// One page of the listing after the other: the median of each, in milliseconds.
async fn listing(conn: &mut PgConnection, until: impl Fn() -> bool) -> f64 {
    let permit = ReadJobs::check(&Actor::system(System::Operator), organization()).expect("an operator");
    let mut took = Vec::new();
    while until() || took.len() < 200 {
        let began = Instant::now();
        store::jobs::list(conn, &permit, &JobFilter::default(), PageRequest::first(50)).await.expect("a page");
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

fn organization() -> OrganizationId {
    OrganizationId(ORGANIZATION.parse().expect("an id"))
}

/// The longest time for which a session waited for a lock, in microseconds.
async fn watch_locks(conn: &mut PgConnection, longest: &AtomicU64, is_over: &AtomicBool) {
    let waits = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart) * 1e6), 0)::bigint FROM pg_locks \
                 WHERE NOT granted";
    while !is_over.load(Ordering::Relaxed) {
        let wait: i64 = one(conn, waits).await;
        longest.fetch_max(wait.unsigned_abs(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::main]
async fn main() {
    let lines: u64 = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(10_000_000);
    // With autovacuum and with a log that is flushed, which a throw-away server has not. The server's user must get in.
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let settings = Settings::persistent(directory.path().join("server")).supervisor(env!("CARGO_BIN_EXE_coderdb"));
    let server = Server::open(&settings, |notice| eprintln!("{notice}")).expect("a server");
    let url = server.url("postgres");
    let mut conn = PgConnection::connect(&url).await.expect("a connection");
    migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
    load(&mut conn, lines / LINES).await;
    let size = "SELECT pg_total_relation_size('provisioner_job_logs')";
    let before: i64 = one(&mut conn, size).await;
    println!("{lines} lines of {} jobs, {} MB", lines / LINES, before >> 20);
    let mut reader = PgConnection::connect(&url).await.expect("a connection");
    let mut watcher = PgConnection::connect(&url).await.expect("a connection");
    let alone = listing(&mut reader, || false).await;
    for logs_only in [true, false] {
        let (is_over, longest) = (AtomicBool::new(false), AtomicU64::new(0));
        let pruning = async {
            let permit = PruneJobs::check(&Actor::system(System::Operator), organization()).expect("an operator");
            let wal = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
            let (began, wal_before): (_, i64) = (Instant::now(), one(&mut conn, wal).await);
            let mut run = Run::new(OffsetDateTime::now_utc() - time::Duration::days(100), logs_only);
            let (mut batches, mut worst, mut waited, mut looked) = (0, Duration::ZERO, Duration::ZERO, Instant::now());
            while let Some(batch) = run.next(&mut conn, &permit).await {
                batch.expect("a batch");
                batches += 1;
                worst = worst.max(run.took());
                tokio::time::sleep(run.took()).await;
                // As the command does.
                if looked.elapsed() > LOOK {
                    while store::jobs::dead_rows(&mut conn, &permit).await.expect("an answer").is_some() {
                        waited += LOOK;
                        tokio::time::sleep(LOOK).await;
                    }
                    looked = Instant::now();
                }
            }
            let (took, written) = (began.elapsed(), one::<i64>(&mut conn, wal).await - wal_before);
            is_over.store(true, Ordering::Relaxed);
            (run.total(), took, batches, worst, written >> 20, waited.as_secs())
        };
        let ((total, took, batches, worst, written, waited), beside, ()) = tokio::join!(
            pruning,
            listing(&mut reader, || !is_over.load(Ordering::Relaxed)),
            watch_locks(&mut watcher, &longest, &is_over)
        );
        println!(
            "{}: {} jobs and {} lines in {:.1} s, {waited} s of it waiting for autovacuum, {batches} batches, longest {:.1} ms, {written} MB of WAL, longest wait for a lock {:.1} ms; \
             a page of the listing {:.2} of {alone:.2} ms alone",
            if logs_only { "logs" } else { "jobs" },
            total.jobs,
            total.log_lines,
            took.as_secs_f64(),
            worst.as_secs_f64() * 1e3,
            f64::from(u32::try_from(longest.load(Ordering::Relaxed)).unwrap_or(u32::MAX)) / 1e3,
            beside / alone,
        );
    }
    let after = listing(&mut reader, || false).await;
    println!("a page of the listing afterwards: {:.2}", after / alone);
    run(&mut conn, "VACUUM provisioner_job_logs".to_owned()).await;
    let vacuumed: i64 = one(&mut conn, size).await;
    run(&mut conn, "VACUUM FULL provisioner_job_logs".to_owned()).await;
    let repacked: i64 = one(&mut conn, size).await;
    println!("{} MB before, {} MB vacuumed, {} MB repacked", before >> 20, vacuumed >> 20, repacked >> 20);
}
