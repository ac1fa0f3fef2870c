//! What is written, on copies of the databases that are thrown away: claims, whole lives of jobs, logs, quota commits.
//! Commits are durable, where nothing else is said.

use std::time::{Duration, Instant};

use coderdb::{
    authz::{Actor, ReadOrganizations, ReadQuota, RunJobs, System},
    demo,
    model::{
        ByWorker, Capabilities, DaemonId, JobId, LogLevel, LogSource, NewJobLog, OrganizationId, ProvisionerType, Tags,
        UserId,
    },
    pool::{self, Pool},
    sqlx::{self, Connection, PgConnection},
    store::{self, quota::CommitOutcome},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    PAIRS, plain,
    support::{Server, run},
};

const DAEMON: DaemonId = DaemonId(Uuid::from_u128(0xbe7c_0000_0000_4000_8000_0000_0000_0001));
/// How many clients commit quota for one owner.
const COMMITTERS: u32 = 64;
/// Claims of a daemon that can take few jobs, per turn.
const RARE_CALLS: u32 = 10;
const COMMITTING: Duration = Duration::from_secs(1);

/// Two ways to do something, in turn.
pub struct Pair {
    pub name: String,
    pub unit: &'static str,
    /// The names of both, and their values, one per round.
    pub ways: [(&'static str, Vec<f64>); 2],
    /// Whether more is better, such as claims per second.
    pub is_rate: bool,
}

impl Pair {
    fn new(name: impl Into<String>, unit: &'static str, ways: [&'static str; 2]) -> Self {
        Self { name: name.into(), unit, ways: ways.map(|name| (name, Vec::new())), is_rate: unit.ends_with("/s") }
    }

    fn push(&mut self, first: f64, second: f64) {
        self.ways[0].1.push(first);
        self.ways[1].1.push(second);
    }

    /// How many times as fast as the first way the second one is, per round.
    pub fn speedups(&self) -> Vec<f64> {
        let [(_, first), (_, second)] = &self.ways;
        let speedup = |(first, second): (&f64, &f64)| if self.is_rate { second / first } else { first / second };
        first.iter().zip(second).map(speedup).collect()
    }

    pub fn json(&self) -> Value {
        let [(one, ones), (other, others)] = &self.ways;
        json!({ "name": self.name, "unit": self.unit, "first": one, "second": other, "firsts": ones, "seconds": others })
    }
}

/// Copies of both databases of one scale.
pub struct Writer<'a> {
    server: &'a Server,
    plain: String,
    layer: String,
    organization: OrganizationId,
    /// The tags of some daemons of the organization, and how many jobs wait for them.
    tags: Tags,
    waiting: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Plain,
    Layer,
}

fn permit(organization: OrganizationId) -> RunJobs {
    RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DAEMON).expect("a daemon")
}

async fn claim(conn: &mut PgConnection, side: Side, organization: OrganizationId, tags: &Tags) -> Option<JobId> {
    let job = match side {
        Side::Plain => plain::acquire(conn, organization, DAEMON, tags).await,
        Side::Layer => {
            let daemon = Capabilities { provisioners: &[ProvisionerType::Terraform], tags };
            store::jobs::acquire(conn, &permit(organization), daemon, demo::ANCHOR).await.expect("a job, or none")
        }
    };
    job.map(|job| job.id)
}

/// Claimed jobs wait again.
async fn release(conn: &mut PgConnection) {
    let sql = format!("UPDATE provisioner_jobs SET started_at = NULL, worker_id = NULL WHERE worker_id = '{DAEMON}'");
    run(conn, &sql).await;
}

fn per_second(count: usize, began: Instant) -> f64 {
    f64::from(u32::try_from(count).expect("few")) / began.elapsed().as_secs_f64()
}

fn per_call(count: usize, began: Instant) -> f64 {
    1e3 / per_second(count, began)
}

