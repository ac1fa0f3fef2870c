//! Claims, on copies of the databases. Commits are durable. pgbench sends the statements, as the server says that the
//! library and the plain SQL send them, so that the client is not the limit.

use std::time::Instant;

use coderdb::{
    authz::{Actor, RunJobs, System},
    demo::{self, Regime, Scale},
    model::{Capabilities, DaemonId, JobId, OrganizationId, ProvisionerType, Tags, UserId},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    PAIRS, plain, reads,
    report::{LAYER, Ratios, Row, SIDES, Table, label, waiting as with_waiting},
    server::{Pace, Schema, Server, Statement, run},
    states::crowd,
};

pub const TITLE: &str = "Claims of one client";
pub const DAEMON: DaemonId = DaemonId(Uuid::from_u128(0xbe7c_0000_0000_4000_8000_0000_0000_0001));
/// For the plain SQL: the queue of each organization in its order.
const INDEX: &str = "provisioner_jobs (organization_id, (initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'), created_at, id) \
                     WHERE started_at IS NULL AND completed_at IS NULL";
/// Milliseconds that a turn takes, unless that is less than [`LEAST`] calls or more than [`MOST`].
const TURN: f64 = 300.0;
const LEAST: f64 = 5.0;
const MOST: f64 = 1_000.0;
/// How many claims are made in a row beside an old snapshot, and how many of them are the last ones.
const ROW: usize = 6_000;
const LAST: usize = 1_000;
const ROW_PAIRS: usize = 2;

pub fn permit(organization: OrganizationId) -> RunJobs {
    RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DAEMON).expect("a daemon")
}

/// A queue of one side.
struct Queue {
    side: &'static str,
    database: String,
    organization: OrganizationId,
    conn: PgConnection,
}

impl Queue {
    /// A copy in which so many jobs wait.
    async fn new(server: &Server, side: &'static str, scale: Scale, waiting: u64) -> Self {
        let schema = if side == LAYER { Schema::Whole } else { Schema::Plain };
        let calm = Scale { regime: Regime::Calm, ..scale };
        let of = if waiting == calm.pending() { calm } else { scale };
        let of = server.database(schema, of).await;
        let name = format!("claims_{waiting}_{}", SIDES.iter().position(|name| *name == side).expect("a side"));
        let database = server.copy(&of, &name).await;
        let mut conn = server.connect(&database).await;
        let organization = reads::organization(&mut conn).await;
        if waiting != scale.pending() && waiting != calm.pending() {
            let end = format!(
                "UPDATE provisioner_jobs SET started_at = created_at, completed_at = created_at WHERE id IN (
                     SELECT id FROM provisioner_jobs WHERE started_at IS NULL AND completed_at IS NULL
                     ORDER BY md5(id::text) OFFSET {waiting}
                 )"
            );
            run(&mut conn, &end).await;
        }
        if side == SIDES[1] {
            run(&mut conn, &format!("CREATE INDEX ON {INDEX}")).await;
        }
        run(&mut conn, "VACUUM (ANALYZE, INDEX_CLEANUP ON) provisioner_jobs").await;
        Self { side, database, organization, conn }
    }

    async fn claim(&mut self, tags: &Tags) -> Option<JobId> {
        claim(&mut self.conn, self.side, self.organization, tags).await
    }

    async fn statement(&mut self, server: &Server, tags: &Tags) -> Statement {
        let (side, organization) = (self.side, self.organization);
        server
            .statement(&mut self.conn, async |conn| {
                let _ = claim(conn, side, organization, tags).await;
            })
            .await
    }

    /// How many jobs the daemon has.
    async fn taken(&mut self) -> usize {
        let taken = format!("SELECT count(*) FROM provisioner_jobs WHERE worker_id = '{DAEMON}'");
        let taken: i64 = sqlx::query_scalar(AssertSqlSafe(taken)).fetch_one(&mut self.conn).await.expect("a count");
        usize::try_from(taken).expect("not negative")
    }

    /// A statement after which so many more jobs wait, at the end of the queue.
    fn arrivals(&self, tags: &Tags, jobs: usize) -> String {
        format!(
            "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                 storage_method, type, input, file_id, tags)
             SELECT gen_random_uuid(), now() + interval '50 years', now(), '{}', '{}', 'terraform', 'file',
                 'template_version_dry_run', '{{}}', '{DAEMON}', '{}'
             FROM generate_series(1, {jobs})",
            self.organization,
            UserId::PREBUILDS,
            Value::from_iter(tags.0.clone())
        )
    }

    async fn arrive(&mut self, tags: &Tags, jobs: usize) {
        let arrivals = self.arrivals(tags, jobs);
        run(&mut self.conn, &arrivals).await;
    }
}

