//! The load of `scripts/failover`: a service that goes on by itself while its database fails over, and remembers
//! everything that it was told is done.
//!
//! Owners ask for builds, daemons take their jobs, commit quota, log, and complete. Whatever is answered is noted here, in
//! the memory of this process; what is not, may have happened or not, and is asked for again where `REPEATED` in
//! `tests/it/crash.rs` says that this is safe. On demand the notes are compared with the database:
//!
//! - lost: something that was answered is not there;
//! - twice: two daemons were told that a job is theirs, or wrote to its log, or one that had it has it no more;
//! - over quota: an owner consumes more than the budget.
//!
//! An acquisition whose answer was lost leaves a job that nobody works on. Nothing else may: at the end, the reaper finds
//! as many of these as answers to acquisitions were lost, or fewer.
//!
//! It connects as `DATABASE_URL` says, migrates, and answers each line of its input by a line of JSON: `mark`, `killed`
//! with the time in seconds, `verify`, `stop`. It ends with its input.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    error::Error as StdError,
    io,
    rc::Rc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use coderdb::{
    authz::{Actor, BuildWorkspaces, LoadActors, ReadQuota, ReadWorkspaces, ReapJobs, RunJobs, System},
    connect::ConnectOptions,
    migrate,
    model::{
        BuildReason, ByWorker, Capabilities, DaemonId, End, Job, JobId, LogLevel, LogSource, NewBuild, NewJobLog,
        OrganizationId, ProvisionerType, ReapOutcome, Stuck, Tags, TemplateVersionId, Transition, UserId,
        WorkspaceBuildId, WorkspaceId,
    },
    pool::{self, Pool},
    sqlx::{self, AssertSqlSafe, PgConnection},
    store::{self, jobs, runner::QuotaStep},
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};
use uuid::Uuid;

const OWNERS: u128 = 6;
const DAEMONS: u128 = 8;
const WORKSPACES_PER_OWNER: u128 = 6;
/// Of six workspaces, three may run.
const COST: i32 = 10;
const BUDGET: i32 = 35;
/// How long an answer may take. Without a bound, whoever asks a machine that stands still waits for ever.
const PATIENCE: Duration = Duration::from_secs(3);
const STAGE: &str = "failover";

fn u(n: u128) -> Uuid {
    // As in tests/it/golden/rows.sql: decimal digits.
    format!("{n:0>32}").parse().expect("digits")
}

fn owner(n: u128) -> UserId {
    UserId(u(100 + n))
}

fn workspace(owner: u128, n: u128) -> WorkspaceId {
    WorkspaceId(u(1_000 + owner * 100 + n))
}

fn organization() -> OrganizationId {
    OrganizationId(u(1))
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// What this process was told about a job.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Its build, and the number of that unless only the repetition was answered.
    created: Option<(WorkspaceBuildId, Option<i32>)>,
    taken_by: Option<DaemonId>,
    quota_committed: bool,
    lines: u32,
    ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Succeeded,
    OverQuota,
}

/// How an attempt ended.
enum Answer<T> {
    Given(T),
    /// It was sent, and has happened or not.
    Lost,
    /// There was no connection.
    NotSent,
}

/// What came before an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Whether an earlier answer was lost.
    before: bool,
    /// When it was sent.
    at: f64,
}

struct World {
    pool: Pool,
    actors: Vec<Actor>,
    known: RefCell<HashMap<JobId, Known>>,
    acknowledged: Cell<u64>,
    /// Lost answers, by operation.
    unknown: RefCell<BTreeMap<&'static str, u64>>,
    /// How many jobs that hung the reaper ended. It also ends the one that nobody may take, of rows.sql.
    reaped: Cell<u64>,
    /// What must not be, in words.
    twice: RefCell<Vec<String>>,
    surprises: RefCell<Vec<String>>,
    /// When the last write was answered, and the longest time without an answer since the mark.
    last: Cell<Instant>,
    longest: Cell<Duration>,
    /// When the youngest write was sent that was answered.
    newest: Cell<f64>,
    noted: Notify,
    stopping: Cell<bool>,
}

