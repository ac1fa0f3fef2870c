//! A snapshot of the queue: what it costs the server, and what a position out of it costs.

use std::{hint::black_box, time::Instant};

use coderdb::{
    authz::{Actor, ReadQueue, System},
    demo::{self, Scale},
    model::JobId,
    sqlx::{self, PgConnection},
    store::{jobs::STALE_INTERVAL, queue},
};

use super::{
    PAIRS,
    report::{LAYER, Ratios, Row, Table, label},
    server::{Schema, Server},
    writes::per_call,
};

const SNAPSHOTS: usize = 10;

pub async fn measure(server: &Server, scale: Scale) -> Table {
    let layer = server.database(Schema::Whole, scale).await;
    let mut conn = server.connect(&layer).await;
    let permit = ReadQueue::check(&Actor::system(System::Operator)).expect("an operator");
    let read = async |conn: &mut PgConnection| {
        queue::snapshot(conn, &permit, demo::ANCHOR, STALE_INTERVAL).await.expect("a snapshot")
    };
    let statement = server.statement(&mut conn, async |conn| drop(read(conn).await)).await;
    let waiting = "SELECT id FROM provisioner_jobs WHERE job_status = 'pending' ORDER BY md5(id::text)";
    let waiting: Vec<JobId> = sqlx::query_scalar(waiting).fetch_all(&mut conn).await.expect("the jobs");
    let rows = [
        ("snapshot of the queue, on the server", "ms"),
        ("snapshot of the queue, read and indexed", "ms"),
        ("a position out of a snapshot", "µs"),
    ];
    let mut rows = rows.map(|(name, unit)| Row::new(name, unit, &[LAYER]));
    for _ in 0..PAIRS {
        rows[0].push([server.pgbench(&layer, "", &statement, 1, SNAPSHOTS).milliseconds]);
        let began = Instant::now();
        for _ in 1..SNAPSHOTS {
            drop(read(&mut conn).await);
        }
        let queue = read(&mut conn).await.everywhere();
        rows[1].push([per_call(SNAPSHOTS, began)]);
        // Positions by tags are made when the first is asked for.
        let began = Instant::now();
        for job in &waiting {
            black_box((queue.position_in_list(*job), queue.position_by_tags(*job)));
        }
        rows[2].push([per_call(waiting.len() * 2, began) * 1e3]);
    }
    let mut table = Table::new(format!("A snapshot of the queue, {}", label(scale)), Ratios::TimesAsFast, rows.into());
    "On the server: pgbench with the identical statement, which reads the rows and nothing of what is in them."
        .clone_into(&mut table.below);
    table
}