async fn claim(conn: &mut PgConnection, side: &str, organization: OrganizationId, tags: &Tags) -> Option<JobId> {
    let job = if side == LAYER {
        let daemon = Capabilities { provisioners: &[ProvisionerType::Terraform], tags };
        store::jobs::acquire(conn, &permit(organization), daemon, demo::ANCHOR).await.expect("a job, or none")
    } else {
        plain::acquire(conn, organization, DAEMON, tags).await
    };
    job.map(|job| job.id)
}

/// The tags of the daemons for which most jobs wait, and how many.
async fn tags(queue: &mut Queue) -> (Tags, usize) {
    let most = "SELECT d.tags, count(*)
                FROM (SELECT DISTINCT organization_id, tags FROM provisioner_daemons WHERE organization_id = $1) AS d
                INNER JOIN provisioner_jobs AS j
                    ON j.job_status = 'pending' AND j.organization_id = d.organization_id
                    AND provisioner_tagset_contains(d.tags, j.tags)
                GROUP BY d.tags ORDER BY 2 DESC, 1 LIMIT 1";
    let most = sqlx::query_as(most).bind(queue.organization);
    let (tags, waiting): (Value, i64) = most.fetch_one(&mut queue.conn).await.expect("a daemon");
    (tags.into(), usize::try_from(waiting).expect("not negative"))
}

/// A claim of each queue in turn: claims per second of one client. Where jobs arrive, one does before each claim, so that
/// as many wait as before.
async fn pace(server: &Server, name: &str, queues: &mut [Queue], tags: &Tags, arrive: bool) -> Row {
    let names: Vec<_> = queues.iter().map(|queue| queue.side).collect();
    let mut row = Row::new(name, "claims/s", &names);
    let mut turns = Vec::new();
    for queue in &mut *queues {
        let before = if arrive { format!("{};", queue.arrivals(tags, 1)) } else { String::new() };
        run(&mut queue.conn, &before).await;
        let statement = queue.statement(server, tags).await;
        let trial = server.pgbench(&queue.database, &before, &statement, 1, 8);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between the least and the most")]
        turns.push((before, statement, (TURN / trial.milliseconds).clamp(LEAST, MOST) as usize));
    }
    for _ in 0..PAIRS {
        let mut rates = Vec::new();
        for (queue, (before, statement, calls)) in queues.iter_mut().zip(&turns) {
            let taken = queue.taken().await;
            let Pace { milliseconds, .. } = server.pgbench(&queue.database, before, statement, 1, *calls);
            assert_eq!(queue.taken().await - taken, if arrive { *calls } else { 0 }, "{name}: claims");
            rates.push(1e3 / milliseconds);
        }
        row.push(rates);
    }
    row
}

/// One claim after the other until many jobs are gone, by so many clients of each queue in turn.
async fn in_a_row(server: &Server, queues: &mut [Queue], tags: &Tags, waiting: usize, clients: usize) -> Row {
    let name = if clients == 1 { "in a row, 1 client".to_owned() } else { format!("in a row, {clients} clients") };
    let mut row = Row::new(name, "claims/s", &SIDES);
    let mut turns = Vec::new();
    for queue in &mut *queues {
        let statement = queue.statement(server, tags).await;
        let trial = server.pgbench(&queue.database, "", &statement, 1, 8);
        let most = if trial.milliseconds > 5.0 { 24 } else { 1_000 + 250 * clients };
        queue.arrive(tags, 9).await;
        turns.push((statement, most.min(waiting * 9 / 10) / clients));
    }
    for _ in 0..PAIRS {
        let mut rates = Vec::new();
        for (queue, (statement, calls)) in queues.iter_mut().zip(&turns) {
            let taken = queue.taken().await;
            rates.push(server.pgbench(&queue.database, "", statement, clients, *calls).per_second);
            assert_eq!(queue.taken().await - taken, calls * clients, "{clients} clients: claims");
            queue.arrive(tags, calls * clients).await;
        }
        row.push(rates);
    }
    row
}

