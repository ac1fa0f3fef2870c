//! Shares of the queue by initiator, template or tags (domain: shares of the queue).

use std::{cmp::Reverse, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoredJson, input};
use crate::{
    authz::ReadJobs,
    model::{Share, ShareBy, Spread},
    store::Text,
    store::query::Query as _,
};

struct Row {
    id: Option<Uuid>,
    name: Option<Text>,
    tags: Option<StoredJson>,
    waiting: i64,
    waiting_prebuilds: i64,
    running: i64,
    started: i64,
    waiting_for: Option<Vec<f64>>,
    started_after: Option<Vec<f64>>,
}

/// How many jobs wait and run in the organization at `now`, by initiator, template or tags, and how long the jobs waited
/// that were created within `window` before it; the longest queue first. Jobs without a template are one share without an
/// id. One round trip, one snapshot, no locks; costs one pass over what waits, runs, and was created in
/// the window, and for templates two look-ups for each of these jobs.
///
/// # Errors
/// [`Error::Invalid`](crate::store::Error::Invalid) for a time that cannot be read again.
#[tracing::instrument(name = "db.queue.shares", skip_all)]
pub async fn shares(
    conn: &mut PgConnection,
    permit: &ReadJobs,
    by: ShareBy,
    now: OffsetDateTime,
    window: Duration,
) -> Result<Vec<Share>> {
    let (now, since) = (input::time("now", now)?, input::before(now, window)?);
    let organization = permit.organization().0;
    let rows = sqlx::query_file_as!(Row, "queries/queue/shares.sql", organization, by.as_str(), now as _, since as _)
        .fetch_all(conn)
        .of_query("queue/shares")
        .await?;
    let total = |of: fn(&Row) -> i64| rows.iter().map(of).sum::<i64>();
    let (waiting, running) = (total(|row| row.waiting), total(|row| row.running));
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let part = |count: i64, all: i64| if all == 0 { 0.0 } else { count as f64 / all as f64 };
    let mut shares: Vec<_> = rows
        .into_iter()
        .map(|row| Share {
            id: row.id,
            name: row.name.map(|name| name.0).unwrap_or_default(),
            tags: row.tags.map(|tags| tags.0.unwrap_or_default().into()),
            waiting: row.waiting,
            waiting_prebuilds: row.waiting_prebuilds,
            waiting_share: part(row.waiting, waiting),
            running: row.running,
            running_share: part(row.running, running),
            started: row.started,
            waiting_for: spread(row.waiting_for),
            started_after: spread(row.started_after),
        })
        .collect();
    shares.sort_by_cached_key(|it| Reverse((it.waiting, it.running, it.started, Reverse((it.name.clone(), it.id)))));
    Ok(shares)
}

fn spread(seconds: Option<Vec<f64>>) -> Option<Spread> {
    let &[p50, p95] = seconds?.as_slice() else { return None };
    // A stored time may be infinite.
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Some(Spread { p50: duration(p50), p95: duration(p95) })
}