impl World {
    /// Tries it once, on a connection of the pool.
    async fn attempt<T>(
        &self,
        what: &'static str,
        operation: impl AsyncFnOnce(&mut PgConnection) -> store::Result<T>,
    ) -> Answer<(store::Result<T>, f64)> {
        let mut connection = match self.pool.get().await {
            Ok(connection) => connection,
            Err(pool::Error::Timeout { .. }) => return Answer::NotSent,
            Err(error) => {
                self.surprise(format!("{what}: {error}{}", source(&error)));
                sleep(Duration::from_millis(100)).await;
                return Answer::NotSent;
            }
        };
        let at = unix_seconds();
        match timeout(PATIENCE, operation(&mut connection)).await {
            Err(_) => {}
            Ok(Err(error)) if error.is_retryable() => {}
            Ok(Err(error)) if !matches!(error, store::Error::NotFound { .. } | store::Error::Conflict { .. }) => {
                self.surprise(format!("{what}: {error}{}", source(&error)));
            }
            Ok(answer) => return Answer::Given((answer, at)),
        }
        *self.unknown.borrow_mut().entry(what).or_default() += 1;
        Answer::Lost
    }

    /// Tries until there is an answer. Only for what is safe to repeat.
    async fn insist<T>(
        &self,
        what: &'static str,
        operation: impl AsyncFn(&mut PgConnection) -> store::Result<T>,
    ) -> (store::Result<T>, Asked) {
        let mut before = false;
        loop {
            match self.attempt(what, &operation).await {
                Answer::Given((answer, at)) => return (answer, Asked { before, at }),
                Answer::Lost => before = true,
                Answer::NotSent => {}
            }
        }
    }

    /// Notes a write that was answered.
    fn note(&self, job: JobId, asked: f64, note: impl FnOnce(&mut Known)) {
        note(self.known.borrow_mut().entry(job).or_default());
        self.acknowledged.set(self.acknowledged.get() + 1);
        self.longest.set(self.longest.get().max(self.last.get().elapsed()));
        self.last.set(Instant::now());
        self.newest.set(self.newest.get().max(asked));
        self.noted.notify_waiters();
    }

    fn surprise(&self, text: String) {
        self.surprises.borrow_mut().push(text);
    }

    /// Asks for builds of one owner's workspaces, as fast as daemons take them.
    async fn build(&self, n: u128, queue: mpsc::Sender<()>) {
        let permit = BuildWorkspaces::check(&self.actors[usize::try_from(n).expect("few")], organization());
        let permit = permit.expect("a member");
        while !self.stopping.get() {
            let transition = if fastrand::bool() { Transition::Start } else { Transition::Stop };
            let new = NewBuild {
                id: WorkspaceBuildId(Uuid::from_u128(fastrand::u128(..))),
                job_id: JobId(Uuid::from_u128(fastrand::u128(..))),
                workspace_id: workspace(n, fastrand::u128(..WORKSPACES_PER_OWNER)),
                template_version_id: TemplateVersionId(u(1)),
                preset_id: None,
                transition,
                reason: BuildReason::Initiator,
                provisioner_state: None,
                deadline: None,
                max_deadline: None,
                tags: Tags::default(),
                options: Map::new(),
                trace_metadata: None,
            };
            let create = async |conn: &mut PgConnection| store::builds::create(conn, &permit, &new, now()).await;
            match self.insist("builds::create", create).await {
                (Ok(number), asked) => {
                    self.note(new.job_id, asked.at, |known| known.created = Some((new.id, Some(number))));
                }
                // It was done when the answer was lost.
                (Err(store::Error::Conflict { .. }), Asked { before: true, at }) => {
                    self.note(new.job_id, at, |known| known.created = Some((new.id, None)));
                }
                (Err(error), asked) => self.surprise(format!("builds::create: {error}, {asked:?}")),
            }
            if queue.send(()).await.is_err() {
                return;
            }
        }
    }

