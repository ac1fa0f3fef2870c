//! What is written beside claims, on copies of the databases that are thrown away: whole lives of jobs, logs, quota
//! commits; and calls over the pool. Commits are durable.

use std::{
    fs,
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, ReadOrganizations, ReadQuota, System},
    demo::{self, Scale},
    model::{ByWorker, JobId, LogLevel, LogSource, NewJobLog, OrganizationId, Tags, UserId},
    pool::{self, Pool},
    sqlx::{self, Connection, PgConnection},
    store::{self, quota::CommitOutcome},
};
use futures_util::future::join_all;
use serde_json::Value;
use uuid::Uuid;

use super::{
    PAIRS,
    claims::{DAEMON, permit},
    reads,
    report::{LAYER, Ratios, Row, Table, label},
    server::{Schema, Server, indexes, run},
};

/// What a job's life is measured on.
pub const SCHEMAS: [&str; 3] =
    ["plain schema", "with the indexes of listing, positions, claims and reaper", "with all indexes"];
/// Lives per turn.
const LIVES: usize = 300;
pub const LIFE_WAL: &str = "WAL of a life";
pub const LIFE_PROCESSOR: &str = "processor time of a life";
/// How many clients commit quota for one owner.
const COMMITTERS: u32 = 64;
const COMMITTING: Duration = Duration::from_secs(1);
pub const COMMITS: &str = "quota commits of one owner, 64 clients";

pub fn per_second(count: usize, began: Instant) -> f64 {
    f64::from(u32::try_from(count).expect("few")) / began.elapsed().as_secs_f64()
}

/// Milliseconds.
pub fn per_call(count: usize, began: Instant) -> f64 {
    1e3 / per_second(count, began)
}

type Workspace = (Uuid, Uuid, Uuid, i32);

/// Copies of both databases of one scale.
pub struct Writer<'a> {
    server: &'a Server,
    scale: Scale,
    plain: String,
    layer: String,
    organization: OrganizationId,
    tags: Tags,
}

impl<'a> Writer<'a> {
    pub async fn new(server: &'a Server, scale: Scale) -> Self {
        let plain = server.copy(&server.database(Schema::Plain, scale).await, "writes_plain").await;
        let layer = server.copy(&server.database(Schema::Whole, scale).await, "writes_layer").await;
        let mut conn = server.connect(&layer).await;
        let organization = reads::organization(&mut conn).await;
        let tags: Value =
            sqlx::query_scalar("SELECT tags FROM provisioner_daemons WHERE tags ? 'env' ORDER BY id LIMIT 1")
                .fetch_one(&mut conn)
                .await
                .expect("a daemon");
        Self { server, scale, plain, layer, organization, tags: tags.into() }
    }

    pub async fn end(self) {
        self.server.drop(&self.plain).await;
        self.server.drop(&self.layer).await;
    }

    async fn both(&self) -> [PgConnection; 2] {
        [self.server.connect(&self.plain).await, self.server.connect(&self.layer).await]
    }

    /// The same plain statements on each schema, in turn: what its indexes cost.
    pub async fn lives(&self) -> Table {
        let core = self.server.copy(&self.layer, "writes_core").await;
        let mut conns = Vec::new();
        for database in [&self.plain, &core, &self.layer] {
            let mut conn = self.server.connect(database).await;
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.expect("a process");
            let workspaces = self.workspaces(&mut conn).await;
            conns.push((conn, pid, workspaces));
        }
        for index in indexes().iter().filter(|index| !is_core(index)) {
            run(&mut conns[1].0, &format!("DROP INDEX {index}")).await;
        }
        // Images of whole pages tell how long ago the last checkpoint was.
        self.write_full_pages(false).await;
        let units = [("a life", "ms"), (LIFE_WAL, "bytes"), (LIFE_PROCESSOR, "ms")];
        let mut rows = units.map(|(name, unit)| Row::new(name, unit, &SCHEMAS));
        for (conn, _, workspaces) in &mut conns {
            self.live(conn, workspaces, 100).await;
        }
        for _ in 0..PAIRS {
            let mut values = [const { Vec::new() }; 3];
            for (conn, pid, workspaces) in &mut conns {
                let (wal, processor, began) = (position(conn).await, processor_of(*pid), Instant::now());
                self.live(conn, workspaces, LIVES).await;
                let count = f64::from(u32::try_from(LIVES).expect("few"));
                values[0].push(per_call(LIVES, began));
                values[2].push((processor_of(*pid) - processor) / count);
                values[1].push((position(conn).await - wal) / count);
            }
            rows.iter_mut().zip(values).for_each(|(row, values)| row.push(values));
        }
        self.write_full_pages(true).await;
        drop(conns);
        self.server.drop(&core).await;
        let mut table = Table::new(format!("A job's life, {}", label(self.scale)), Ratios::TimesTheFirst, rows.into());
        "Each step a durable commit: inserted, its build inserted, acquired, three signs of life, its cost recorded, completed. \
         `full_page_writes` is off."
            .clone_into(&mut table.below);
        table
    }

    async fn write_full_pages(&self, on: bool) {
        let mut conn = self.server.connect("postgres").await;
        run(&mut conn, &format!("ALTER SYSTEM SET full_page_writes = {on}")).await;
        run(&mut conn, "SELECT pg_reload_conf()").await;
        let wanted = if on { "on" } else { "off" };
        // A new session has what the server has read; the checkpointer, which was told by then, applies it.
        while sqlx::query_scalar::<_, String>("SHOW full_page_writes").fetch_one(&mut conn).await.expect("it") != wanted
        {
            conn = self.server.connect("postgres").await;
        }
        run(&mut conn, "CHECKPOINT").await;
    }

