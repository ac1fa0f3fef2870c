//! What clearing a flood costs: 10,000 pending jobs of the prebuilds user, canceled by the program while daemons claim.
//!
//!     cargo bench --bench cancel
//!
//! Beside them wait 50,000 imports, which four daemons claim and complete, each on a connection of its own. The time is
//! that of `coderdb provisioner jobs cancel --initiator prebuilds --status pending`, from its start to its end, 5 times;
//! and how long a claim takes at most, in the second before and during the cancel.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, RunJobs, System},
    migrate,
    model::{ByWorker, Capabilities, DaemonId, OrganizationId, ProvisionerType, Tags},
    postgres::Server,
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store,
};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));

/// What the daemons have done, and how long one claim took at most, in microseconds.
#[derive(Default)]
struct Claims {
    done: AtomicU64,
    longest: AtomicU64,
    is_over: AtomicBool,
}

async fn claim(url: String, n: u128, claims: Arc<Claims>) {
    let mut conn = PgConnection::connect(&url).await.expect("a connection");
    let worker = Actor::system(System::ProvisionerDaemon);
    let permit = RunJobs::check(&worker, ORGANIZATION, DaemonId(Uuid::from_u128(n))).expect("a daemon");
    let tags = Tags::from_iter([("scope", "organization")]);
    let able = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    while !claims.is_over.load(Ordering::Relaxed) {
        let (began, now) = (Instant::now(), OffsetDateTime::now_utc());
        let Some(job) = store::jobs::acquire(&mut conn, &permit, able, now).await.expect("an answer") else {
            panic!("the imports have run out: {n} has nothing to claim");
        };
        let took = u64::try_from(began.elapsed().as_micros()).expect("short");
        claims.longest.fetch_max(took, Ordering::Relaxed);
        claims.done.fetch_add(1, Ordering::Relaxed);
        let ended = store::jobs::complete(&mut conn, &permit, job.id, now, None).await.expect("the job");
        assert!(matches!(ended, ByWorker::Done(_)));
    }
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
    println!("round  canceled  seconds  claims  longest claim before  longest claim during");
    for round in 1..=5 {
        let jobs = format!(
            "TRUNCATE provisioner_jobs CASCADE;
             INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                 storage_method, type, input, file_id)
             SELECT gen_random_uuid(), now() + n * interval '1 millisecond', now(), '{ORGANIZATION}',
                 CASE WHEN n % 6 = 0 THEN 'c42fdf75-3097-471c-8c33-fb52454d81c0'::uuid ELSE '{ORGANIZATION}' END,
                 'echo', 'file', 'template_version_import', '{{}}', '{ORGANIZATION}'
             FROM generate_series(1, 60000) AS n; ANALYZE provisioner_jobs"
        );
        sqlx::raw_sql(AssertSqlSafe(jobs)).execute(&mut conn).await.expect("jobs");
        let claims = Arc::new(Claims::default());
        let mut daemons = JoinSet::new();
        for n in 1..=4 {
            daemons.spawn(claim(url.clone(), n, claims.clone()));
        }
        sleep(Duration::from_secs(1)).await;
        let (before, done) = (claims.longest.swap(0, Ordering::Relaxed), claims.done.load(Ordering::Relaxed));
        let program = url.clone();
        let cancel = move || {
            let mut cancel = Command::new(env!("CARGO_BIN_EXE_coderdb"));
            cancel.env("DATABASE_URL", program).env("CODER_ORGANIZATION", "bench").stdout(Stdio::null());
            cancel.args(["provisioner", "jobs", "cancel", "--initiator", "prebuilds", "--status", "pending"]);
            let began = Instant::now();
            let output = cancel.output().expect("the program");
            (began.elapsed(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
        };
        let (took, said) = tokio::task::spawn_blocking(cancel).await.expect("no panic");
        let during = claims.longest.load(Ordering::Relaxed);
        let claimed = claims.done.load(Ordering::Relaxed) - done;
        claims.is_over.store(true, Ordering::Relaxed);
        daemons.join_all().await;
        assert_eq!(said, "10000 canceled");
        println!("{round:>5}  {said}  {:>7.3}  {claimed:>6}  {before:>17} µs  {during:>17} µs", took.as_secs_f64());
    }
}