    /// Works on jobs, one after the other, until there are no more.
    async fn work(&self, daemon: DaemonId, queue: Rc<Mutex<mpsc::Receiver<()>>>) {
        let permit =
            RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization(), daemon).expect("a daemon");
        let tags = Tags::default();
        let capabilities = Capabilities { provisioners: &[ProvisionerType::Echo], tags: &tags };
        let acquire = async |conn: &mut PgConnection| jobs::acquire(conn, &permit, capabilities, now()).await;
        loop {
            // Whoever asks for a build tells; what nobody told of is found at the end.
            let told = queue.lock().await.recv().await.is_some();
            match self.insist("jobs::acquire", acquire).await {
                (Ok(Some(job)), asked) => self.carry_out(&permit, job, asked.at).await,
                (Ok(None), _) if !told => return,
                (Ok(None), _) => {}
                (Err(error), _) => self.surprise(format!("jobs::acquire: {error}")),
            }
        }
    }

    async fn carry_out(&self, permit: &RunJobs, job: Job, asked: f64) {
        let (id, daemon) = (job.id, permit.daemon());
        let mut before = None;
        self.note(id, asked, |known| before = known.taken_by.replace(daemon));
        if let Some(before) = before {
            self.twice(format!("{id}: given to {before}, and then to {daemon}"));
        }
        let reader =
            ReadWorkspaces::check(&Actor::system(System::ProvisionerDaemon), organization()).expect("a daemon");
        let by_job = async |conn: &mut PgConnection| store::builds::by_job(conn, &reader, id).await;
        let build = match self.insist("builds::by_job", by_job).await.0 {
            Ok(build) => build,
            Err(error) => return self.surprise(format!("builds::by_job: {error}")),
        };
        self.log(permit, id, 1).await;
        let costs: &[i32] = if build.transition == Transition::Start { &[COST] } else { &[] };
        let commit = async |conn: &mut PgConnection| {
            store::runner::commit_quota(conn, permit, id, build.transition.clone(), costs, now()).await
        };
        match self.insist("runner::commit_quota", commit).await {
            (Ok(QuotaStep::Skipped), _) => {}
            (Ok(QuotaStep::Committed(_)), asked) => self.note(id, asked.at, |known| known.quota_committed = true),
            // Repeated, it does not find a job that has failed over quota when the answer was lost.
            (Ok(QuotaStep::OverQuota { end: ByWorker::Done(_), .. }), Asked { at, .. })
            | (Err(store::Error::NotFound { .. }), Asked { before: true, at }) => {
                return self.note(id, at, |known| known.ended = Some(Ended::OverQuota));
            }
            (Ok(QuotaStep::Failed { error, .. }), _) => {
                return self.surprise(format!("{id}: {error}{}", source(&error)));
            }
            other => return self.twice(format!("{id}: quota of {daemon}: {other:?}")),
        }
        // What a provisioner does takes time: jobs are running when the primary is killed.
        sleep(Duration::from_millis(fastrand::u64(..40))).await;
        self.log(permit, id, 2).await;
        let state = id.0.into_bytes();
        let complete = async |conn: &mut PgConnection| jobs::complete(conn, permit, id, now(), Some(&state)).await;
        match self.insist("jobs::complete", complete).await {
            (Ok(ByWorker::Done(End::Ended(_))), Asked { at, .. })
            | (Ok(ByWorker::Done(End::AlreadyCompleted { .. })), Asked { before: true, at }) => {
                self.note(id, at, |known| known.ended = Some(Ended::Succeeded));
            }
            other => self.twice(format!("{id}: end by {daemon}: {other:?}")),
        }
    }

    /// Once: asked again, it would log again.
    async fn log(&self, permit: &RunJobs, job: JobId, number: u32) {
        let line = NewJobLog {
            created_at: now(),
            source: LogSource::Provisioner,
            level: LogLevel::Info,
            stage: STAGE.to_owned(),
            output: format!("{number} {}", permit.daemon()),
        };
        let append = async |conn: &mut PgConnection| {
            store::job_logs::append(conn, permit, job, std::slice::from_ref(&line)).await
        };
        match self.attempt("job_logs::append", append).await {
            Answer::Given((Ok(ByWorker::Done(_)), at)) => self.note(job, at, |known| known.lines |= 1 << number),
            Answer::Given((other, _)) => self.twice(format!("{job}: log by {}: {other:?}", permit.daemon())),
            Answer::Lost | Answer::NotSent => {}
        }
    }

    fn twice(&self, text: String) {
        self.twice.borrow_mut().push(text);
    }

    /// Ends what hangs, every ten seconds, as a service would.
    async fn reap(&self) {
        loop {
            sleep(Duration::from_secs(10)).await;
            self.reap_once(now()).await;
        }
    }

    async fn reap_once(&self, now: OffsetDateTime) {
        let permit = ReapJobs::check(&Actor::system(System::Reaper)).expect("a reaper");
        let candidates = async |conn: &mut PgConnection| jobs::reap_candidates(conn, &permit, now, 1_000).await;
        for stuck in self.insist("jobs::reap_candidates", candidates).await.0.unwrap_or_default() {
            let reap = async |conn: &mut PgConnection| jobs::reap(conn, &permit, stuck.id, now).await;
            if let Ok(ReapOutcome::Reaped { stuck: Stuck::Hung, .. }) = self.insist("jobs::reap", reap).await.0 {
                self.reaped.set(self.reaped.get() + 1);
            }
        }
    }

    /// Compares what was noted with what is there, while the others go on.
    async fn verify(&self) -> Value {
        let known = self.known.borrow().clone();
        let mut found = HashMap::new();
        let (rows, broken) = loop {
            let Ok(mut connection) = self.pool.get().await else { continue };
            if let Ok(Ok(read)) = timeout(Duration::from_mins(1), stored(&mut connection)).await {
                break read;
            }
        };
        found.extend(rows.into_iter().map(|row| (row.job, row)));
        let mut lost: Vec<String> = Vec::new();
        for (job, known) in &known {
            let Some(row) = found.get(job) else {
                lost.push(format!("{job}: not there; known: {known:?}"));
                continue;
            };
            let fits = known.created.is_none_or(|(build, number)| {
                row.build == Some(build) && number.is_none_or(|number| row.number == Some(number))
            }) && known.taken_by.is_none_or(|daemon| row.worker == Some(daemon))
                && (!known.quota_committed || row.cost == Some(COST))
                && (1..=2)
                    .filter(|n| known.lines & 1 << n != 0)
                    .all(|n| known.taken_by.is_some_and(|daemon| row.lines.contains(&format!("{n} {daemon}"))))
                && match known.ended {
                    None => true,
                    Some(Ended::Succeeded) => row.completed && row.error.is_none() && row.state == job.0.as_bytes(),
                    Some(Ended::OverQuota) => row.completed && row.error.as_deref() == Some("insufficient quota"),
                };
            if !fits {
                lost.push(format!("{job}: {row:?}; known: {known:?}"));
            }
        }
        let mut twice = self.twice.borrow().clone();
        for row in found.values() {
            let writers: HashSet<_> = row.lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
            if writers.len() > 1 {
                twice.push(format!("{}: logs of {writers:?}", row.job));
            }
        }
        let mut over: Vec<String> = Vec::new();
        for n in 0..OWNERS {
            let permit =
                ReadQuota::check(&Actor::system(System::Operator), owner(n), organization()).expect("an operator");
            let usage = async |conn: &mut PgConnection| store::quota::usage(conn, &permit).await;
            let quota = self.insist("quota::usage", usage).await.0.expect("it is tried until it is answered");
            if quota.credits_consumed > quota.budget {
                over.push(format!("{}: {quota:?}", owner(n)));
            }
        }
        let counts = (lost.len(), twice.len(), over.len());
        let found: Vec<_> =
            [lost, twice, over, broken, self.surprises.borrow().clone()].into_iter().flatten().take(20).collect();
        json!({
            "jobs": known.len(),
            "acknowledged": self.acknowledged.get(),
            "unknown": self.unknown.borrow().values().sum::<u64>(),
            "unknown_by_operation": *self.unknown.borrow(),
            "lost": counts.0,
            "twice": counts.1,
            "over_quota": counts.2,
            "pause": seconds(self.longest.get()),
            "found": found,
        })
    }

    /// Waits until it runs, and measures pauses from there.
    async fn mark(&self) -> Value {
        let enough = self.acknowledged.get() + 500;
        while self.acknowledged.get() < enough {
            self.noted.notified().await;
        }
        self.longest.take();
        json!({"acknowledged": self.acknowledged.get()})
    }

    /// The last verification, when nobody works any more: what hangs then hangs because an answer was lost.
    async fn totals(&self) -> Value {
        self.reap_once(now() + jobs::HUNG_AFTER + Duration::from_secs(1)).await;
        let reaped = self.reaped.get();
        let lost = self.unknown.borrow().get("jobs::acquire").copied().unwrap_or_default();
        if reaped > lost {
            self.twice(format!("{reaped} jobs hang, but only {lost} answers to acquisitions were lost"));
        }
        let mut totals = self.verify().await;
        totals["reaped"] = reaped.into();
        totals
    }

    /// How long after that moment a write was answered that was sent after it; null when none is within a minute.
    async fn resumed(&self, killed: f64) -> Value {
        let resumed = timeout(Duration::from_mins(1), async {
            while self.newest.get() <= killed {
                self.noted.notified().await;
            }
            unix_seconds() - killed
        });
        json!({"resumed": resumed.await.ok().map(|elapsed| (elapsed * 100.0).round() / 100.0)})
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100.0).round() / 100.0
}