    /// Some workspaces, with their template's version, owner, and newest build.
    async fn workspaces(&self, conn: &mut PgConnection) -> Vec<Workspace> {
        let chosen = "SELECT w.id, t.active_version_id, w.owner_id, coalesce((
                          SELECT max(build_number) FROM workspace_builds AS b WHERE b.workspace_id = w.id
                      ), 0)
                      FROM workspaces AS w INNER JOIN templates AS t ON t.id = w.template_id
                      WHERE w.organization_id = $1 AND w.deleted = false AND w.owner_id <> $2
                      ORDER BY md5(w.id::text) LIMIT 50";
        let chosen = sqlx::query_as(chosen).bind(self.organization).bind(UserId::PREBUILDS);
        chosen.fetch_all(conn).await.expect("workspaces")
    }

    /// So many lives of jobs that build these workspaces, each step a transaction of its own.
    async fn live(&self, conn: &mut PgConnection, workspaces: &mut [Workspace], lives: usize) {
        const SIGN_OF_LIFE: &str = "UPDATE provisioner_jobs SET updated_at = now() WHERE id = $1";
        for n in 0..lives {
            let (workspace, version, owner, number) = &mut workspaces[n % workspaces.len()];
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
                sqlx::query(SIGN_OF_LIFE).bind(job),
                sqlx::query(SIGN_OF_LIFE).bind(job),
                sqlx::query(SIGN_OF_LIFE).bind(job),
                sqlx::query("UPDATE workspace_builds SET daily_cost = 10 WHERE id = $1").bind(build),
                sqlx::query("UPDATE provisioner_jobs SET completed_at = now(), updated_at = now() WHERE id = $1").bind(job),
            ];
            for step in steps {
                step.execute(&mut *conn).await.expect("a step");
            }
        }
    }

    /// 200 lines at once, and each by itself.
    pub async fn logs(&self) -> Vec<Row> {
        let mut rows = ["log append, 200 lines", "log append, 200 lines, the others in one transaction"]
            .map(|name| Row::new(name, "ms", &["other way", LAYER]));
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
            for (row, (single, ours)) in rows.iter_mut().zip(times).filter(|_| n > 0) {
                row.push([single, ours]);
            }
        }
        rows.into()
    }

    /// One owner, as many builds as clients, each committing again and again.
    pub async fn quota_commits(&self) -> Row {
        let mut row = Row::new(COMMITS, "commits/s", &["other way", LAYER]);
        let jobs: Vec<Uuid> = (0..COMMITTERS).map(|n| Uuid::from_u128(0xc0_0000 + u128::from(n))).collect();
        let mut sides = Vec::new();
        for database in [&self.plain, &self.layer] {
            let mut conn = self.server.connect(database).await;
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
                conns.push(self.server.connect(database).await);
            }
            sides.push((*database == self.plain, conns));
        }
        for _ in 0..PAIRS {
            let mut rates = Vec::new();
            for (is_plain, conns) in &mut sides {
                let began = Instant::now();
                let commits = join_all(conns.iter_mut().zip(&jobs).map(async |(conn, job)| {
                    let mut commits = 0;
                    while began.elapsed() < COMMITTING {
                        let cost = 1 + commits % 10;
                        if *is_plain {
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
            row.push(rates);
        }
        row
    }
}

/// Whether the listing, positions, claims or the reaper need it.
fn is_core(index: &str) -> bool {
    index.starts_with("provisioner_jobs_") && index != "provisioner_jobs_organization_id_initiator_id_idx"
}

/// How much WAL was written up to now.
async fn position(conn: &mut PgConnection) -> f64 {
    let position = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";
    sqlx::query_scalar(position).fetch_one(conn).await.expect("a position")
}

/// How long a process has been on a processor, in milliseconds.
fn processor_of(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("the process");
    stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a time") / 1e6
}

/// The commit (domain: quota commit) in a serializable transaction; an error is a lost race.
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
async fn pooled(server: &Server, database: &str) -> Vec<Row> {
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
        drop(store::organizations::get(conn, &ReadOrganizations::check(&actor), organization).await.expect("it"));
    };
    let mut row = Row::new("quota::usage over the pool", "ms", &["other way", LAYER]);
    let statement = server.statement(&mut conn, usage).await;
    for _ in 0..PAIRS {
        let theirs = server.pgbench(database, "", &statement, 1, CALLS);
        let began = Instant::now();
        for _ in 0..CALLS {
            usage(&mut pool.get().await.expect("a connection")).await;
        }
        row.push([1e3 / theirs.per_second, per_call(CALLS, began)]);
    }
    let mut rows = vec![row];
    let mut row = Row::new("organizations::get over the pool", "ms", &["other way", LAYER]);
    let statement = server.statement(&mut conn, get).await;
    for _ in 0..PAIRS {
        let theirs = server.pgbench(database, "", &statement, 1, CALLS);
        let began = Instant::now();
        for _ in 0..CALLS {
            get(&mut pool.get().await.expect("a connection")).await;
        }
        row.push([1e3 / theirs.per_second, per_call(CALLS, began)]);
    }
    rows.push(row);
    rows
}

pub async fn measure(server: &Server, scale: Scale) -> Vec<Table> {
    let writer = Writer::new(server, scale).await;
    let lives = writer.lives().await;
    let mut rows = writer.logs().await;
    rows.push(writer.quota_commits().await);
    writer.end().await;
    rows.extend(pooled(server, &server.database(Schema::Whole, scale).await).await);
    let mut others = Table::new(format!("Other calls, {}", label(scale)), Ratios::TimesAsFast, rows);
    "The other way is: for logs, one insert per line; for quota, SERIALIZABLE with retries; over the pool, pgbench with the \
     identical statement."
        .clone_into(&mut others.below);
    vec![lives, others]
}