impl<'a> Writer<'a> {
    pub async fn new(server: &'a Server, plain: &str, layer: &str) -> Self {
        let (plain, layer) = (server.copy(plain, "writes_plain").await, server.copy(layer, "writes_layer").await);
        let mut conn = server.connect(&layer).await;
        let waiting = "SELECT d.organization_id, d.tags, (
                           SELECT count(*) FROM provisioner_jobs AS j
                           WHERE j.job_status = 'pending' AND j.organization_id = d.organization_id AND j.tags = d.tags
                       )
                       FROM provisioner_daemons AS d
                       INNER JOIN organizations AS o ON o.id = d.organization_id AND o.name = 'engineering'
                       WHERE d.tags ? 'env'
                       ORDER BY d.id LIMIT 1";
        let (organization, tags, waiting): (OrganizationId, Value, i64) =
            sqlx::query_as(waiting).fetch_one(&mut conn).await.expect("a daemon");
        let waiting = usize::try_from(waiting).expect("few");
        Self { server, plain, layer, organization, tags: tags.into(), waiting }
    }

    pub async fn end(self) {
        self.server.drop(&self.plain).await;
        self.server.drop(&self.layer).await;
    }

    async fn connect(&self, side: Side) -> PgConnection {
        self.server.connect(if side == Side::Plain { &self.plain } else { &self.layer }).await
    }

    async fn both(&self) -> [PgConnection; 2] {
        [self.connect(Side::Plain).await, self.connect(Side::Layer).await]
    }

    /// Claims by so many clients; both sides take the same jobs in the same order.
    pub async fn acquire(&self, clients: usize) -> Pair {
        let name = if clients == 1 { "acquire, 1 client".to_owned() } else { format!("acquire, {clients} clients") };
        let mut pair = Pair::new(name, "claims/s", ["plain SQL", "coderdb"]);
        let mut sides = Vec::new();
        for side in [Side::Plain, Side::Layer] {
            let mut conns = Vec::new();
            for _ in 0..clients {
                conns.push(self.connect(side).await);
            }
            sides.push((side, conns));
        }
        let mut same = Vec::new();
        for (side, conns) in &mut sides {
            let mut taken = Vec::new();
            for _ in 0..10.min(self.waiting / 2) {
                taken.push(claim(&mut conns[0], *side, self.organization, &self.tags).await);
            }
            same.push(taken);
            release(&mut conns[0]).await;
        }
        assert!(same[0] == same[1] && same[0][0].is_some(), "acquire: not the same jobs");
        for _ in 0..PAIRS {
            let mut rates = Vec::new();
            for (side, conns) in &mut sides {
                let all = if *side == Side::Plain { 16 + 3 * clients } else { 100 * clients.min(4) };
                let each = (all.min(self.waiting / 2) / clients).max(1);
                let began = Instant::now();
                let taken = join_all(conns.iter_mut().map(async |conn| {
                    for _ in 0..each {
                        claim(conn, *side, self.organization, &self.tags).await.expect("enough jobs");
                    }
                }));
                taken.await;
                rates.push(per_second(each * clients, began));
                release(&mut conns[0]).await;
            }
            pair.push(rates[0], rates[1]);
        }
        pair
    }

    /// A daemon that can take only the job at the end of the queue, and one that can take none.
    pub async fn acquire_rare(&self) -> [Pair; 2] {
        let mut pairs = ["acquire, tags of the last job only", "acquire, tags of no job"]
            .map(|name| Pair::new(name, "ms", ["plain SQL", "coderdb"]));
        let tags =
            |value| -> Tags { [("scope", "organization"), ("owner", ""), ("bench", value)].into_iter().collect() };
        let mut conns = self.both().await;
        for conn in &mut conns {
            let last = format!(
                "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                     storage_method, type, input, file_id, tags)
                 SELECT gen_random_uuid(), now(), now(), '{}', '{}', 'terraform', 'file', 'template_version_dry_run', '{{}}',
                     gen_random_uuid(), '{{\"scope\": \"organization\", \"owner\": \"\", \"bench\": \"last\"}}'",
                self.organization,
                UserId::PREBUILDS,
            );
            run(conn, &last).await;
        }
        for _ in 0..PAIRS {
            for (pair, (value, found)) in pairs.iter_mut().zip([("last", true), ("nothing", false)]) {
                let mut times = Vec::new();
                for (side, conn) in [Side::Plain, Side::Layer].into_iter().zip(&mut conns) {
                    let mut time = Duration::ZERO;
                    for _ in 0..RARE_CALLS {
                        let began = Instant::now();
                        let job = claim(conn, side, self.organization, &tags(value)).await;
                        time += began.elapsed();
                        assert_eq!(job.is_some(), found, "acquire: not the same jobs");
                        if found {
                            release(conn).await;
                        }
                    }
                    times.push(time.as_secs_f64() * 1e3 / f64::from(RARE_CALLS));
                }
                pair.push(times[0], times[1]);
            }
        }
        for conn in &mut conns {
            run(conn, "DELETE FROM provisioner_jobs WHERE tags ->> 'bench' = 'last'").await;
        }
        pairs
    }

    /// Both over a new connection, which has to plan.
    pub async fn acquire_and_pgbench(&self) -> Pair {
        let mut pair = Pair::new("acquire, identical statement", "ms", ["pgbench", "coderdb"]);
        let calls = 400.min(self.waiting / 2);
        let mut keeper = self.connect(Side::Layer).await;
        let call = async |conn: &mut PgConnection| {
            claim(conn, Side::Layer, self.organization, &self.tags).await.expect("enough jobs");
        };
        let statement = self.server.statement(&mut keeper, call).await;
        release(&mut keeper).await;
        for _ in 0..PAIRS {
            let theirs = self.server.pgbench(&self.layer, &statement, calls);
            release(&mut keeper).await;
            let mut conn = self.connect(Side::Layer).await;
            let began = Instant::now();
            for _ in 0..calls {
                call(&mut conn).await;
            }
            pair.push(theirs, per_call(calls, began));
            release(&mut keeper).await;
        }
        pair
    }

    /// Many claims in a row, and the same while an idle transaction keeps everything from being cleaned up.
    pub async fn acquire_pinned(&self) -> Pair {
        let mut pair = Pair::new("acquire, while nothing can be cleaned up", "claims/s", ["otherwise", "then"]);
        let claims = 3_000.min(self.waiting * 9 / 10);
        let mut conn = self.connect(Side::Layer).await;
        for _ in 0..PAIRS {
            let mut rates = Vec::new();
            for is_pinned in [false, true] {
                // Both begin with the same clean tables.
                run(&mut conn, "VACUUM (INDEX_CLEANUP ON) provisioner_jobs").await;
                run(&mut conn, "VACUUM").await;
                let mut idle = self.connect(Side::Layer).await;
                if is_pinned {
                    run(&mut idle, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
                }
                let began = Instant::now();
                for _ in 0..claims {
                    claim(&mut conn, Side::Layer, self.organization, &self.tags).await.expect("enough jobs");
                }
                rates.push(per_second(claims, began));
                idle.close().await.expect("a clean end");
                release(&mut conn).await;
            }
            pair.push(rates[0], rates[1]);
        }
        pair
    }

    /// The same plain statements on both schemas: what all indexes and triggers cost together. Durable, and not; and the
    /// log that both write.
    pub async fn lives(&self) -> Vec<Pair> {
        let mut conns = self.both().await;
        let mut pairs = Vec::new();
        for (name, commit) in
            [("insert and complete a job", "on"), ("insert and complete a job, commits not awaited", "off")]
        {
            let mut pair = Pair::new(name, "ms", ["plain schema", "coderdb"]);
            for conn in &mut conns {
                run(conn, &format!("SET synchronous_commit = {commit}")).await;
                self.live(conn, 100).await;
            }
            for _ in 0..PAIRS {
                let mut times = Vec::new();
                for conn in &mut conns {
                    let began = Instant::now();
                    self.live(conn, 100).await;
                    times.push(per_call(100, began));
                }
                pair.push(times[0], times[1]);
            }
            pairs.push(pair);
        }
        // Images of whole pages depend on when the last checkpoint was.
        let mut pair = Pair::new("insert and complete a job, log written", "bytes", ["plain schema", "coderdb"]);
        let set = async |conn: &mut PgConnection, value: &str| {
            run(conn, &format!("ALTER SYSTEM SET full_page_writes = {value}")).await;
            run(conn, "SELECT pg_reload_conf()").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        set(&mut conns[0], "off").await;
        for _ in 0..PAIRS {
            let mut bytes = Vec::new();
            for conn in &mut conns {
                let position = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";
                let before: f64 = sqlx::query_scalar(position).fetch_one(&mut *conn).await.expect("a position");
                self.live(conn, 100).await;
                let after: f64 = sqlx::query_scalar(position).fetch_one(&mut *conn).await.expect("a position");
                bytes.push((after - before) / 100.0);
            }
            pair.push(bytes[0], bytes[1]);
        }
        set(&mut conns[0], "on").await;
        pairs.push(pair);
        pairs
    }

    /// So many lives of jobs that build workspaces, each step a transaction of its own.
    async fn live(&self, conn: &mut PgConnection, lives: usize) {
        let chosen = "SELECT w.id, t.active_version_id, w.owner_id, coalesce((
                          SELECT max(build_number) FROM workspace_builds AS b WHERE b.workspace_id = w.id
                      ), 0)
                      FROM workspaces AS w INNER JOIN templates AS t ON t.id = w.template_id
                      WHERE w.organization_id = $1 AND w.deleted = false AND w.owner_id <> $2
                      ORDER BY md5(w.id::text) LIMIT 50";
        let mut chosen: Vec<(Uuid, Uuid, Uuid, i32)> = sqlx::query_as(chosen)
            .bind(self.organization)
            .bind(UserId::PREBUILDS)
            .fetch_all(&mut *conn)
            .await
            .expect("workspaces");
        let count = chosen.len();
        for n in 0..lives {
            let (workspace, version, owner, number) = &mut chosen[n % count];
            *number += 1;
            let (job, build) = (Uuid::from_u128(fastrand::u128(..)), Uuid::from_u128(fastrand::u128(..)));
            let steps = [
                sqlx::query(
                    "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                         storage_method, type, input, file_id, tags)
                     VALUES ($1, now(), now(), $2, $3, 'terraform', 'file', 'workspace_build',
                         jsonb_build_object('workspace_build_id', $4), $1, $5)",
                )
                .bind(job)
                .bind(self.organization)
                .bind(*owner)
                .bind(build)
                .bind(Value::from_iter(self.tags.0.clone())),
                sqlx::query(
                    "INSERT INTO workspace_builds (id, created_at, updated_at, workspace_id, template_version_id,
                         build_number, transition, initiator_id, job_id)
                     VALUES ($1, now(), now(), $2, $3, $4, 'start', $5, $6)",
                )
                .bind(build)
                .bind(*workspace)
                .bind(*version)
                .bind(*number)
                .bind(*owner)
                .bind(job),
                sqlx::query(
                    "UPDATE provisioner_jobs SET started_at = now(), updated_at = now(), worker_id = $2 WHERE id = $1",
                )
                .bind(job)
                .bind(DAEMON),
                sqlx::query("UPDATE workspace_builds SET daily_cost = 10 WHERE id = $1").bind(build),
                sqlx::query("UPDATE provisioner_jobs SET completed_at = now(), updated_at = now() WHERE id = $1").bind(job),
            ];
            for step in steps {
                step.execute(&mut *conn).await.expect("a step");
            }
        }
    }

    /// 200 lines at once, and each by itself.
    pub async fn logs(&self) -> [Pair; 2] {
        let single = ["single inserts", "coderdb"];
        let mut pairs = [
            Pair::new("log append, 200 lines", "ms", single),
            Pair::new("log append, 200 lines, single inserts in one transaction", "ms", single),
        ];
        let mut conns = self.both().await;
        let jobs: Vec<Uuid> = (0..=PAIRS).map(|_| Uuid::from_u128(fastrand::u128(..))).collect();
        for conn in &mut conns {
            let insert = "INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, organization_id, initiator_id,
                              provisioner, storage_method, type, input, file_id, worker_id)
                          SELECT id, now(), now(), now(), $2, $3, 'terraform', 'file', 'template_version_import', '{}', id, $3
                          FROM unnest($1::uuid[]) AS id";
            let insert = sqlx::query(insert).bind(&jobs).bind(self.organization).bind(DAEMON);
            insert.execute(conn).await.expect("the jobs");
        }
        let line = |n| NewJobLog {
            created_at: demo::ANCHOR,
            source: LogSource::Provisioner,
            level: LogLevel::Info,
            stage: "Starting workspace".to_owned(),
            output: format!("aws_instance.dev: Still creating... [{n}s elapsed]"),
        };
        let lines: Vec<NewJobLog> = (0..200).map(line).collect();
        for (n, job) in jobs.into_iter().enumerate() {
            let [theirs, ours] = &mut conns;
            let mut times = Vec::new();
            for is_one in [false, true] {
                let began = Instant::now();
                if is_one {
                    run(theirs, "BEGIN").await;
                }
                for line in &lines {
                    let insert = sqlx::query(
                        "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
                         VALUES ($1, $2, $3::text::log_source, $4::text::log_level, $5, $6)",
                    );
                    let insert =
                        insert.bind(job).bind(line.created_at).bind(line.source.as_str()).bind(line.level.as_str());
                    insert.bind(&line.stage).bind(&line.output).execute(&mut *theirs).await.expect("a line");
                }
                if is_one {
                    run(theirs, "COMMIT").await;
                }
                let single = began.elapsed().as_secs_f64() * 1e3;
                let began = Instant::now();
                let appended = store::job_logs::append(ours, &permit(self.organization), JobId(job), &lines).await;
                times.push((single, began.elapsed().as_secs_f64() * 1e3));
                assert!(matches!(appended, Ok(ByWorker::Done(_))));
            }
            // The first round prepares the statements.
            for (pair, (single, ours)) in pairs.iter_mut().zip(times).filter(|_| n > 0) {
                pair.push(single, ours);
            }
        }
        pairs
    }

    /// One owner, as many builds as clients, each committing again and again.
    pub async fn quota_commits(&self) -> Pair {
        let mut pair = Pair::new(
            format!("quota commits of one owner, {COMMITTERS} clients"),
            "commits/s",
            ["SERIALIZABLE with retries", "coderdb"],
        );
        let jobs: Vec<Uuid> = (0..COMMITTERS).map(|n| Uuid::from_u128(0xc0_0000 + u128::from(n))).collect();
        let mut sides = Vec::new();
        for side in [Side::Plain, Side::Layer] {
            let mut conn = self.connect(side).await;
            let rows = format!(
                "INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, rbac_roles)
                 VALUES ('{DAEMON}', 'bench@example.com', 'bench', '', now(), now(), 'active', '{{}}');
                 INSERT INTO organization_members (user_id, organization_id, created_at, updated_at)
                 VALUES ('{DAEMON}', '{organization}', now(), now());
                 INSERT INTO groups (id, name, organization_id, quota_allowance)
                 VALUES ('{DAEMON}', 'bench', '{organization}', 1000000000);
                 INSERT INTO group_members (user_id, group_id) VALUES ('{DAEMON}', '{DAEMON}');
                 INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, organization_id, initiator_id,
                     provisioner, storage_method, type, input, file_id, worker_id)
                 SELECT lpad(to_hex(x'c00000'::integer + n), 32, '0')::uuid, now(), now(), now(), '{organization}', '{DAEMON}',
                     'terraform', 'file', 'workspace_build', '{{}}', '{DAEMON}', '{DAEMON}'
                 FROM generate_series(0, {COMMITTERS} - 1) AS n;
                 INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
                 SELECT lpad(to_hex(x'c00000'::integer + n), 32, '0')::uuid, now(), now(), '{DAEMON}', '{organization}',
                     (SELECT id FROM templates WHERE organization_id = '{organization}' ORDER BY id LIMIT 1), 'bench-' || n
                 FROM generate_series(0, {COMMITTERS} - 1) AS n;
                 INSERT INTO workspace_builds (id, created_at, updated_at, workspace_id, template_version_id, build_number,
                     transition, initiator_id, job_id)
                 SELECT w.id, now(), now(), w.id, t.active_version_id, 1, 'start', '{DAEMON}', w.id
                 FROM workspaces AS w INNER JOIN templates AS t ON t.id = w.template_id
                 WHERE w.owner_id = '{DAEMON}';
                 ANALYZE workspaces, workspace_builds",
                organization = self.organization
            );
            run(&mut conn, &rows).await;
            let mut conns = Vec::new();
            for _ in 0..COMMITTERS {
                conns.push(self.connect(side).await);
            }
            sides.push((side, conns));
        }
        for _ in 0..PAIRS {
            let mut rates = Vec::new();
            for (side, conns) in &mut sides {
                let began = Instant::now();
                let commits = join_all(conns.iter_mut().zip(&jobs).map(async |(conn, job)| {
                    let mut commits = 0;
                    while began.elapsed() < COMMITTING {
                        let cost = 1 + commits % 10;
                        if *side == Side::Plain {
                            while commit(conn, self.organization, *job, cost).await.is_err() {}
                        } else {
                            let permit = permit(self.organization);
                            let outcome = store::quota::commit(conn, &permit, JobId(*job), cost.into()).await;
                            assert!(matches!(outcome, Ok(CommitOutcome::Accepted(_))), "{outcome:?}");
                        }
                        commits += 1;
                    }
                    usize::try_from(commits).expect("not negative")
                }));
                rates.push(per_second(commits.await.into_iter().sum(), began));
            }
            pair.push(rates[0], rates[1]);
        }
        pair
    }
}