fn source(error: &dyn StdError) -> String {
    error.source().map_or_else(String::new, |source| format!(": {source}{}", self::source(source)))
}

/// A job as it is stored.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    job: JobId,
    worker: Option<DaemonId>,
    completed: bool,
    error: Option<String>,
    build: Option<WorkspaceBuildId>,
    number: Option<i32>,
    cost: Option<i32>,
    state: Vec<u8>,
    lines: Vec<String>,
}

/// All jobs, and what is broken, in one snapshot each.
async fn stored(conn: &mut PgConnection) -> sqlx::Result<(Vec<Row>, Vec<String>)> {
    let rows = sqlx::query_as(
        "SELECT j.id AS job, j.worker_id AS worker, j.completed_at IS NOT NULL AS completed, j.error, b.id AS build,
             b.build_number AS number, b.daily_cost AS cost, coalesce(b.provisioner_state, '') AS state,
             ARRAY(SELECT l.output::text FROM provisioner_job_logs AS l WHERE l.job_id = j.id AND l.stage = $1) AS lines
         FROM provisioner_jobs AS j LEFT JOIN workspace_builds AS b ON b.job_id = j.id",
    )
    .bind(STAGE)
    .fetch_all(&mut *conn)
    .await?;
    let broken = sqlx::query_scalar(include_str!("../tests/it/golden/broken.sql")).fetch_all(conn).await?;
    Ok((rows, broken))
}

