//! A storm for ten minutes, while an idle transaction keeps the server from cleaning anything up: does it get slower, and
//! what does it leave behind?
//!
//!     cargo bench --bench soak                   # ten minutes at 1,000,000 jobs, 50,000 of them waiting
//!     cargo bench --bench soak -- 2 100k         # two minutes at 100,000 jobs
//!
//! Eight daemons claim, log, commit quota and complete 100 jobs a second in all; as many enter the queue, half of them
//! through this library and half as a foreign writer inserts them; others list, ask for places in the queue and read
//! quota. Autovacuum is on, as everywhere. Prints latencies per tenth of the time, and the sizes of tables and indexes
//! before, after, and after the idle transaction has ended and a vacuum and another tenth have run.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, InsertJobs, LoadActors, ReadJobs, ReadQuota, RunJobs, System},
    demo::{self, Regime, Scale},
    model::{
        Capabilities, DaemonId, JobFilter, JobId, JobStatus, JobSubject, JobType, LogLevel, LogSource, NewJob,
        NewJobLog, OrganizationId, PageRequest, ProvisionerType, Tags, TemplateVersionId, UserId,
    },
    sqlx::{self, PgConnection},
    store,
};
use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};
use support::{Schema, Server, load, quantile, results, run};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use uuid::Uuid;

const TENTHS: usize = 10;
const DAEMONS: usize = 8;
/// Claims of each daemon, and jobs of each of the two that insert, per second.
const CLAIMS: f64 = 12.5;
const INSERTS: f64 = 50.0;
/// How much slower than in the first fifth a call may be in the last one.
const FLAT: f64 = 1.25;

const OPERATIONS: [&str; 8] =
    ["claim", "append 20 lines", "commit quota", "complete", "insert", "list", "by ids, 50 pending", "quota"];

/// Milliseconds per call, by operation and tenth.
type Latencies = Arc<Mutex<BTreeMap<(usize, usize), Vec<f64>>>>;

/// What the tasks share.
#[derive(Clone)]
struct Soak {
    organization: OrganizationId,
    /// The tag sets of the daemons.
    tags: Arc<Vec<Tags>>,
    version: TemplateVersionId,
    owner: Actor,
    began: Instant,
    length: Duration,
    latencies: Latencies,
    lives: Arc<AtomicU64>,
}

impl Soak {
    fn is_over(&self) -> bool {
        self.began.elapsed() >= self.length
    }

    async fn timed<T>(&self, operation: &str, call: impl Future<Output = Result<T, store::Error>>) -> T {
        let began = Instant::now();
        let done = call.await.unwrap_or_else(|error| panic!("{operation}: {error}"));
        let time = began.elapsed().as_secs_f64() * 1e3;
        let operation = OPERATIONS.iter().position(|name| *name == operation).expect("one of them");
        let share = self.began.elapsed().as_secs_f64() / self.length.as_secs_f64();
        let tenth = (0..TENTHS).rev().find(|tenth| share * 10.0 >= f64::from(u8::try_from(*tenth).expect("few")));
        let mut latencies = self.latencies.lock().expect("nobody panicked");
        latencies.entry((operation, tenth.unwrap_or_default())).or_default().push(time);
        done
    }