/// Domain 8.4 in the transaction that it describes; an error is a lost race.
async fn commit(
    conn: &mut PgConnection,
    organization: OrganizationId,
    job: Uuid,
    cost: i32,
) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    let build: (Uuid, Uuid) = sqlx::query_as(
        "SELECT b.id, w.owner_id
         FROM provisioner_jobs AS j
         INNER JOIN workspace_builds AS b ON b.job_id = j.id
         INNER JOIN workspaces AS w ON w.id = b.workspace_id
         WHERE j.id = $1 AND j.worker_id = $2",
    )
    .bind(job)
    .bind(DAEMON)
    .fetch_one(&mut *tx)
    .await?;
    let mut sums = Vec::new();
    for sql in [include_str!("plain/consumed.sql"), include_str!("plain/allowance.sql")] {
        let sum: i64 = sqlx::query_scalar(sql).bind(build.1).bind(organization).fetch_one(&mut *tx).await?;
        sums.push(sum);
    }
    // A first build is always an increase.
    if sums[0] + i64::from(cost) <= sums[1] {
        let update = sqlx::query("UPDATE workspace_builds SET daily_cost = $2 WHERE id = $1").bind(build.0).bind(cost);
        update.execute(&mut *tx).await?;
    }
    tx.commit().await
}