/// Many claims in a row, and the same while an idle transaction keeps what they leave from being cleaned up.
async fn beside_an_old_snapshot(server: &Server, queue: &mut Queue, tags: &Tags, waiting: usize) -> Vec<Row> {
    let claims = ROW.min(waiting * 9 / 10);
    let last = LAST.min(claims / 2);
    let sides = ["otherwise", "beside an old snapshot"];
    let names = [format!("the first {} of {claims} claims in a row", claims - last), format!("the last {last}")];
    let mut rows = names.map(|name| Row::new(name, "claims/s", &sides));
    let statement = queue.statement(server, tags).await;
    for _ in 0..ROW_PAIRS {
        let mut rates = Vec::new();
        for is_pinned in [false, true] {
            // Both begin with clean tables.
            run(&mut queue.conn, "VACUUM (INDEX_CLEANUP ON) provisioner_jobs").await;
            let mut idle = server.connect(&queue.database).await;
            if is_pinned {
                run(&mut idle, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM organizations").await;
            }
            let row = [claims - last, last]
                .map(|claims| server.pgbench(&queue.database, "", &statement, 1, claims).per_second);
            rates.push(row);
            idle.close().await.expect("a clean end");
            queue.arrive(tags, claims).await;
        }
        rows.iter_mut().enumerate().for_each(|(n, row)| row.push([rates[0][n], rates[1][n]]));
    }
    rows.into()
}

/// The library over a new connection, which has to plan, as that of pgbench.
async fn library(server: &Server, queue: &mut Queue, tags: &Tags, waiting: usize) -> Row {
    let mut row = Row::new("a claim", "ms", &["pgbench", LAYER]);
    let calls = 500.min(waiting / 3);
    let statement = queue.statement(server, tags).await;
    for _ in 0..PAIRS {
        let Pace { per_second, .. } = server.pgbench(&queue.database, "", &statement, 1, calls);
        let mut conn = server.connect(&queue.database).await;
        let began = Instant::now();
        for _ in 0..calls {
            claim(&mut conn, LAYER, queue.organization, tags).await.expect("enough jobs");
        }
        row.push([1e3 / per_second, super::writes::per_call(calls, began)]);
        queue.arrive(tags, calls * 2).await;
    }
    row
}

pub async fn measure(server: &Server, scale: Scale) -> Vec<Table> {
    let mut queues = Vec::new();
    for waiting in [200, 5_000].into_iter().filter(|waiting| *waiting < scale.pending()).chain([scale.pending()]) {
        let mut sides = Vec::new();
        // Of the plain SQL, the ends are enough.
        for side in SIDES.into_iter().filter(|side| waiting != 5_000 || *side == LAYER) {
            sides.push(Queue::new(server, side, scale, waiting).await);
        }
        queues.push((waiting, sides));
    }
    eprintln!("claims: copies made");
    let (longest, mut all) = queues.pop().expect("the whole queue");
    let (tags, waiting) = tags(&mut all[0]).await;
    let mut same = Vec::new();
    for queue in &mut all {
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(queue.claim(&tags).await);
        }
        same.push(taken);
    }
    assert!(same.iter().all(|taken| *taken == same[0]) && same[0][9].is_some(), "claims: not the same jobs: {same:?}");

    let mut rows = Vec::new();
    for (jobs, sides) in &mut queues {
        rows.push(pace(server, &with_waiting(*jobs), sides, &tags, true).await);
    }
    rows.push(pace(server, &with_waiting(longest), &mut all, &tags, true).await);
    let bench = |value| Tags::from_iter([("scope", "organization"), ("owner", ""), ("bench", value)]);
    rows.push(pace(server, "tags of the last job only", &mut all, &bench("last"), true).await);
    rows.push(pace(server, "tags of no job", &mut all, &bench("nothing"), false).await);

    let in_rows =
        vec![in_a_row(server, &mut all, &tags, waiting, 1).await, in_a_row(server, &mut all, &tags, waiting, 8).await];
    let library = vec![library(server, &mut all[2], &tags, waiting).await];
    let pinned = beside_an_old_snapshot(server, &mut all[2], &tags, waiting).await;

    for queue in &mut all {
        crowd(&mut queue.conn, queue.organization).await;
    }
    rows.push(pace(server, "5,000 more tag sets", &mut all, &tags, true).await);
    let own = Uuid::from_u128(0xbec0_0001).to_string();
    let own = Tags::from_iter([("scope", "user"), ("owner", own.as_str())]);
    rows.push(pace(server, "one of 5,000 more tag sets", &mut all, &own, true).await);

    for queue in queues.into_iter().flat_map(|(_, sides)| sides).chain(all) {
        drop(queue.conn);
        server.drop(&queue.database).await;
    }
    let mut claims = Table::new(format!("{TITLE}, {}", label(scale)), Ratios::TimesAsFast, rows);
    claims.below = format!("One job arrives for each that is taken. The best index: `{INDEX}`.");
    vec![
        claims,
        Table::new(format!("Claims in a row, {}", label(scale)), Ratios::TimesAsFast, in_rows),
        Table::new(format!("A claim of the library, {}", label(scale)), Ratios::TimesAsFast, library),
        Table::new(format!("Claims beside an old snapshot, {}", label(scale)), Ratios::TimesTheFirst, pinned),
    ]
}