    /// One daemon, whatever it takes.
    async fn daemon(self, mut conn: PgConnection, number: usize) {
        let daemon = DaemonId(Uuid::from_u128(0xda_0000 + number as u128));
        let worker = Actor::system(System::ProvisionerDaemon);
        let permit = RunJobs::check(&worker, self.organization, daemon).expect("a daemon");
        let line = NewJobLog {
            created_at: demo::ANCHOR,
            source: LogSource::Provisioner,
            level: LogLevel::Info,
            stage: "Starting workspace".to_owned(),
            output: "aws_instance.dev: Still creating...".to_owned(),
        };
        let lines = vec![line; 20];
        let mut ticks = ticks(CLAIMS);
        while !self.is_over() {
            ticks.tick().await;
            let tags = &self.tags[number % self.tags.len()];
            let capabilities = Capabilities { provisioners: &[ProvisionerType::Terraform], tags };
            let now = time::OffsetDateTime::now_utc();
            let job = self.timed("claim", store::jobs::acquire(&mut conn, &permit, capabilities, now)).await;
            let Some(job) = job else { continue };
            let _ = self.timed("append 20 lines", store::job_logs::append(&mut conn, &permit, job.id, &lines)).await;
            if job.job_type == JobType::WorkspaceBuild {
                let _ = self.timed("commit quota", store::quota::commit(&mut conn, &permit, job.id, 10)).await;
            }
            let _ = self.timed("complete", store::jobs::complete(&mut conn, &permit, job.id, now, None)).await;
            self.lives.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Jobs of people through the library, and prebuilds as somebody else's program inserts them.
    async fn insert(self, mut conn: PgConnection) {
        let subject = JobSubject::DryRun(self.version);
        let permit = InsertJobs::check(&self.owner, self.organization, subject).expect("an owner");
        let mut ticks = ticks(INSERTS);
        let mut count = 0;
        while !self.is_over() {
            ticks.tick().await;
            count += 1;
            let tags = self.tags[count % self.tags.len()].clone();
            let now = time::OffsetDateTime::now_utc();
            if count % 2 == 0 {
                let id = JobId(Uuid::from_u128(fastrand::u128(..)));
                let job = NewJob { id, created_at: now, options: Map::new(), tags, trace_metadata: None };
                let _ = self.timed("insert", store::jobs::insert(&mut conn, &permit, job)).await;
                continue;
            }
            let insert = sqlx::query(
                "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                     storage_method, type, input, file_id, tags)
                 VALUES ($1, $2, $2, $3, $4, 'terraform', 'file', 'template_version_dry_run',
                     jsonb_build_object('template_version_id', $5), $1, $6)",
            );
            let insert = insert.bind(Uuid::from_u128(fastrand::u128(..))).bind(now).bind(self.organization);
            let insert = insert.bind(UserId::PREBUILDS).bind(self.version).bind(Value::from_iter(tags.0));
            insert.execute(&mut conn).await.expect("a foreign writer never fails");
        }
    }

    async fn read(self, mut conn: PgConnection) {
        let operator = Actor::system(System::Operator);
        let permit = ReadJobs::check(&operator, self.organization).expect("an operator");
        let mut ticks = ticks(20.0);
        let mut count = 0;
        while !self.is_over() {
            ticks.tick().await;
            count += 1;
            let mut filter = JobFilter::default();
            match count % 4 {
                0 => filter.status = vec![JobStatus::Failed],
                1 => filter.status = vec![JobStatus::Pending],
                2 => filter.tags = Some(self.tags[count % self.tags.len()].clone()),
                _ => {}
            }
            let page = store::jobs::list(&mut conn, &permit, &filter, PageRequest::first(50));
            let page = self.timed("list", page).await;
            if count % 4 == 1 {
                let ids: Vec<_> = page.rows.iter().map(|row| row.job.id).collect();
                let now = demo::ANCHOR;
                let stale = store::jobs::STALE_INTERVAL;
                let jobs = store::jobs::by_ids_with_queue_position(&mut conn, &permit, &ids, now, stale);
                self.timed("by ids, 50 pending", jobs).await;
            }
            let quota = ReadQuota::check(&operator, UserId::PREBUILDS, self.organization).expect("an operator");
            self.timed("quota", store::quota::usage(&mut conn, &quota)).await;
        }
    }

    /// All of them, for so long.
    async fn run(&self, server: &Server, database: &str, length: Duration) -> Self {
        let this = Self {
            began: Instant::now(),
            length,
            latencies: Latencies::default(),
            lives: Arc::default(),
            ..self.clone()
        };
        let mut tasks = JoinSet::new();
        for number in 0..DAEMONS {
            tasks.spawn(this.clone().daemon(server.connect(database).await, number));
        }
        for _ in 0..2 {
            tasks.spawn(this.clone().insert(server.connect(database).await));
        }
        tasks.spawn(this.clone().read(server.connect(database).await));
        tasks.join_all().await;
        this
    }

    fn cells(&self, operation: usize, show: impl Fn(&[f64]) -> String) -> Vec<String> {
        let latencies = self.latencies.lock().expect("nobody panicked");
        (0..TENTHS)
            .map(|tenth| latencies.get(&(operation, tenth)).map_or_else(String::new, |times| show(times)))
            .collect()
    }

    /// How many times as long as in the first fifth a call takes in the last one: the median, and the 99th percentile.
    fn drift(&self, operation: usize) -> [f64; 2] {
        let latencies = self.latencies.lock().expect("nobody panicked");
        let fifth = |first: usize| -> Vec<f64> {
            (first..first + 2).filter_map(|tenth| latencies.get(&(operation, tenth))).flatten().copied().collect()
        };
        let (before, after) = (fifth(0), fifth(TENTHS - 2));
        [500, 990].map(|thousandths| quantile(&after, thousandths) / quantile(&before, thousandths))
    }
}

fn ticks(per_second: f64) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
    // What is late stays late: no burst makes up for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

type Sizes = BTreeMap<String, [i64; 3]>;

/// Megabytes of each table, of its indexes, and its dead rows; only what is larger than a megabyte.
async fn sizes(conn: &mut PgConnection) -> Sizes {
    // What the sessions did is reported with a delay.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sizes = "SELECT relname::text, pg_table_size(relid) / 1048576, pg_indexes_size(relid) / 1048576, n_dead_tup
                 FROM pg_stat_user_tables WHERE pg_total_relation_size(relid) > 1048576 OR n_dead_tup > 0";
    let sizes: Vec<(String, i64, i64, i64)> = sqlx::query_as(sizes).fetch_all(conn).await.expect("the sizes");
    sizes.into_iter().map(|(name, table, indexes, dead)| (name, [table, indexes, dead])).collect()
}

fn table(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn print_latencies(pinned: &Soak, free: &Soak) {
    let header = ["ms".to_owned()].into_iter().chain((1..=TENTHS).map(|tenth| format!("{tenth}/{TENTHS}")));
    let mut latencies = table(header.chain(["last ÷ first fifth".to_owned(), "without the horizon".to_owned()]));
    let mut is_flat = true;
    for (operation, name) in OPERATIONS.iter().enumerate() {
        let drift = pinned.drift(operation);
        // Nothing to say of what was not called.
        is_flat &= drift[0].is_nan() || drift[0] <= FLAT;
        let show = |times: &[f64]| format!("{:.2} ({:.1})", quantile(times, 500), quantile(times, 990));
        let after: Vec<f64> = {
            let latencies = free.latencies.lock().expect("nobody panicked");
            latencies.iter().filter(|((of, _), _)| *of == operation).flat_map(|(_, times)| times.clone()).collect()
        };
        let mut cells = vec![(*name).to_owned()];
        cells.extend(pinned.cells(operation, show));
        cells.extend([format!("{:.2} ({:.2})", drift[0], drift[1]), show(&after)]);
        latencies.add_row(cells);
    }
    let verdict = if is_flat { "flat" } else { "not flat" };
    println!("Medians, and the 99th percentiles in brackets; {verdict}:\n\n{latencies}\n");
}

/// Before, after, after a vacuum without the horizon, and after the load that followed and another one.
fn print_sizes(states: [&Sizes; 4], lives: u64, lives_after: u64) {
    let [start, end, cleaned, later] = states;
    let mut bytes =
        table(["MB of table + indexes, dead rows", "start", "end", "vacuumed", "a tenth later"].map(str::to_owned));
    for name in later.keys() {
        let cells = states.map(|state| {
            let [table, indexes, dead] = state.get(name).copied().unwrap_or_default();
            format!("{table} + {indexes}, {dead}")
        });
        if cells[0] != cells[3] || cells[1] != cells[3] {
            bytes.add_row([name.clone()].into_iter().chain(cells));
        }
    }
    let total = |sizes: &Sizes| sizes.values().map(|[table, indexes, _]| table + indexes).sum::<i64>();
    let (grew, again) = (total(end) - total(start), total(later) - total(cleaned));
    println!(
        "{bytes}\n\n{grew} MB more at the end, for {lives} lives; after the vacuum, {again} MB more for {lives_after}."
    );
}

#[tokio::main]
async fn main() {
    let mut numbers = env::args().skip(1).filter(|word| !word.starts_with("--"));
    let minutes: f64 = numbers.next().map_or(10.0, |word| word.parse().expect("a number of minutes"));
    let jobs = numbers.next().map_or_else(|| "1m".to_owned(), |word| word.to_lowercase());
    let jobs = jobs.replace('m', "000k").replace('k', "000").parse().expect("a size such as 100k or 1m");
    let length = Duration::from_secs_f64(minutes * 60.0);

    let server = Server::start(&[]).await;
    let scale = Scale { jobs, regime: Regime::Storm };
    let whole = server.database(Schema::Whole, scale).await;
    let database = server.copy(&whole, "soak").await;
    let mut conn = server.connect(&database).await;
    let owner = "INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, rbac_roles)
                 VALUES ('ffffffff-0000-4000-8000-000000000000', 'owner@example.com', 'site-owner', '', now(), now(), 'active',
                     '{owner}');
                 UPDATE groups SET quota_allowance = 2000000000 WHERE name = 'Everyone'";
    run(&mut conn, owner).await;
    let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator");
    let owner = UserId("ffffffff-0000-4000-8000-000000000000".parse().expect("an id"));
    let owner = store::actors::load(&mut conn, &permit, owner).await.expect("the owner");
    let place = "SELECT o.id, t.active_version_id FROM organizations AS o
                 INNER JOIN templates AS t ON t.organization_id = o.id WHERE o.name = 'engineering' ORDER BY t.name LIMIT 1";
    let (organization, version): (Uuid, Uuid) = sqlx::query_as(place).fetch_one(&mut conn).await.expect("a template");
    let tags: Vec<Value> =
        sqlx::query_scalar("SELECT DISTINCT tags FROM provisioner_daemons WHERE organization_id = $1 ORDER BY tags")
            .bind(organization)
            .fetch_all(&mut conn)
            .await
            .expect("the tag sets");
    let soak = Soak {
        organization: OrganizationId(organization),
        tags: Arc::new(tags.into_iter().map(Tags::from).collect()),
        version: TemplateVersionId(version),
        owner,
        began: Instant::now(),
        length,
        latencies: Latencies::default(),
        lives: Arc::default(),
    };

    let before = load();
    let start = sizes(&mut conn).await;
    let mut idle = server.connect(&database).await;
    run(&mut idle, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM organizations").await;
    let pinned = soak.run(&server, &database, length).await;
    let end = sizes(&mut conn).await;
    run(&mut idle, "ROLLBACK").await;
    run(&mut conn, "VACUUM").await;
    let cleaned = sizes(&mut conn).await;
    let free = soak.run(&server, &database, length / 10).await;
    run(&mut conn, "VACUUM").await;
    let later = sizes(&mut conn).await;

    let lives = pinned.lives.load(Ordering::Relaxed);
    println!(
        "{scale}, {minutes} minutes with a pinned horizon, {lives} jobs claimed and completed; PostgreSQL {}, load average \
         {before} before and {} after\n",
        server.version,
        load()
    );
    print_latencies(&pinned, &free);
    print_sizes([&start, &end, &cleaned, &later], lives, free.lives.load(Ordering::Relaxed));
    let latencies: Vec<_> = OPERATIONS
        .iter()
        .enumerate()
        .map(|(operation, name)| {
            json!({
                "operation": name,
                "medians": pinned.cells(operation, |times| quantile(times, 500).to_string()),
                "p99": pinned.cells(operation, |times| quantile(times, 990).to_string()),
                "drift": pinned.drift(operation),
            })
        })
        .collect();
    let whole = json!({
        "machine": server.description().await, "jobs": jobs, "minutes": minutes, "lives": lives, "latencies": latencies,
        "sizes": { "start": start, "end": end, "vacuumed": cleaned, "later": later },
    });
    fs::write(results("soak.json"), format!("{whole:#}\n")).expect("the results");
    server.drop(&database).await;
}