/// A call over the pool, and the statement that it sends in pgbench. On the database itself: nothing is written.
pub async fn pooled(server: &Server, database: &str) -> Vec<Pair> {
    const CALLS: usize = 2_000;
    let actor = Actor::system(System::Operator);
    let mut conn = server.connect(database).await;
    let member = "SELECT m.organization_id, m.user_id FROM organization_members AS m
                  INNER JOIN organizations AS o ON o.id = m.organization_id AND o.name = 'engineering'
                  ORDER BY m.user_id LIMIT 1";
    let (organization, user): (OrganizationId, UserId) =
        sqlx::query_as(member).fetch_one(&mut conn).await.expect("a member");
    let pool = Pool::new(server.options(database), pool::Settings::default());
    let quota = ReadQuota::check(&actor, user, organization).expect("an operator");
    let usage = async |conn: &mut PgConnection| {
        let _ = store::quota::usage(conn, &quota).await.expect("the quota");
    };
    let get = async |conn: &mut PgConnection| {
        drop(store::organizations::get(conn, &ReadOrganizations::of(&actor), organization).await.expect("it"));
    };
    let mut pairs = Vec::new();
    let mut pair = Pair::new("quota::usage over the pool, identical statement", "ms", ["pgbench", "coderdb"]);
    let statement = server.statement(&mut conn, usage).await;
    for _ in 0..PAIRS {
        let theirs = server.pgbench(database, &statement, CALLS);
        let began = Instant::now();
        for _ in 0..CALLS {
            usage(&mut pool.get().await.expect("a connection")).await;
        }
        pair.push(theirs, per_call(CALLS, began));
    }
    pairs.push(pair);
    let mut pair = Pair::new("organizations::get over the pool, identical statement", "ms", ["pgbench", "coderdb"]);
    let statement = server.statement(&mut conn, get).await;
    for _ in 0..PAIRS {
        let theirs = server.pgbench(database, &statement, CALLS);
        let began = Instant::now();
        for _ in 0..CALLS {
            get(&mut pool.get().await.expect("a connection")).await;
        }
        pair.push(theirs, per_call(CALLS, began));
    }
    pairs.push(pair);
    pairs
}