/// Owners, their workspaces and the template of these.
async fn prepare(conn: &mut PgConnection) -> Result<Vec<Actor>, Box<dyn StdError>> {
    migrate::up(conn, &migrate::MigrateOptions::default(), |_| {}).await?;
    let sql = format!(
        "{}
         INSERT INTO groups (id, name, organization_id, quota_allowance) VALUES (u(1), 'Everyone', u(1), {BUDGET});
         SELECT add_user(100 + n), add_member(1, 100 + n) FROM generate_series(0, {OWNERS} - 1) AS n;
         SELECT add_workspace(1000 + owner * 100 + n, u(100 + owner))
         FROM generate_series(0, {OWNERS} - 1) AS owner, generate_series(0, {WORKSPACES_PER_OWNER} - 1) AS n",
        include_str!("../tests/it/golden/rows.sql")
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await?;
    let mut actors = Vec::new();
    for n in 0..OWNERS {
        let permit = LoadActors::check(&Actor::system(System::Authenticator))?;
        actors.push(store::actors::load(conn, &permit, owner(n)).await?);
    }
    Ok(actors)
}

/// The lines of the input, from a thread that may wait for them.
fn input() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

async fn run(options: ConnectOptions) -> Result<(), Box<dyn StdError>> {
    let options = options.application_name("failover");
    let actors = prepare(&mut options.connect().await?).await?;
    let world = Rc::new(World {
        pool: Pool::new(options, pool::Settings::default()),
        actors,
        known: RefCell::default(),
        acknowledged: Cell::default(),
        unknown: RefCell::default(),
        reaped: Cell::default(),
        twice: RefCell::default(),
        surprises: RefCell::default(),
        last: Cell::new(Instant::now()),
        longest: Cell::default(),
        newest: Cell::default(),
        noted: Notify::new(),
        stopping: Cell::default(),
    });
    let (told, queue) = mpsc::channel(32);
    let queue = Rc::new(Mutex::new(queue));
    let mut workers = JoinSet::new();
    for n in 0..OWNERS {
        let (world, told) = (world.clone(), told.clone());
        workers.spawn_local(async move { world.build(n, told).await });
    }
    drop(told);
    for n in 1..=DAEMONS {
        let (world, queue) = (world.clone(), queue.clone());
        workers.spawn_local(async move { world.work(DaemonId(Uuid::from_u128(n)), queue).await });
    }
    let reaper = tokio::task::spawn_local({
        let world = world.clone();
        async move { world.reap().await }
    });

    println!("{}", json!({"ready": true}));
    let mut input = input();
    while let Some(line) = input.recv().await {
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("mark", _) => world.mark().await,
            ("killed", at) => world.resumed(at.parse()?).await,
            ("verify", _) => world.verify().await,
            ("stop", _) => {
                world.stopping.set(true);
                while let Some(ended) = workers.join_next().await {
                    ended?;
                }
                reaper.abort();
                world.totals().await
            }
            (other, _) => return Err(format!("what is {other:?}?").into()),
        };
        println!("{answer}");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let options = ConnectOptions::from_environment()?.ok_or("DATABASE_URL is not set")?;
    LocalSet::new().run_until(run(options)).await
}
